"""λ learned by its gradient while θ trains: the `forward` estimator on the trade-off objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ms_automl.meta.schedule import KNOTS, LambdaSchedule
from ms_automl.meta.sensitivity import Sensitivity, live_width
from ms_automl.sparsity import Groups, shrink_factors, thresholds

OuterGradient = Callable[[], list[Tensor]]


class ForwardLearner:
    """Adam on ρ with dJ/dρ = Σ_g w_g <∇_θg J_loss, Z_g> + price · dD/dρ and λ = exp(ρ) · min(1, x / warmup).

    The rise over the first share of the sparsifying phase keeps λ from deciding before the loss can say what
    a group is worth: an untrained network misses nothing.

    Args:
        groups: the groups that λ shrinks.
        ties: [L] index of the ρ that each layer uses; equal indices share one λ.
        price: of density.
        bounds: (low, high) that λ stays within.
        start: λ at the first step.
        decay: γ of the sensitivity, per step.
        lr: Adam's step on ρ.
        every: steps between two updates of ρ.
        warmup: share x of the sparsifying phase over which λ rises from 0.
    """

    def __init__(
        self,
        groups: Groups,
        ties: Sequence[int],
        *,
        price: float,
        bounds: tuple[float, float],
        start: float,
        decay: float,
        lr: float,
        every: int,
        warmup: float,
    ) -> None:
        self.groups = groups
        self.ties = torch.tensor(ties)
        self.price = price
        self.bounds = bounds
        self.every = every
        self.warmup = warmup
        self.rise = 0.0 if warmup > 0 else 1.0
        self.rho = torch.full((max(ties) + 1,), math.log(start))
        self.optimizer = torch.optim.Adam([self.rho], lr=lr, betas=(0.9, 0.99))
        self.sensitivity = Sensitivity(groups, decay)
        self.course: list[list[float]] = []

    def lambdas(self) -> Tensor:
        """[L] λ of each layer now."""
        return self.rise * self.rho.exp()[self.ties]

    @torch.no_grad()
    def step(self, index: int, phase: float, lr: float, outer_gradient: OuterGradient) -> None:
        """One prox with the present λ, and where due one step of λ.

        Args:
            index: training steps taken before this one.
            phase: progress of the sparsifying phase, 0 to 1.
            lr: η.
            outer_gradient: L tensors, ∇_θ of the outer losses at the weights as the prox leaves them.
        """
        self.rise = min(1.0, phase / self.warmup) if self.warmup > 0 else 1.0
        norms = self.groups.norms()
        threshold = thresholds(self.groups, self.lambdas(), lr)
        factors = shrink_factors(self.groups, norms, threshold)
        self.sensitivity.advance(norms, threshold, factors)
        self.groups.scale_(factors)
        if index % self.every == 0:
            with torch.enable_grad():
                gradients = outer_gradient()
            self._learn(gradients, norms * factors)
        _record(self.course, phase, self.lambdas())

    def _learn(self, gradients: list[Tensor], norms: Tensor) -> None:
        width = live_width(self.groups, norms)
        slope = self.sensitivity.harm(gradients, norms, width)
        slope += self.price * self.sensitivity.density_slope(norms, width)
        self.rho.grad = torch.zeros_like(self.rho).index_add_(0, self.ties, slope)
        self.optimizer.step()
        self.rho.clamp_(math.log(self.bounds[0]), math.log(self.bounds[1]))

    def schedule(self) -> LambdaSchedule:
        """The course of λ so far, as knots that ``fixed_lambda`` accepts."""
        return LambdaSchedule(self.groups.names, tuple(map(tuple, self.course)))

    def state_dict(self) -> dict[str, Any]:
        """ρ, its optimiser, Z and the course so far."""
        return {
            "rho": self.rho.clone(),
            "rise": self.rise,
            "optimizer": self.optimizer.state_dict(),
            "sensitivity": [tensor.clone() for tensor in self.sensitivity.tensors],
            "course": list(self.course),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.rho.copy_(state["rho"])
        self.rise = state["rise"]
        self.optimizer.load_state_dict(state["optimizer"])
        for tensor, saved in zip(self.sensitivity.tensors, state["sensitivity"], strict=True):
            tensor.copy_(saved)
        self.course = list(state["course"])


def outer_updates(prox_steps: int, every: int) -> int:
    """Updates of λ over the sparsifying phase, each of them one validation batch forward and backward."""
    return math.ceil(prox_steps / every)


def _record(course: list[list[float]], phase: float, values: Tensor) -> None:
    """Append λ each time the phase passes the next knot."""
    while len(course) < KNOTS and phase >= len(course) / (KNOTS - 1) - 1e-9:
        course.append([float(value) for value in values])
