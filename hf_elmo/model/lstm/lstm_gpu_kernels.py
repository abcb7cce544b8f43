"""The phases of a step of the biLM's LSTMs as Triton kernels; `lstm_gpu` says what they are and launches them."""

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

if triton is not None:

    @triton.jit
    def _nearest(x: tl.tensor) -> tl.tensor:
        """The nearest number that TF32 can hold; tensor cores cut the other bits off."""
        return ((x.to(tl.int32, bitcast=True) + 4096) & -8192).to(tl.float32, bitcast=True)

    @triton.jit
    def _add_product(
        total: tl.tensor, weights: tl.tensor, right: tl.tensor, low: tl.tensor, SPLIT: tl.constexpr,
    ) -> tl.tensor:  # fmt: skip
        if SPLIT:
            high = _nearest(weights)
            # Tensor cores cut their sums off where they ought to round: they add up no more than a block.
            block = tl.dot(_nearest(weights - high), right, input_precision="tf32")
            block = tl.dot(high, low, block, input_precision="tf32")
            total += tl.dot(high, right, block, input_precision="tf32")
        else:
            total = tl.dot(weights, right, total, input_precision="tf32")
        return total

    @triton.jit
    def _store_right(
        matrix: tl.tensor, size: tl.tensor, where: tl.tensor, x: tl.tensor, mask: tl.tensor, SPLIT: tl.constexpr,
    ) -> None:  # fmt: skip
        """Stores what will be the right operand of a product: with SPLIT two matrices of that size."""
        if matrix.dtype.element_ty == tl.float32:
            high = _nearest(x)
            tl.store(matrix + where, high, mask=mask)
            if SPLIT:
                tl.store(matrix + size + where, _nearest(x - high), mask=mask)
        else:
            tl.store(matrix + where, x.to(matrix.dtype.element_ty), mask=mask)

    @triton.jit
    def _load_weights(pointers: tl.tensor, rows: tl.tensor, columns: tl.tensor, EVEN: tl.constexpr) -> tl.tensor:
        if EVEN:
            block = tl.load(pointers)
        else:
            block = tl.load(pointers, mask=rows[:, None] & columns[None, :], other=0.0)
        return block

    @triton.jit
    def _tanh(x: tl.tensor, FAST: tl.constexpr) -> tl.tensor:
        """FAST: one instruction, within 5e-4, for outputs that are rounded to 16 bits."""
        if FAST:
            y = tl.inline_asm_elementwise(
                "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
            )
        else:
            # exp may overflow; the quotient is then zero, as it should be.
            y = 1 - 2 / (1 + tl.exp(2 * x))
        return y

    @triton.jit
    def _sigmoid(x: tl.tensor, FAST: tl.constexpr) -> tl.tensor:
        if FAST:
            y = 0.5 + 0.5 * _tanh(0.5 * x, FAST)
        else:
            y = 1 / (1 + tl.exp(-x))
        return y

    @triton.jit
    def _gates(
        tile: tl.tensor, direction: tl.tensor, step: tl.tensor, start: tl.tensor, n: tl.tensor, share: tl.tensor,
        begin: tl.tensor, rows: tl.tensor, hidden: tl.tensor, w_hh: tl.tensor, cell: tl.tensor, y: tl.tensor,
        out: tl.tensor, words: tl.tensor, batch: tl.tensor, cell_clip: tl.tensor, zero: tl.tensor, CELLS: tl.constexpr,
        DIM: tl.constexpr, PROJECTS: tl.constexpr, CLIPS_CELL: tl.constexpr, SPLIT: tl.constexpr, PARTS: tl.constexpr,
        BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
        COMPILED: tl.constexpr,
    ) -> None:  # fmt: skip
        """Phase 1 for some cells of some sentences."""
        EVEN: tl.constexpr = CELLS % BLOCK_C == 0 and DIM % BLOCK_K == 0
        FAST: tl.constexpr = COMPILED and w_hh.dtype.element_ty != tl.float32
        columns = tl.cdiv(n, BLOCK_N)
        c = (tile // columns) * BLOCK_C + tl.arange(0, BLOCK_C)
        s = (tile % columns) * BLOCK_N + tl.arange(0, BLOCK_N)
        k = tl.arange(0, BLOCK_K)
        here = (c < CELLS)[:, None] & (s < n)[None, :]
        first = (direction * rows + start - begin).to(tl.int64)
        shares = share + (first + s)[None, :] * (4 * CELLS) + c[:, None]
        cells = cell + (direction * batch + s)[None, :] * CELLS + c[:, None]
        if not SPLIT:
            # Asked for here, waited for behind the products. (Not with SPLIT, for which registers are too few.)
            share_i = tl.load(shares, mask=here, other=0.0)
            share_f = tl.load(shares + CELLS, mask=here, other=0.0)
            share_g = tl.load(shares + 2 * CELLS, mask=here, other=0.0)
            share_o = tl.load(shares + 3 * CELLS, mask=here, other=0.0)
            old = tl.load(cells, mask=here, other=0.0)
        i = tl.zeros((BLOCK_C, BLOCK_N), tl.float32)
        f = tl.zeros((BLOCK_C, BLOCK_N), tl.float32)
        g = tl.zeros((BLOCK_C, BLOCK_N), tl.float32)
        o = tl.zeros((BLOCK_C, BLOCK_N), tl.float32)
        # Two slots for the hidden state, since without projection others still read the last step's.
        size = batch * DIM
        rights = hidden + (((step + 1) % 2) * 2 + direction) * PARTS * size + s[None, :] * DIM + k[:, None]
        weights = w_hh + (direction * 4 * CELLS + c)[:, None] * DIM + k[None, :]
        # A bound that the compiler does not know keeps it from unrolling the loop, which would spill registers.
        for at in tl.range(0, DIM + zero if COMPILED and not SPLIT else DIM, BLOCK_K, num_stages=STAGES):
            inside = at + k < DIM
            mask = inside[:, None] & (s < n)[None, :]
            # Other programs wrote it: not from this one's L1 cache (.cg).
            right = tl.load(rights + at, mask=mask, other=0.0, cache_modifier=".cg")
            low = right
            if SPLIT:
                low = tl.load(rights + size + at, mask=mask, other=0.0, cache_modifier=".cg")
            w = weights + at
            i = _add_product(i, _load_weights(w, c < CELLS, inside, EVEN), right, low, SPLIT)
            f = _add_product(f, _load_weights(w + CELLS * DIM, c < CELLS, inside, EVEN), right, low, SPLIT)
            g = _add_product(g, _load_weights(w + 2 * CELLS * DIM, c < CELLS, inside, EVEN), right, low, SPLIT)
            o = _add_product(o, _load_weights(w + 3 * CELLS * DIM, c < CELLS, inside, EVEN), right, low, SPLIT)
        if SPLIT:
            share_i = tl.load(shares, mask=here, other=0.0)
            share_f = tl.load(shares + CELLS, mask=here, other=0.0)
            share_g = tl.load(shares + 2 * CELLS, mask=here, other=0.0)
            share_o = tl.load(shares + 3 * CELLS, mask=here, other=0.0)
            old = tl.load(cells, mask=here, other=0.0)
        new = _sigmoid(f + share_f, FAST) * old + _sigmoid(i + share_i, FAST) * _tanh(g + share_g, FAST)
        if CLIPS_CELL:
            new = tl.minimum(tl.maximum(new, -cell_clip), cell_clip)
        tl.store(cells, new, mask=here)
        h = _sigmoid(o + share_o, FAST) * _tanh(new, FAST)
        if PROJECTS:
            into = y + direction * PARTS * batch * CELLS
            _store_right(into, batch * CELLS, s[None, :] * CELLS + c[:, None], h, here, SPLIT)
        else:
            row = (direction * words + start + s)[None, :].to(tl.int64) * DIM
            tl.store(out + row + c[:, None], h.to(out.dtype.element_ty), mask=here)
            into = hidden + ((step % 2) * 2 + direction) * PARTS * size
            _store_right(into, size, s[None, :] * DIM + c[:, None], h, here, SPLIT)

    @triton.jit
    def _projection(
        tile: tl.tensor, direction: tl.tensor, n: tl.tensor, y: tl.tensor, w_hr: tl.tensor, sums: tl.tensor,
        batch: tl.tensor, zero: tl.tensor, CELLS: tl.constexpr, DIM: tl.constexpr, SPLIT: tl.constexpr,
        PARTS: tl.constexpr, SLICES: tl.constexpr, SLICE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr,
        BLOCK_K: tl.constexpr, STAGES: tl.constexpr, COMPILED: tl.constexpr,
    ) -> None:  # fmt: skip
        """Phase 2 for some rows of the projection, one slice of the cells and some sentences."""
        EVEN: tl.constexpr = DIM % BLOCK_P == 0 and SLICE % BLOCK_K == 0 and SLICES * SLICE == CELLS
        columns = tl.cdiv(n, BLOCK_N)
        s = (tile % columns) * BLOCK_N + tl.arange(0, BLOCK_N)
        part = (tile // columns) % SLICES
        p = (tile // columns // SLICES) * BLOCK_P + tl.arange(0, BLOCK_P)
        k = part * SLICE + tl.arange(0, BLOCK_K)
        size = batch * CELLS
        rights = y + direction * PARTS * size + s[None, :] * CELLS + k[:, None]
        weights = w_hr + (direction * DIM + p)[:, None] * CELLS + k[None, :]
        total = tl.zeros((BLOCK_P, BLOCK_N), tl.float32)
        for at in tl.range(0, SLICE + zero if COMPILED and not SPLIT else SLICE, BLOCK_K, num_stages=STAGES):
            inside = at + k < CELLS
            mask = inside[:, None] & (s < n)[None, :]
            right = tl.load(rights + at, mask=mask, other=0.0, cache_modifier=".cg")
            low = right
            if SPLIT:
                low = tl.load(rights + size + at, mask=mask, other=0.0, cache_modifier=".cg")
            total = _add_product(total, _load_weights(weights + at, p < DIM, inside, EVEN), right, low, SPLIT)
        where = sums + ((direction * SLICES + part) * batch + s)[None, :] * DIM + p[:, None]
        tl.store(where, total, mask=(p < DIM)[:, None] & (s < n)[None, :])

    @triton.jit
    def _total(
        tile: tl.tensor, direction: tl.tensor, step: tl.tensor, start: tl.tensor, n: tl.tensor, sums: tl.tensor,
        hidden: tl.tensor, out: tl.tensor, words: tl.tensor, batch: tl.tensor, proj_clip: tl.tensor, DIM: tl.constexpr,
        CLIPS_PROJ: tl.constexpr, SPLIT: tl.constexpr, PARTS: tl.constexpr, SLICES: tl.constexpr, BLOCK_E: tl.constexpr,
    ) -> None:  # fmt: skip
        """Phase 3 for some elements of the hidden state."""
        e = tile * BLOCK_E + tl.arange(0, BLOCK_E)
        here = e < n * DIM
        size = batch * DIM
        terms = sums + (direction * SLICES + tl.arange(0, SLICES))[:, None] * size + e[None, :]
        h = tl.sum(tl.load(terms, mask=here[None, :], other=0.0, cache_modifier=".cg"), axis=0)
        if CLIPS_PROJ:
            h = tl.minimum(tl.maximum(h, -proj_clip), proj_clip)
        row = (direction * words + start).to(tl.int64) * DIM
        tl.store(out + row + e, h.to(out.dtype.element_ty), mask=here)
        _store_right(hidden + ((step % 2) * 2 + direction) * PARTS * size, size, e, h, here, SPLIT)

    @triton.jit
    def _barrier(counter: tl.tensor, target: tl.tensor, COMPILED: tl.constexpr) -> None:
        """Waits until `target` programs in all have come here since the counter was zero."""
        tl.debug_barrier()
        if COMPILED:
            # One thread counts the program in and looks until all are there. Scalar atomics would do, 0.7 us slower.
            tl.inline_asm_elementwise(
                """
                {
                    .reg .pred p;
                    .reg .u32 x;
                    mov.u32 x, %tid.x;
                    setp.ne.u32 p, x, 0;
                    @p bra done;
                    red.release.gpu.global.add.u32 [$1], 1;
                wait:
                    ld.acquire.gpu.global.u32 x, [$1];
                    setp.lt.u32 p, x, $2;
                    @p bra wait;
                done:
                    mov.u32 $0, 0;
                }
                """,
                "=r,l,r",
                [counter, target],
                dtype=tl.int32,
                is_pure=False,
                pack=1,
            )
        tl.debug_barrier()

    @triton.jit(
        do_not_specialize=["first", "last", "begin", "rows", "words", "batch", "cell_clip", "proj_clip", "zero"]
    )
    def layer_kernel(
        first: tl.tensor, last: tl.tensor, starts: tl.tensor, counters: tl.tensor, share: tl.tensor, begin: tl.tensor,
        rows: tl.tensor, hidden: tl.tensor, w_hh: tl.tensor, cell: tl.tensor, y: tl.tensor, w_hr: tl.tensor,
        sums: tl.tensor, out: tl.tensor, words: tl.tensor, batch: tl.tensor, cell_clip: tl.tensor, proj_clip: tl.tensor,
        zero: tl.tensor, CELLS: tl.constexpr, DIM: tl.constexpr, PROJECTS: tl.constexpr, CLIPS_CELL: tl.constexpr,
        CLIPS_PROJ: tl.constexpr, SPLIT: tl.constexpr, PARTS: tl.constexpr, SLICES: tl.constexpr, SLICE: tl.constexpr,
        BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr,
        BLOCK_L: tl.constexpr, BLOCK_E: tl.constexpr, STAGES: tl.constexpr, COMPILED: tl.constexpr,
    ) -> None:  # fmt: skip
        """Steps `first` to `last` of both directions of a layer, by programs that all run at the same time. `share` has
        that many rows for each direction, the first being that of the word `begin`."""
        direction = tl.program_id(0) % 2
        worker = tl.program_id(0) // 2
        workers = tl.num_programs(0) // 2
        counter = counters + direction * 32
        arrivals = 0
        step = first
        start = tl.load(starts + step)
        following = tl.load(starts + step + 1)
        # `while`, not `range`: the interpreter has no ranges of data with NumPy 2.4.
        while step < last:
            n = following - start
            after = tl.load(starts + step + 2)
            columns = tl.cdiv(n, BLOCK_N)
            tile = worker
            while tile < tl.cdiv(CELLS, BLOCK_C) * columns:
                _gates(
                    tile, direction, step, start, n, share, begin, rows, hidden, w_hh, cell, y, out, words, batch,
                    cell_clip, zero, CELLS, DIM, PROJECTS, CLIPS_CELL, SPLIT, PARTS, BLOCK_N, BLOCK_C, BLOCK_K, STAGES,
                    COMPILED,
                )  # fmt: skip
                tile += workers
            arrivals += workers
            _barrier(counter, arrivals, COMPILED)
            if PROJECTS:
                tile = worker
                while tile < tl.cdiv(DIM, BLOCK_P) * SLICES * columns:
                    _projection(
                        tile, direction, n, y, w_hr, sums, batch, zero, CELLS, DIM, SPLIT, PARTS, SLICES, SLICE,
                        BLOCK_N, BLOCK_P, BLOCK_L, STAGES, COMPILED,
                    )  # fmt: skip
                    tile += workers
                arrivals += workers
                _barrier(counter, arrivals, COMPILED)
                tile = worker
                while tile < tl.cdiv(n * DIM, BLOCK_E):
                    _total(
                        tile, direction, step, start, n, sums, hidden, out, words, batch, proj_clip,
                        DIM, CLIPS_PROJ, SPLIT, PARTS, SLICES, BLOCK_E,
                    )  # fmt: skip
                    tile += workers
                arrivals += workers
                _barrier(counter, arrivals, COMPILED)
            start = following
            following = after
            step += 1
