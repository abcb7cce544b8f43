"""Whether the weights that something was made of are still the same, and whether weights alone make a result."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

# Numbers are compared bit by bit, so that NaN is the same as NaN.
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Fingerprint:
    """What tells whether parameters are still those that something was made of.

    It is where the parameters lie and how, torch's count of their changes, and some of their values, because a change
    of `.data` (as PEFT makes to merge an adapter) or through a numpy view is not counted. The values are those at
    equal distances in memory, chosen such that some lie in each row and each column of a matrix, and in each slice
    along each axis of a larger tensor: about `max(shape)` of them, so all values of a vector. A change of all the
    numbers of a row, a column or a slice is seen with certainty. Of k numbers changed at random in a matrix of
    `rows` >= `columns`, none is seen with a probability of about ``exp(-k / columns)``: after changing single numbers
    call `forget_weights`. What it costs: docs/performance.md.

    While a CUDA graph is captured no value can be looked at. Then changes of `.data` are not seen.

    Args:
        parameters: The parameters, all on one device.
        settings: Whatever else the result depends on, compared by `==`.
    """

    def __init__(self, parameters: Iterable[Tensor], *settings: Hashable):
        parameters = list(parameters)
        self._settings = settings
        self._layouts = [layout_of(parameter) for parameter in parameters]
        self._views = [_probed(parameter) for parameter in parameters if parameter.device.type == "cpu"]
        self._values = self._read(parameters)

    def matches(self, parameters: Iterable[Tensor], *settings: Hashable) -> bool:
        """Whether a fingerprint of these would be equal; quicker than making one."""
        parameters = list(parameters)
        if settings != self._settings or [layout_of(parameter) for parameter in parameters] != self._layouts:
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

    def _read(self, parameters: Sequence[Tensor]) -> bytes | Tensor | None:
        """The values at the probed places: bytes on a CPU, one tensor elsewhere, None if they cannot be read."""
        if self._views:
            # One copy of all. Where integers of several sizes meet, the small ones become large, the same for the same.
            return np.concatenate(self._views).tobytes()
        if not parameters:
            return b""
        device = parameters[0].device
        if device.type == "meta" or (device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
            return None
        bits = [parameter.detach().view(_INTEGERS[parameter.element_size()]) for parameter in parameters]
        return torch.cat([each.reshape(-1)[:: _distance(each.shape)] for each in bits])


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


def only_plain_operations_reason(tensors: Iterable[Tensor]) -> str | None:
    """Why nothing but plain operations will do for these tensors here; None if anything will.

    What writes in place, or calls operators of its own, is beyond tracing, the transforms of `torch.func`, forward
    derivatives, and tensors of other classes than torch's own (distributed, quantised or fake ones).
    """
    if torch.jit.is_tracing():
        return "the model is being traced"
    # Both are private. Where they are gone, torch itself raises an error.
    if getattr(torch._C, "_are_functorch_transforms_active", bool)():
        return "a transform of torch.func is at work"
    if getattr(forward_ad, "_current_level", -1) >= 0:
        return "derivatives are taken forward"
    if any(type(tensor) not in (Tensor, nn.Parameter) for tensor in tensors):
        return "there are tensors of other classes than torch's own"
    return None


def layout_of(parameter: Tensor) -> tuple[Hashable, ...]:
    """Where a parameter lies and how, and how often it was changed.

    It is all that matters for a parameter that is used where it lies, without a copy.
    """
    version = -1 if parameter.is_inference() else parameter._version
    return parameter.data_ptr(), version, parameter.dtype, parameter.shape, parameter.stride(), parameter.device


def _probed(parameter: Tensor) -> np.ndarray:
    """The values of a parameter on a CPU that are looked at, as a view of its memory, as integers, ``(places,)``.

    The view does not keep the memory alive, as it would keep a copy of a model that has moved to another device.
    """
    shape, stride, size = parameter.shape, parameter.stride(), parameter.element_size()
    length = 1 + sum((count - 1) * step for count, step in zip(shape, stride)) if parameter.numel() else 0
    memory = (ctypes.c_char * (length * size)).from_address(parameter.data_ptr()) if length else b""
    values = np.frombuffer(memoryview(memory), dtype=f"i{size}")
    # In the order of memory: where a matrix is transposed, its columns are taken for rows.
    axes = sorted(((step, count) for count, step in zip(shape, stride) if count != 1), reverse=True)
    counts = tuple(count for _, count in axes)
    if any(step != math.prod(counts[number + 1 :]) for number, (step, _) in enumerate(axes)):
        return values  # there are gaps: all values, and those in the gaps
    return values[:: _distance(counts)]


@lru_cache(maxsize=128)
def _distance(shape: tuple[int, ...]) -> int:
    """Every how many numbers of a contiguous tensor one is looked at.

    Taken as a matrix of ``(shape[0], others)``, each row has a place as the distance is at most its length. Each column
    has one as the distance and the row's length have no common divisor, and there are as many places as columns.
    """
    columns = math.prod(shape[1:])
    distance = max(1, min(shape[0], columns)) if len(shape) > 1 else 1
    while math.gcd(distance, columns) > 1:
        distance -= 1
    return distance


def _are_equal(one: bytes | Tensor | None, other: bytes | Tensor | None) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    # While a CUDA graph is captured, there are no values to compare.
    return one is None or other is None or one == other


__all__ = ["Fingerprint", "forget_weights", "is_bare", "layout_of", "only_plain_operations_reason"]
