"""Whether the weights that something was made of are still the same."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

# This many numbers of each parameter are looked at to find out whether it was changed.
_PROBES = 64


class Fingerprint:
    """What tells whether parameters are still those that something was made of.

    It is where they lie, torch's count of their changes, and some of their values, because what changes `.data` (as
    PEFT does to merge an adapter) is not counted. A change of `.data` that touches only a few values may be missed;
    while a CUDA graph is captured, when no value can be looked at, so is any of `.data`.

    Args:
        parameters: The parameters, all on one device.
    """

    def __init__(self, parameters: Iterable[Tensor]):
        parameters = [parameter.detach() for parameter in parameters]
        # Changes of inference tensors are not counted.
        self._places = [(p.data_ptr(), p.dtype, p.device, -1 if p.is_inference() else p._version) for p in parameters]
        self._values = None
        if parameters[0].device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
            self._values = torch.cat([p.reshape(-1)[:: max(p.numel() // _PROBES, 1)] for p in parameters])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fingerprint) or self._places != other._places:
            return False
        return self._values is None or other._values is None or torch.equal(self._values, other._values)

    __hash__ = None


def is_bare(module: nn.Module, classes: tuple[type[nn.Module], ...]) -> bool:
    """Whether a module computes what its class says: no adapter, no offloading, no hook.

    Args:
        module: The module; its children are not looked at.
        classes: The classes that are known besides those of `torch.nn`.
    """
    if module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__:
        return False
    return type(module) in classes or type(module).__module__.startswith("torch.nn.modules.")
