"""Bounds of λ that nobody has to find by a sweep: read off the weights, their steps and the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ms_automl.sparsity import Groups

REST = 0.2
"""How far the prox moves the weights of the groups that stay, as a share of how far the optimiser does."""
HIGH = 60.0
"""The largest λ takes a typical group to zero in a 60th of the sparsifying phase."""


class MeasuredBounds:
    """λ of the groups that stay follows the optimiser's steps, the largest λ the length of the weights.

    With u_l the root mean square of what one step of the optimiser adds to the weights of layer l's groups that
    stay, n their number in a group and r the median over layers of the weights' own root mean square at the start,

        λ_rest,l = 0.2 u_l / η,        λ_max = 60 r / (η K):

    a proximal step η λ_rest sqrt(n) shortens a group by a fifth of what the optimiser's step is long, and η λ_max
    sqrt(n) takes a group of norm r sqrt(n) to nothing in a 60th of the phase's K steps. Adam steps by about 0.23 η
    whatever the gradients are, which makes λ_rest 0.046: where the sweeps on `rooms`, `multimnist` and `elpv` have
    put it. Under SGD, or where a trained network is fine-tuned, steps are shorter by orders of magnitude, and a λ
    that does not follow them shortens weights by more than training makes up for.

    Args:
        groups: the groups, before training.
        steps: K.

    Attributes:
        rest: [L] λ of the groups that stay; 0 before a step was measured.
        high: the largest λ; by the largest learning rate so far.
    """

    def __init__(self, groups: Groups, steps: int) -> None:
        squares = groups.layer_sum(groups.norms().square()) / groups.layer_sum(groups.size)
        self.groups, self.steps = groups, steps
        self.rms = float(torch.quantile(squares.sqrt(), 0.5))
        self.peak: float | Tensor = 0.0
        self.moved = torch.zeros_like(squares)  # [L] u_l
        self.rest = torch.zeros_like(squares)
        self.high: float | Tensor = 0.0
        self.rest_sum, self.observed = torch.zeros_like(squares), 0  # over the steps so far; how many

    def observe(self, lr: float | Tensor, moved: Sequence[Tensor] | None, stays: Tensor) -> None:
        """A step of the optimiser.

        Args:
            lr: η; [G] where groups differ in it.
            moved: L tensors, by how much it has changed the weights, where that was measured.
            stays: [G] 1 for the groups that stay, 0 for the others, of which many no longer move.
        """
        groups = self.groups
        if moved is not None:
            squares = groups.layer_sum(stays * groups.sum([change.square() for change in moved]))
            self.moved = (squares / groups.layer_sum(stays * groups.size).clamp(min=1)).sqrt()
        # No value of a tensor is looked at here, as that would wait for its device.
        tiny = torch.finfo(torch.float32).tiny
        if isinstance(lr, Tensor):
            mean = groups.layer_sum(lr) / groups.layer_sum(torch.ones_like(lr))
            self.rest = torch.where(mean > 0, REST * self.moved / mean.clamp(min=tiny), 0.0)
            self.peak = torch.maximum(torch.as_tensor(self.peak), lr.max().clamp(min=tiny))
        else:
            self.rest = REST * self.moved / lr if lr > 0 else torch.zeros_like(self.moved)
            self.peak = max(self.peak, lr, tiny)
        self.high = HIGH * self.rms / (self.peak * self.steps)
        self.rest_sum, self.observed = self.rest_sum + self.rest, self.observed + 1

    @property
    def mean_rest(self) -> tuple[float, ...]:
        """λ of the groups that stay by layer, over the steps so far."""
        return tuple((self.rest_sum / max(1, self.observed)).tolist())

    def state_dict(self) -> dict[str, Any]:
        """What was measured."""
        return {
            "rms": self.rms,
            "peak": float(self.peak),
            "moved": self.moved.clone(),
            "rest_sum": self.rest_sum.clone(),
            "observed": self.observed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.rms, self.peak = state["rms"], state["peak"]
        if "moved" in state:  # earlier versions did not measure it
            device = self.moved.device
            self.moved, self.rest_sum = state["moved"].to(device), state["rest_sum"].to(device)
            self.observed = state["observed"]
