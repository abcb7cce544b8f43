"""Whether the weights that something was made of are still the same, and whether weights alone make a result."""

from __future__ import annotations

import ctypes
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

# Numbers are compared bit by bit, so that NaN is the same as NaN.
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Fingerprint:
    """What tells whether parameters are still those that something was made of.

    It is where the parameters lie and how, torch's count of their changes, and some of their values, because a change
    of `.data` (as PEFT makes to merge an adapter) or through a numpy view is not counted. The values are those at
    fixed, pseudo-random places, at least one in each row and each column of a matrix, or in each slice along each axis
    of a larger tensor: `max(shape)` of them, so all values of a vector. A change of all the numbers of a row, a column
    or a slice is seen with certainty. Of k numbers changed at random in a matrix of `rows` >= `columns`, none is seen
    with a probability of about ``exp(-k / columns)``: after changing single numbers call `forget_weights`.

    While a CUDA graph is captured no value can be looked at. Then changes of `.data` are not seen.

    Args:
        parameters: The parameters, all on one device.
        settings: Whatever else the result depends on, compared by `==`.
    """

    def __init__(self, parameters: Iterable[Tensor], *settings: Hashable):
        parameters = list(parameters)
        self._settings = settings
        self._layouts = [_layout(parameter) for parameter in parameters]
        self._views = [_view(parameter) for parameter in parameters if parameter.device.type == "cpu"]
        self._values = self._read(parameters)

    def matches(self, parameters: Iterable[Tensor], *settings: Hashable) -> bool:
        """Whether a fingerprint of these would be equal; quicker than making one."""
        parameters = list(parameters)
        if settings != self._settings or [_layout(parameter) for parameter in parameters] != self._layouts:
            return False
        # Not before: where a parameter has moved, the memory that a view shows may be another's.
        return _are_equal(self._values, self._read(parameters))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Fingerprint)
            and self._settings == other._settings
            and self._layouts == other._layouts
            and _are_equal(self._values, other._values)
        )

    __hash__ = None  # type: ignore[assignment]  # what is compared by value and holds no fixed value has no hash

    def _read(self, parameters: Sequence[Tensor]) -> list[bytes] | Tensor | None:
        """The values at the probed places: bytes on a CPU, one tensor elsewhere, None if they cannot be read."""
        if self._views or not parameters:
            return [view.tobytes() if places is None else view.take(places).tobytes() for view, places in self._views]
        device = parameters[0].device
        if device.type == "meta" or (device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
            return None
        bits = [parameter.detach().view(_INTEGERS[parameter.element_size()]) for parameter in parameters]
        return torch.cat([each.reshape(-1).index_select(0, _probes_on(each.shape, device)) for each in bits])


def forget_weights(model: nn.Module) -> None:
    """Makes a model notice that its weights were changed, after a change that might be overlooked.

    A model keeps what it made of its weights: copies laid out for faster products, vectors of words
    (`remember_words`). Changes by torch's operations, optimisers and `load_state_dict` are always noticed; so are
    changes of `.data`, or through a numpy view, that touch all numbers of a row, a column or a whole parameter. After
    changing single numbers in such a way, call this function:

    ```python
    model.get_parameter("bilstm.forward_layers.0.weight_hh").data[5, 7] = 0.25
    hf_elmo.forget_weights(model)
    ```

    The weights stay as they are. A table of words that was given to the model (`cache_words`) stays, too.

    Args:
        model: An `ElmoModel`, a model with one inside, or any part of one.
    """
    for parameter in model.parameters():
        # Inference tensors have no count of changes, and nothing is kept that was made of them.
        if not parameter.is_inference():
            torch.autograd.graph.increment_version(parameter)


def is_bare(module: nn.Module, classes: tuple[type[nn.Module], ...]) -> bool:
    """Whether a module computes what its class says: no adapter, no offloading, no hook.

    Args:
        module: The module; its children are not looked at.
        classes: The classes that are known besides those of `torch.nn`.
    """
    of_all = torch.nn.modules.module
    if of_all._global_forward_hooks or of_all._global_forward_pre_hooks:
        return False
    if module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__:
        return False
    return type(module) in classes or type(module).__module__.startswith("torch.nn.modules.")


def _layout(parameter: Tensor) -> tuple[Hashable, ...]:
    """Where a parameter lies and how, and how often it was changed."""
    version = -1 if parameter.is_inference() else parameter._version
    return parameter.data_ptr(), version, parameter.dtype, parameter.shape, parameter.stride(), parameter.device


def _view(parameter: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
    """The memory of a parameter on a CPU, as integers, and the places to look at; None: all.

    The view does not keep the memory alive, as it would keep a copy of a model that has moved to another device.
    """
    shape, stride = tuple(parameter.shape), parameter.stride()
    size = parameter.element_size()
    length = 1 + sum((count - 1) * step for count, step in zip(shape, stride)) if parameter.numel() else 0
    memory = (ctypes.c_char * (length * size)).from_address(parameter.data_ptr()) if length else b""
    return np.frombuffer(memoryview(memory), dtype=f"i{size}"), _probes(shape, stride)


@lru_cache(maxsize=128)
def _probes(shape: tuple[int, ...], stride: tuple[int, ...]) -> np.ndarray | None:
    """The places of a tensor that are looked at, as distances from its first number, ``(max(shape),)``; None: all."""
    longest = max(shape, default=1)
    if 0 in shape or (longest == np.prod(shape) and stride[-1:] in ((), (1,))):
        return None
    generator, number = np.random.default_rng(0), np.arange(longest)
    # Each axis is gone through in an order of its own, again and again until the longest axis has ended.
    order = [generator.permutation(count)[number % count] for count in shape]
    return sum(
        (each * step for each, step in zip(order, stride)), np.zeros(longest if len(order) else 0, dtype=np.intp)
    )


@lru_cache(maxsize=128)
def _probes_on(shape: torch.Size, device: torch.device) -> Tensor:
    """As `_probes` of a contiguous tensor, on a device."""
    stride = torch.empty(shape, device="meta").stride()
    places = _probes(tuple(shape), stride)
    with torch.inference_mode(False):
        return torch.from_numpy(np.arange(np.prod(shape, dtype=int)) if places is None else places).to(device)


def _are_equal(one: list[bytes] | Tensor | None, other: list[bytes] | Tensor | None) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    # While a CUDA graph is captured, there are no values to compare.
    return one is None or other is None or one == other


__all__ = ["Fingerprint", "forget_weights", "is_bare"]
