"""A quicker start for commands that only read: models are loaded without what trains and compiles.

transformers' models bring torch's compiler, its tensors that are spread over processes, and, where it is installed,
scipy. A command that reads a sentence uses none of them, and importing them takes longer than all else that hf_elmo
adds to torch (docs/performance.md). They are left out in a process of `hf-elmo` alone, where nothing is compiled and
nothing spread: whoever imports hf_elmo finds both libraries as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"
# The one module of the compiler that transformers' models import: for masks of attention, which an ELMo has not.
_MASKS = "torch._dynamo._trace_wrapped_higher_order_op"

_is_program = False


def begin_program() -> None:
    """Says that this process is the command line's own."""
    global _is_program
    _is_program = True


@contextmanager
def reading() -> Iterator[None]:
    """A context to import and load models in; in another process than the command line's it does nothing.

    Models are loaded without random numbers, which would bring sympy and be overwritten. It is not done where a model
    might be made in another thread meanwhile.
    """
    if not _is_program or "transformers.modeling_utils" in sys.modules or _COMPILER in sys.modules:
        yield
        return
    _answer_that_nothing_is_distributed()
    import torch

    masks = ModuleType(_MASKS)
    vars(masks)["TransformGetItemToIndex"] = _transform_get_item_to_index
    sys.modules |= {_COMPILER: _NoCompiler(_COMPILER), _MASKS: masks}
    from transformers.initialization import no_init_weights

    try:
        with no_init_weights():
            yield
    finally:
        _make_way(torch)


def _answer_that_nothing_is_distributed() -> None:
    """transformers asks once whether torch is built with distribution, and whether there is scipy: not now."""
    import torch.distributed
    from transformers.utils import import_utils

    answers = (import_utils.is_torch_distributed_available, import_utils.is_scipy_available)
    is_available = torch.distributed.is_available
    hides_scipy = "scipy" not in sys.modules
    torch.distributed.is_available = lambda: False
    if hides_scipy:
        # What Python's own search takes for a package that is not there.
        sys.modules["scipy"] = None  # type: ignore[assignment]
    try:
        for answer in answers:
            # It may have asked already. (A version that does not remember its answers is only slower.)
            getattr(answer, "cache_clear", lambda: None)()
            answer()
    finally:
        torch.distributed.is_available = is_available
        if hides_scipy:
            del sys.modules["scipy"]


class _NoCompiler(ModuleType):
    """Stands for `torch._dynamo`: its decorators do nothing. Whatever else is asked of it brings the compiler."""

    @staticmethod
    def disable(fn: Callable[..., Any] | None = None, *args: Any, **options: Any) -> Callable[..., Any]:
        """A decorator, with or without arguments, that changes nothing."""
        return _NoCompiler.disable if fn is None else fn

    allow_in_graph = assume_constant_result = disable

    def __getattr__(self, name: str) -> Any:
        # (Python asks for __path__ before it imports a further module of the package.)
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        _make_way(sys.modules["torch"])
        return getattr(import_module(_COMPILER), name)


def _make_way(torch: ModuleType) -> None:
    """From now on the compiler is imported by whoever asks for it."""
    if isinstance(sys.modules.get(_COMPILER), _NoCompiler):
        for name in (_COMPILER, _MASKS):
            sys.modules.pop(name, None)
        vars(torch).pop("_dynamo", None)


def _transform_get_item_to_index() -> Any:
    """The class's object, should it be asked for after all."""
    _make_way(sys.modules["torch"])
    return import_module(_MASKS).TransformGetItemToIndex()
