"""Muon for the matrices of a biLM, AdamW for all else, as one optimiser.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) takes the running mean of a matrix's gradients and
makes its singular values about equal before it steps, so that no direction of the matrix is left behind.
`torch.optim.Muon` does the same in bfloat16 whatever the processor, and takes matrices alone. Without bfloat16
instructions that is slow (a Zen 3, one thread, ``(2560, 192)``: 734 ms, as long as a training step; `orthogonalized`
takes 7 to 15), and `Trainer` saves and resumes one optimiser, not two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

# Of the quintic Newton-Schulz step, as in the original: singular values end between about 0.7 and 1.2.
_COEFFICIENTS = 3.4445, -4.7750, 2.0315
_STEPS = 5
# Moonshot's scale (arXiv 2502.16982, section 2.2): an update has about the root mean square of AdamW's.
_RMS_OF_ADAMW = 0.2


def orthogonalized(matrix: Tensor) -> Tensor:
    """The matrix with all singular values moved near 1 (between 0.68 and 1.14, unless they are nearly zero).

    Five Newton-Schulz steps ``X <- aX + b(XX')X + c(XX')^2 X``. All steps are polynomials of the same square matrix
    ``XX'``, so they are taken on it, at the size of the shorter side, and multiplied by the matrix once.

    Args:
        matrix: ``(rows, columns)``.

    Returns:
        float32, of the same shape.
    """
    wide = matrix.float() if matrix.shape[0] <= matrix.shape[1] else matrix.float().T
    wide = wide / wide.norm().clamp(min=1e-7)
    a, b, c = _COEFFICIENTS
    square = wide @ wide.T
    steps: Tensor | None = None
    for number in range(_STEPS):
        step = torch.addmm(square, square, square, beta=b, alpha=c)
        step.diagonal().add_(a)
        steps = step if steps is None else step @ steps
        if number < _STEPS - 1:
            square = step @ square @ step
    result = steps @ wide
    return result if matrix.shape[0] <= matrix.shape[1] else result.T


def is_hidden_matrix(name: str, parameter: Tensor, model: nn.Module) -> bool:
    """Whether Muon is meant for a parameter: a matrix from vectors to vectors, not a table of vectors or the softmax.

    Args:
        name: The parameter's name in `model`.
        parameter: The parameter itself.
        model: An `ElmoForPreTraining`.
    """
    module = name.rpartition(".")[0]
    is_table = isinstance(model.get_submodule(module), nn.Embedding) or module.split(".")[-1] == "softmax"
    return parameter.ndim == 2 and not is_table


class MuonWithAdamW(Optimizer):
    """Muon for some parameters and AdamW for the others; saved, resumed and scheduled as one optimiser.

    A schedule multiplies both learning rates by the same factor. The parameter groups of Muon have `muon` set.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        others: Iterable[dict[str, Any]],
        matrix_learning_rate: float = 6e-3,
        learning_rate: float = 4e-3,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        fused: bool | None = None,
    ):
        """Takes the parameters.

        Args:
            matrices: Parameters of two dimensions, for Muon.
            others: Groups of parameters for AdamW; a group's own `weight_decay` counts.
            matrix_learning_rate: Of Muon; an update's root mean square is about 0.2 times as much.
            learning_rate: Of AdamW.
            weight_decay: Of both, times the learning rate.
            momentum: Of Muon's running mean of gradients; the step looks ahead by Nesterov's rule.
            betas: As in `torch.optim.AdamW`.
            eps: As in `torch.optim.AdamW`.
            fused: As in `torch.optim.AdamW`.

        Raises:
            ValueError: for a parameter in `matrices` that does not have two dimensions.
        """
        matrices = list(matrices)
        if wrong := [tuple(parameter.shape) for parameter in matrices if parameter.ndim != 2]:
            raise ValueError(f"Muon takes matrices, but was given the shapes {wrong}: leave those to AdamW.")
        own = {
            "params": matrices,
            "lr": matrix_learning_rate,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "muon": True,
        }
        self._adamw = AdamW(
            list(others), lr=learning_rate, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused
        )
        groups = [own] if matrices else []
        super().__init__([*groups, *({**group, "muon": False} for group in self._adamw.param_groups)], {})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update, of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["muon"]:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._step_matrix(parameter, parameter.grad, group)
        # Loading a state gives this optimiser new groups and a new state: AdamW is to work on those.
        self._adamw.param_groups = [group for group in self.param_groups if not group["muon"]]
        self._adamw.state = self.state
        self._adamw.step()
        return loss

    def _step_matrix(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        mean = state["momentum_buffer"]
        mean.lerp_(gradient, 1 - group["momentum"])
        update = orthogonalized(gradient.lerp(mean, group["momentum"]))
        rate = group["lr"] * _RMS_OF_ADAMW * math.sqrt(max(parameter.shape))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update.to(parameter.dtype), alpha=-rate)
