"""What low precision may cost: errors against float64, bounded by what plain rounding costs."""

import copy

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

# Of 32 and 64 bits, as many roundings as make no difference.
_LEAST = {torch.float32: 1e-5, torch.float64: 1e-12}


def assert_as_near(ours, plain, exact):
    """Numbers are as near to those in float64 as plain operations in the same dtype are: to twice their error.

    Where plain operations happen to be right, a few roundings of the largest number are allowed.

    Args:
        ours: A tensor of the dtype in question.
        plain: The same in plain operations of that dtype, or by `rounded`.
        exact: The same in float64.
    """
    error, cost = ((one.double() - exact).abs().max() for one in (ours, plain))
    least = _LEAST.get(ours.dtype, 8 * torch.finfo(ours.dtype).eps) * exact.abs().max().clamp(min=1)
    assert error <= 2 * cost + least, f"off by {error:.2g}, plain operations by {cost:.2g}"


def assert_as_near_on_average(ours, plain, exact, dtype=None):
    """The root mean square of errors is at most 1.5 times that of plain operations.

    Where those happen to be right, two roundings of numbers of order 1 are allowed (more of 32 bits, where they make no
    difference). Arguments as of `assert_as_near`.

    Args:
        dtype: What was rounded to, where `ours` came back in a wider dtype.
    """
    assert ours.shape == exact.shape
    error, cost = ((one.double() - exact).square().mean().sqrt() for one in (ours, plain))
    dtype = dtype or ours.dtype
    least = _LEAST.get(dtype, 2 * torch.finfo(dtype).eps)
    assert error <= 1.5 * cost + least, f"off by {error:.2g}, plain operations by {cost:.2g}"


def double(value):
    """A copy of a module, or tensors in any nest, whose floating-point numbers are float64 of the same values."""
    if isinstance(value, torch.nn.Module):
        return copy.deepcopy(value).double()
    return tree_map(lambda x: x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x, value)


class Rounding(TorchDispatchMode):
    """Every operation is computed in float64, and its result rounded to a dtype: what rounding alone costs.

    Independent of which kernels a processor has for the dtype.
    """

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        aliases = [value.alias_info for value in func._schema.returns]
        if any(alias is not None and not alias.is_write for alias in aliases):
            return results  # a view: its numbers are rounded
        if any(alias is not None for alias in aliases):
            tree_map(lambda x: x.copy_(self._round(x)) if isinstance(x, torch.Tensor) else x, results)
            return results
        return tree_map(self._round, results)

    def _round(self, x):
        if not isinstance(x, torch.Tensor) or x.dtype != torch.float64:
            return x
        limits = torch.finfo(self.dtype)
        # A mask's lowest number of float64 is to be the lowest here, not infinite.
        return torch.where(x.isfinite(), x.clamp(limits.min, limits.max), x).to(self.dtype).double()


def rounded(module, dtype, *args, **kwargs):
    """What a module computes in float64 with weights and the results of all operations rounded to `dtype`."""
    with torch.no_grad():
        model = double(copy.deepcopy(module).to(dtype))
        with Rounding(dtype):
            return model(*args, **kwargs)
