"""Corpora to folders of shards: read back with the libraries that people use, interrupted, by several processes."""

import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import datasets
import h5py
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import warm

from hf_elmo import ElmoModel, ElmoTokenizer, Embedder, embed_corpus, embed_sentences
from hf_elmo.vectors.bulk import output_folder, shard_writers
from hf_elmo.vectors.bulk.row_sources import open_rows
from hf_elmo.vectors.bulk.rows import BadRow
from hf_elmo.vectors.bulk.tables import with_fixed_sizes
from hf_elmo.vectors.embedding import LAYERS

TEXTS = [
    "I read the book.",
    "",
    "Yes!",
    "Ärger in 東京, is it?",
    "He read it. She did not.",
    "one",
    "two words",
    "It .",
]
NUMBERS = range(len(TEXTS))


@pytest.fixture(scope="module")
def reference(tiny_model_folder):
    """Words and vectors of each text, by `embed_sentences`."""
    model, tokenizer = ElmoModel.from_pretrained(tiny_model_folder), ElmoTokenizer.from_pretrained(tiny_model_folder)
    return {layers: list(embed_sentences(model, tokenizer, TEXTS, layers)) for layers in LAYERS}


def write_text(path, texts=TEXTS):
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def write_json(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def content(folder):
    """All files of a folder with their SHA-256."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def close(ours, theirs, dtype="float32"):
    tolerance = 1e-5 if dtype == "float32" else 4e-3
    np.testing.assert_allclose(np.asarray(ours, np.float32), theirs, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("layers", "dtype"), [("mix", "float32"), ("all", "float16"), ("average", "float16")])
def test_datasets_pandas_and_duckdb_open_it(tmp_path, tiny_model_folder, reference, layers, dtype):
    duckdb = pytest.importorskip("duckdb", reason="needs duckdb (of the extra test)")
    rows = [{"text": text, "id": f"n{number}", "label": number % 2} for number, text in enumerate(TEXTS)]
    source = write_json(tmp_path / "corpus.jsonl", rows)
    embedder = Embedder(tiny_model_folder, layers=layers, dtype=dtype)
    manifest = embed_corpus(source, tmp_path / "out", embedder, columns=["id", "label"], shard_rows=3)
    assert [shard["rows"] for shard in manifest["shards"]] == [3, 3, 2]
    opened = {
        "datasets": datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache")),
        "pandas": pd.read_parquet(tmp_path / "out" / "data").to_dict("records"),
        "duckdb": duckdb.sql(f"select * from '{tmp_path}/out/data/*.parquet' order by row").fetchall(),
    }
    columns = ["row", "id", "label", "words", "vectors"]
    assert opened["datasets"].column_names == columns
    opened["duckdb"] = [dict(zip(columns, values)) for values in opened["duckdb"]]
    for name, found in opened.items():
        assert len(list(found)) == len(TEXTS), name
        for number, (row, expected) in enumerate(zip(found, reference[layers], strict=True)):
            assert (row["row"], row["id"], row["label"]) == (number, f"n{number}", number % 2), name
            assert list(row["words"]) == expected.words, name
            layered = row["vectors"] if layers == "all" else [row["vectors"]]
            stacked = [np.array([list(word) for word in layer], np.float32).reshape(-1, 32) for layer in layered]
            close(stacked if layers == "all" else stacked[0], expected.vectors, dtype)
    table = pq.read_table(tmp_path / "out" / "data")
    vector = pa.list_(pa.float16() if dtype == "float16" else pa.float32(), 32)
    assert table.schema.field("vectors").type == pa.list_(pa.list_(vector) if layers == "all" else vector)


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("layers", ["top", "all"])
def test_pooled(tmp_path, tiny_model_folder, reference, pooling, layers):
    source, embedder = write_text(tmp_path / "c.txt"), Embedder(tiny_model_folder, pooling=pooling, layers=layers)
    for format in ("parquet", "safetensors"):
        embed_corpus(source, tmp_path / format, embedder, shard_rows=100, format=format)
    column = pq.read_table(tmp_path / "parquet" / "data")["vector"]
    # Plain lists: no pyarrow before 26 can read nulls among lists of fixed size.
    assert column.type == pa.list_(pa.float32() if layers == "top" else pa.list_(pa.float32(), 32))
    found = column.to_pylist()
    stored = safetensors.numpy.load_file(tmp_path / "safetensors" / "data" / "00000.safetensors")["vectors"]
    for vector, array, expected in zip(found, stored, reference[layers], strict=True):
        if expected.words:
            pooled = getattr(expected.vectors, pooling)(axis=-2)
            close(np.array(vector), pooled)
            np.testing.assert_array_equal(np.array(vector, np.float32), array)
        else:
            assert vector is None
            assert np.isnan(array).all()


def test_boundaries_sentences_and_words_between_white_space(tiny_model_folder):
    model, tokenizer = ElmoModel.from_pretrained(tiny_model_folder), ElmoTokenizer.from_pretrained(tiny_model_folder)
    two = list(embed_sentences(model, tokenizer, ["He read it.", "She did not."], keep_boundaries=True))
    row, empty = Embedder(tiny_model_folder, split_sentences=True, keep_boundaries=True).embed([TEXTS[4], " "])
    assert (
        row.words
        == two[0].words + two[1].words
        == ["<S>", *["He", "read", "it", ".", "</S>", "<S>", "She", "did", "not", ".", "</S>"]]
    )
    close(row.vectors, np.concatenate([each.vectors for each in two]))
    assert empty.words == ["<S>", "</S>"]
    (row,) = Embedder(tiny_model_folder, pretokenized=True).embed(["I'm  here. "])
    assert row.words == ["I'm", "here."]


@pytest.mark.parametrize("layers", ["mix", "all"])
def test_safetensors_and_hdf5(tmp_path, tiny_model_folder, reference, layers):
    source = write_text(tmp_path / "c.txt")
    embedder = Embedder(tiny_model_folder, layers=layers)
    for format in ("safetensors", "hdf5"):
        embed_corpus(source, tmp_path / format, embedder, shard_rows=5, format=format)
    names = sorted(path.name for path in (tmp_path / "safetensors" / "data").iterdir())
    assert names == ["00000.safetensors", "00001.safetensors"]
    number = 0
    for name in names:
        arrays = safetensors.numpy.load_file(tmp_path / "safetensors" / "data" / name)
        words = [json.loads(line)["words"] for line in bytes(arrays["words"]).decode().splitlines()]
        with h5py.File((tmp_path / "hdf5" / "data" / name).with_suffix(".hdf5")) as file:
            for place, row in enumerate(arrays["rows"]):
                assert row == number
                expected = reference[layers][number]
                assert words[place] == expected.words
                vectors = arrays["vectors"][arrays["offsets"][place] : arrays["offsets"][place + 1]]
                close(vectors, expected.vectors if layers == "mix" else expected.vectors.swapaxes(0, 1))
                close(file[str(number)][()], expected.vectors)
                number += 1
    assert number == len(TEXTS)
    with pytest.raises(ValueError, match="original HDF5 layout has float32 vectors of words and nothing else"):
        embed_corpus(source, tmp_path / "x", Embedder(tiny_model_folder, pooling="mean"), format="hdf5")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("kind", ["txt", "txt.gz", "txt.zst", "jsonl", "jsonl.gz", "csv", "parquet", "saved", "folder"])
def test_every_kind_of_input_has_the_same_rows(tmp_path, kind):
    """Also when rows are skipped before, and from one input into the next."""
    columns = {"text": TEXTS, "id": list(NUMBERS)}
    path = tmp_path / f"c.{kind}"
    if kind.startswith("txt"):
        data = "".join(f"{text}\n" for text in TEXTS).encode()
        pack = {"gz": gzip.compress, "zst": lambda data: pa.compress(data, codec="zstd", asbytes=True)}
        path.write_bytes(pack.get(kind.partition(".")[2], bytes)(data))
    elif kind.startswith("jsonl"):
        data = "\n\n".join(json.dumps({"text": text, "id": id}) for text, id in zip(TEXTS, NUMBERS)).encode()
        path.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    elif kind == "csv":
        pd.DataFrame(columns).to_csv(path, index=False)
    elif kind == "parquet":
        pq.write_table(pa.table(columns), path, row_group_size=3)
    elif kind == "saved":
        datasets.Dataset.from_dict(columns).save_to_disk(path)
    else:
        path.mkdir()
        pq.write_table(pa.table(columns), path / "train.parquet")
    kept = [] if kind.startswith("txt") else ["id"]
    types = [] if not kept else [pa.string() if kind == "csv" else pa.int64()]
    for skipped in (0, 2, 3, 7, 100):
        source = open_rows(path, columns=kept)
        assert source.types() == types
        assert source.skip(skipped) == min(skipped, len(TEXTS))
        found = [*source.read(3), *source.read(100)]
        assert [row.text for row in found] == TEXTS[skipped:]
        assert [row.kept for row in found] == [
            () if not kept else (str(number) if kind == "csv" else number,) for number in NUMBERS[skipped:]
        ]
        source.close()


def test_several_inputs_are_one_sequence(tmp_path, tiny_model_folder):
    parts = [write_text(tmp_path / "a.txt", TEXTS[:3]), write_text(tmp_path / "b.txt", []), tmp_path / "c.parquet"]
    pq.write_table(pa.table({"text": TEXTS[3:]}), parts[2])
    embedder = Embedder(tiny_model_folder)
    embed_corpus(parts, tmp_path / "parts", embedder, shard_rows=2)
    embed_corpus(write_text(tmp_path / "whole.txt"), tmp_path / "whole", embedder, shard_rows=2)
    ours, whole = content(tmp_path / "parts"), content(tmp_path / "whole")
    assert {name for name in ours if ours[name] != whole[name]} == {"manifest.json"}


def test_a_row_that_cannot_be_read(tmp_path, tiny_model_folder):
    good = [json.dumps({"text": text, "id": number}) for number, text in enumerate(TEXTS)]
    bad = [b'{"text": "x"', b"\xff\xfe", b'["text"]', b'{"text": 3, "id": 1}', b'{"text": "x", "id": "seven"}', b"\0"]
    # The types of columns are those of the first rows, which are more than these, but the last is beyond them.
    lines = [line.encode() for line in good[:4]] + bad[:4] + [line.encode() for line in good[4:]]
    source = tmp_path / "c.jsonl"
    source.write_bytes(b"\n".join(lines))
    embedder = Embedder(tiny_model_folder)
    with pytest.raises(ValueError, match=r"c.jsonl, line 5: this is not JSON .*\(on_bad_row='report'\)") as failure:
        embed_corpus(source, tmp_path / "out", embedder, columns=["id"], shard_rows=3)
    assert "Shard 1 (from row 3 on)" in str(failure.value)
    # What was finished is kept.
    assert [path.name for path in (tmp_path / "out" / "data").iterdir()] == ["00000.parquet"]
    manifest = embed_corpus(source, tmp_path / "out", embedder, columns=["id"], shard_rows=3, on_bad_row="report")
    assert (manifest["totals"]["rows"], manifest["totals"]["bad_rows"]) == (8, 4)
    reported = [
        json.loads(line) for line in (tmp_path / "out" / "bad_rows.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [row["row"] for row in reported] == [4, 5, 6, 7]
    assert [row["place"] for row in reported] == [f"{source}, line {number}" for number in (5, 6, 7, 8)]
    table = pq.read_table(tmp_path / "out" / "data")
    assert table["row"].to_pylist() == [0, 1, 2, 3, 8, 9, 10, 11]
    assert table["id"].to_pylist() == list(NUMBERS)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("c.txt", b"a\n" + b"x" * 30 + b"\rb\n", "more than 20 bytes"),
        ("c.txt", b"a\n" + b"x" * 99 + b"\nb\n", "more than 20 bytes"),
        ("c.txt", b"a\n\xff\nb", "no UTF-8"),
        ("c.csv", b"text\na\nb,c\nb\n", "2 fields, but the first row names 1"),
        ("c.csv", b'text\na\n"b"c\nb\n', "not CSV"),
        ("c.csv", b"text\na\n\xff\nb\n", "no UTF-8"),
        ("c.jsonl", b'{"text": "a"}\n{"no": 1}\n{"text": ["b"]}', "must be a text or a list of words, was: NoneType"),
        ("c.jsonl", b'{"text": "a"}\n{"text": ["b", 1]}\n{"text": "b"}', "must consist of words"),
    ],
)
def test_rows_after_a_bad_one_are_read(tmp_path, name, data, reason):
    (tmp_path / name).write_bytes(data)
    source = open_rows(tmp_path / name, max_line_bytes=20)
    source.types()
    first, bad, last = source.read(10)
    assert (first.text, last.text) in (("a", "b"), ("a", ["b"]))
    assert isinstance(bad, BadRow)
    assert reason in bad.reason
    assert bad.place.startswith(f"{tmp_path / name}, line ")


def test_a_value_of_another_type_beyond_the_first_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_elmo.vectors.bulk.line_rows.ROWS_FOR_TYPES", 2)
    source = open_rows(write_json(tmp_path / "c.jsonl", [{"text": "a", "id": id} for id in (1, None, 3, "x", 5)]),
                       columns=["id"])  # fmt: skip
    assert source.types() == [pa.int64()]
    rows = list(source.read(9))
    assert [row.kept for row in rows if not isinstance(row, BadRow)] == [(1,), (None,), (3,), (5,)]
    assert rows[3] == BadRow(f"{tmp_path / 'c.jsonl'}, line 4", "'id' must be int64 as in the first rows, was: 'x'")


def test_inputs_that_are_none(tmp_path):
    (tmp_path / "c.parquet").write_bytes(b"no")
    pq.write_table(pa.table({"text": [1]}), tmp_path / "n.parquet")
    write_json(tmp_path / "c.jsonl", [{"txt": "a"}])
    datasets.DatasetDict(a=datasets.Dataset.from_dict({"text": ["x"]}), b=datasets.Dataset.from_dict({"text": ["y"]})
                         ).save_to_disk(tmp_path / "two")  # fmt: skip
    for name, message in {
        "missing.txt": "There is no file or folder",
        "c.parquet": "not a sound Parquet file",
        "n.parquet": "the column 'text' must be text or lists of words, was: int64",
        "c.jsonl": "no column 'text': it has 'txt'",
        "two": "has the splits a, b: name one of them",
    }.items():
        with pytest.raises((ValueError, OSError), match=message):
            open_rows(tmp_path / name).types()
    assert [row.text for row in open_rows(tmp_path / "two", split="b").read(5)] == ["y"]
    with pytest.raises(ValueError, match="plain text, which has no columns to keep: id"):
        open_rows(write_text(tmp_path / "c.txt"), columns=["id"]).types()


def test_options_that_are_none(tmp_path, tiny_model_folder):
    source, embedder = write_text(tmp_path / "c.txt"), Embedder(tiny_model_folder)
    for options, message in (
        ({"format": "npz"}, "no format 'npz'; there are parquet, safetensors, hdf5"),
        ({"shard_rows": 0}, "shard_rows must be at least 1"),
        ({"on_bad_row": "skip"}, "on_bad_row must be 'error' or 'report'"),
        ({"columns": ["row"]}, "'row' cannot be kept"),
        ({"columns": "id"}, "must be a list"),
        ({"process": 2, "processes": 2}, "from 0 to 1, was: 2"),
        ({"process": 1}, "neither"),
    ):
        with pytest.raises(ValueError, match=message):
            embed_corpus(source, tmp_path / "out", embedder, **options)
    for options, message in (
        ({"layers": "first"}, "layers must be one of"),
        ({"pooling": "sum"}, "pooling must be one of"),
        ({"dtype": "int8"}, "dtype must be one of"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"pretokenized": True, "split_sentences": True}, "sentences already"),
    ):
        with pytest.raises(ValueError, match=message):
            Embedder(tiny_model_folder, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.txt"]
    (tmp_path / "full").mkdir()
    write_text(tmp_path / "full" / "mine.txt")
    with pytest.raises(ValueError, match="is not empty, and no corpus was being embedded there"):
        embed_corpus(source, tmp_path / "full", embedder)
    with pytest.raises(ValueError, match=r"c.txt is a file: name a folder"):
        embed_corpus(source, source, embedder)


def test_beyond_float16(tmp_path, tiny_model_folder):
    model = ElmoModel.from_pretrained(tiny_model_folder)
    model.scalar_mixes[0].gamma.data.fill_(1e6)
    model.save_pretrained(tmp_path / "large")
    ElmoTokenizer.from_pretrained(tiny_model_folder).save_pretrained(tmp_path / "large")
    source = write_text(tmp_path / "c.txt")
    with pytest.raises(ValueError, match=r"A vector has the value .*, but float16 ends at 65,504: store float32"):
        embed_corpus(source, tmp_path / "out", Embedder(tmp_path / "large", dtype="float16"))
    embed_corpus(source, tmp_path / "whole", Embedder(tmp_path / "large"))


class TestInterruptions:
    @pytest.fixture
    def source(self, tmp_path):
        return write_text(tmp_path / "c.txt", [f"{text} {number}" for number in range(6) for text in TEXTS])

    @pytest.fixture
    def uninterrupted(self, tmp_path, source, tiny_model_folder):
        embed_corpus(source, tmp_path / "expected", Embedder(tiny_model_folder, dtype="float16"), shard_rows=5)
        return content(tmp_path / "expected")

    def command(self, source, output, model, *more):
        return ["-m", "hf_elmo", "embed-corpus", source, output, "-m", model, "--dtype", "float16", "--shard-rows", "5",
                *more]  # fmt: skip

    @pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.slow)])
    def test_kill_9_and_start_again(self, tmp_path, source, uninterrupted, tiny_model_folder, kills):
        """Each time a random moment after something is begun."""
        output, command = tmp_path / "out", self.command(source, tmp_path / "out", tiny_model_folder)
        moments = random.Random(7)
        for kill in range(kills):
            process = warm.Popen(command, stderr=subprocess.PIPE, text=True)
            begun = time.monotonic()
            # All the while until the first shard, and further by one shard for each kill.
            while process.poll() is None and len(list((output / "data").glob("*.parquet"))) < min(kill, 6):
                time.sleep(0.002)
                assert time.monotonic() - begun < 100
            while not (output / "data").is_dir():
                time.sleep(0.002)
                assert time.monotonic() - begun < 100
            time.sleep(0.03 * moments.random())
            assert process.poll() is None, process.communicate()
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert not (output / "manifest.json").exists()
        done = warm.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert content(output) == uninterrupted
        assert sorted(path.name for path in output.iterdir()) == ["README.md", "data", "manifest.json"]

    @pytest.mark.slow
    def test_torchrun_with_a_worker_killed(self, tmp_path, source, uninterrupted, tiny_model_folder):
        """torchrun starts both again."""
        output = tmp_path / "out"
        module, *arguments = self.command(source, output, tiny_model_folder)[1:]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                   "--max-restarts", "1", "-m", module, *map(str, arguments)]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while not list((output / "data").glob("*.parquet")):
            time.sleep(0.002)
            assert process.poll() is None, process.communicate()
        (worker, *_) = [
            child for child in psutil.Process(process.pid).children(recursive=True) if "embed-corpus" in child.cmdline()
        ]
        worker.kill()
        _, said = process.communicate(timeout=300)
        assert not worker.is_running()
        # It ends the other one, and starts two anew.
        assert "closing signal" in said
        assert process.returncode == 0, said
        assert content(output) == uninterrupted

    @pytest.mark.slow
    def test_accelerate_launch(self, tmp_path, source, uninterrupted, tiny_model_folder):
        """With `--multi_gpu`, which starts several processes where there is no GPU, too."""
        output = tmp_path / "out"
        module, *arguments = self.command(source, output, tiny_model_folder, "--device", "cpu")[1:]
        launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
                  "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]  # fmt: skip
        command = [sys.executable, *launch, "-m", module, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        # Each says that it is done, or, if it is the last one, what the folder has.
        assert done.stderr.count("this process is done, others are not yet") + done.stderr.count("48 rows") == 2
        assert content(output) == uninterrupted

    @pytest.mark.parametrize("processes", [2, 3])
    def test_processes_share_the_work(self, tmp_path, source, uninterrupted, tiny_model_folder, processes):
        output, embedder = tmp_path / "out", Embedder(tiny_model_folder, dtype="float16")
        for process in reversed(range(processes)):
            place = {"process": process, "processes": processes}
            manifest = embed_corpus(source, output, embedder, shard_rows=5, **place)
            numbers = {int(path.stem) for path in (output / "data").iterdir()}
            assert {number for number in range(10) if number % processes == process} <= numbers
            assert (manifest is None) == (process > 0)
        assert content(output) == uninterrupted
        # And another start finds it complete.
        assert embed_corpus(source, output, embedder, shard_rows=5) == manifest
        assert content(output) == uninterrupted

    def test_another_process_completes_it_first(self, tmp_path, source, uninterrupted, tiny_model_folder, monkeypatch):
        """Between this one's start and its first shard, so that there are no records any more."""
        monkeypatch.setattr(output_folder.OutputFolder, "begin", lambda self: None)
        embedder = Embedder(tiny_model_folder, dtype="float16")
        manifest = embed_corpus(source, tmp_path / "expected", embedder, shard_rows=5)
        assert len(manifest["shards"]) == 10
        assert content(tmp_path / "expected") == uninterrupted

    @pytest.mark.parametrize(
        ("owner", "method", "file"),
        [
            (output_folder.OutputFolder, "_write", "plan.json"),
            (output_folder.OutputFolder, "_read", "plan.json"),
            (os, "open", "process-0.lock"),
            (os, "open", "completing.lock"),
        ],
    )
    def test_another_process_completes_it_at_this_moment(
        self, tmp_path, source, uninterrupted, tiny_model_folder, monkeypatch, owner, method, file
    ):
        """And deletes the folder of what is unfinished before this one opens its file there."""
        output, embedder = tmp_path / "out", Embedder(tiny_model_folder, dtype="float16")
        with monkeypatch.context() as patch:
            patch.setattr(output_folder.OutputFolder, "complete", lambda self, num_shards: None)
            for process in range(2):
                assert embed_corpus(source, output, embedder, shard_rows=5, process=process, processes=2) is None
        really = getattr(owner, method)

        def complete_first(*arguments, **more):
            if any(os.path.basename(each) == file for each in arguments if isinstance(each, str | Path)):
                monkeypatch.undo()
                assert embed_corpus(source, output, embedder, shard_rows=5, process=1, processes=2)
                assert not (output / "_unfinished").exists()
            return really(*arguments, **more)

        monkeypatch.setattr(owner, method, complete_first)
        if method == "_write":
            # As the first process, which finds no plan.
            exists = Path.exists
            monkeypatch.setattr(Path, "exists", lambda path: path.name != file and exists(path))
        manifest = embed_corpus(source, output, embedder, shard_rows=5, process=0, processes=2)
        assert len(manifest["shards"]) == 10
        assert content(output) == uninterrupted

    def test_two_at_once_by_accident(self, tmp_path, source, tiny_model_folder):
        folder = output_folder.OutputFolder(tmp_path / "out", {}, ".parquet")
        folder.begin()
        with (
            folder.only_process(0),
            pytest.raises(ValueError, match="Another process is embedding into"),
            folder.only_process(0),
        ):
            pass

    def test_what_changed_is_said(self, tmp_path, source, tiny_model_folder):
        output = tmp_path / "out"
        embed_corpus(source, output, Embedder(tiny_model_folder), shard_rows=5, process=0, processes=2)
        model = ElmoModel.from_pretrained(tiny_model_folder)
        model.scalar_mixes[0].gamma.data += 1
        model.save_pretrained(tmp_path / "other")
        ElmoTokenizer.from_pretrained(tiny_model_folder).save_pretrained(tmp_path / "other")
        before = content(output)
        for embedder, more, message in (
            (Embedder(tiny_model_folder, layers="top"), {}, r'options.layers was "mix", now "top"'),
            (Embedder(tiny_model_folder), {"shard_rows": 6}, "options.shard_rows was 5, now 6"),
            (Embedder(tmp_path / "other"), {}, "model.model.safetensors was"),
        ):
            with pytest.raises(ValueError, match=f"was begun otherwise.*{message}.*Start as before"):
                embed_corpus(source, output, embedder, **{"shard_rows": 5, **more})
        write_text(source, [*TEXTS, "more"])
        with pytest.raises(ValueError, match="inputs was"):
            embed_corpus(source, output, Embedder(tiny_model_folder), shard_rows=5)
        assert content(output) == before

    def test_a_damaged_shard_is_found_and_made_anew(self, tmp_path, source, uninterrupted, tiny_model_folder):
        output, embedder = tmp_path / "out", Embedder(tiny_model_folder, dtype="float16")
        embed_corpus(source, output, embedder, shard_rows=5, process=0, processes=2)
        shard = output / "data" / "00002.parquet"
        data = bytearray(shard.read_bytes())
        data[100] ^= 1
        shard.write_bytes(data)
        with pytest.raises(ValueError, match=r"00002.parquet is not what was written.*Delete it and start the same"):
            embed_corpus(source, output, embedder, shard_rows=5)
        shard.unlink()
        embed_corpus(source, output, embedder, shard_rows=5)
        assert content(output) == uninterrupted
        shard.write_bytes(data[:-1])
        with pytest.raises(ValueError, match=r"00002.parquet is .* bytes, expected"):
            embed_corpus(source, output, embedder, shard_rows=5)

    @pytest.mark.parametrize("group_bytes", [1, 2**24])
    def test_a_full_disk(self, tmp_path, source, uninterrupted, tiny_model_folder, monkeypatch, group_bytes):
        output, embedder = tmp_path / "out", Embedder(tiny_model_folder, dtype="float16")

        class Full(shard_writers.ParquetShard):
            def _write_group(self, rows):
                if self.target.name == "00003.parquet" and 17 in [row[0] for row in rows]:
                    raise OSError(28, os.strerror(28))
                super()._write_group(rows)

        # Rows are written by another thread: with a group for each, the third one's error meets the writing of others.
        monkeypatch.setattr(shard_writers, "_ROW_GROUP_BYTES", group_bytes)
        monkeypatch.setitem(shard_writers.SHARDS, "parquet", Full)
        with pytest.raises(OSError, match=r"00003.parquet cannot be written: No space left .* \(shards: 3\)"):
            embed_corpus(source, output, embedder, shard_rows=5)
        assert sorted(path.name for path in (output / "data").iterdir()) == [f"0000{n}.parquet" for n in range(3)]
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("writer of a shard")]
        monkeypatch.undo()
        embed_corpus(source, output, embedder, shard_rows=5)
        found = content(output)
        assert found.keys() == uninterrupted.keys()
        if group_bytes > 1:
            assert found == uninterrupted


def test_groups_of_rows_are_written_in_their_order(tmp_path, tiny_model_folder, monkeypatch):
    source = write_text(tmp_path / "c.txt")
    embed_corpus(source, tmp_path / "one", Embedder(tiny_model_folder))
    monkeypatch.setattr(shard_writers, "_ROW_GROUP_BYTES", 1)
    embed_corpus(source, tmp_path / "many", Embedder(tiny_model_folder))
    one, many = (pq.ParquetFile(tmp_path / name / "data" / "00000.parquet") for name in ("one", "many"))
    assert (one.num_row_groups, many.num_row_groups) == (1, len(TEXTS))
    assert many.read().equals(one.read())


def test_nothing_to_embed(tmp_path, tiny_model_folder):
    manifest = embed_corpus(write_text(tmp_path / "c.txt", []), tmp_path / "out", Embedder(tiny_model_folder))
    assert (manifest["shards"], manifest["totals"]["rows"]) == ([], 0)


@pytest.mark.parametrize("rows", [4, 5, 6])
def test_the_last_shard(tmp_path, tiny_model_folder, rows):
    source = write_text(tmp_path / "c.txt", [f"word {number}" for number in range(rows)])
    manifest = embed_corpus(source, tmp_path / "out", Embedder(tiny_model_folder), shard_rows=5)
    assert [shard["rows"] for shard in manifest["shards"]] == {4: [4], 5: [5], 6: [5, 1]}[rows]


def test_the_command(tmp_path, tiny_model_folder, reference):
    """Under the variables of torchrun, as two processes one after the other."""
    source = write_json(tmp_path / "c.jsonl", [{"sentence": text, "id": number} for number, text in enumerate(TEXTS)])
    with source.open("a", encoding="utf-8") as file:
        file.write("no JSON\n")
    command = ["-m", "hf_elmo", "embed-corpus", source, tmp_path / "out", "-m", tiny_model_folder, "--pooling", "mean",
               "--text-column", "sentence", "--column", "id", "--shard-rows", "2", "--bad-rows", "report"]  # fmt: skip
    words = sum(len(sentence.words) for sentence in reference["mix"])
    for rank, said in (("1", "this process is done, others are not yet"), ("0", f"8 rows, {words} words, 5 shards")):
        environment = {**os.environ, "RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank}
        done = warm.run(command, capture_output=True, text=True, env=environment)
        assert (done.returncode, done.stdout) == (0, "")
        assert said in done.stderr
    assert "1 row could not be read" in done.stderr
    assert pq.read_table(tmp_path / "out" / "data")["id"].to_pylist() == list(NUMBERS)


class TestOneFormat:
    """What engines without lists of fixed size have written gets the types of `embed_corpus`."""

    def table(self, name, rows, kind):
        return pa.table({name: pa.array(rows, kind)})

    def test_words(self):
        rows = [[[1.0, 2.0]], [], [[3.0, 4.0], [5.0, 6.0]]]
        table = with_fixed_sizes(self.table("vectors", rows, pa.large_list(pa.list_(pa.float32()))), 2)
        assert table.schema.field("vectors").type == pa.list_(pa.list_(pa.float32(), 2))
        assert table["vectors"].to_pylist() == rows

    @pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 2)])
    def test_pooled(self, kind):
        rows = [[1.0, 2.0], None, [3.0, 4.0]] if not pa.types.is_fixed_size_list(kind) else [[1.0, 2.0], [3.0, 4.0]]
        table = with_fixed_sizes(self.table("vector", rows, kind), 2)
        assert table.schema.field("vector").type == pa.list_(pa.float32())
        assert table["vector"].to_pylist() == rows

    def test_pooled_layers(self):
        rows = [[[1.0, 2.0], [3.0, 4.0]], None]
        table = with_fixed_sizes(self.table("vector", rows, pa.list_(pa.list_(pa.float32()))), 2)
        assert table.schema.field("vector").type == pa.list_(pa.list_(pa.float32(), 2))
        assert table["vector"].to_pylist() == rows

    @pytest.mark.parametrize("name", ["vectors", "vector"])
    def test_other_sizes(self, name):
        rows = [[1.0, 2.0], [3.0]] if name == "vector" else [[[1.0, 2.0], [3.0]]]
        with pytest.raises(ValueError, match=f"The vectors in '{name}' do not all have 2 numbers"):
            with_fixed_sizes(pa.table({name: rows}), 2)
