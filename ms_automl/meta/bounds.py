"""The largest λ, and the λ of the groups that stay: given, or read off the weights and the optimiser's steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ms_automl.meta.diagnostics import at_bounds
from ms_automl.sparsity import Groups

REST = 0.2
"""How far the prox moves the weights of the groups that stay, as a share of how far the optimiser does."""
HIGH = 60.0
"""The largest λ takes a typical group to zero in a 60th of the sparsifying phase."""


class Bounds(ABC):
    """What a waterfill keeps its λ to.

    Attributes:
        rest: λ of the groups that stay; [L] where layers differ in it.
        remedy: what to change where the largest λ was too small.
        measures: whether it asks how far the optimiser moves the weights.
    """

    rest: float | Tensor = 0.0
    remedy: str
    measures: bool = False

    @abstractmethod
    def observe(self, lr: float | Tensor, moved: Sequence[Tensor] | None, stays: Tensor) -> None:
        """A step of the optimiser.

        Args:
            lr: η; [G] where groups differ in it.
            moved: L tensors, by how much it has changed the weights, where that was measured.
            stays: [G] 1 for the groups that stay, 0 for the others, of which many no longer move.
        """

    @abstractmethod
    def highest(self, lr: float | Tensor, largest: float | Tensor) -> float | Tensor:
        """The largest λ; [L] where layers differ in it.

        Args:
            lr: η; [L], the smallest of each layer, where groups differ in it.
            largest: the largest η.
        """

    @abstractmethod
    def course_rest(self) -> float | tuple[float, ...]:
        """λ of the groups that stay, as one number a layer at most for the whole course."""

    def warnings(self, names: Sequence[str], lambdas: Tensor) -> list[str]:
        """Where λ has stayed at a bound that somebody chose."""
        return []

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What was measured."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""


class GivenBounds(Bounds):
    """Numbers that a sweep or a user has found.

    Args:
        high: the largest λ.
        rest: λ of the groups that stay.
    """

    def __init__(self, high: float, rest: float = 0.0) -> None:
        self.high, self.rest = high, rest
        self.remedy = f"raise lambda.high (now {high:g}) or training.steps"

    @classmethod
    def between(cls, low: float, high: float, place: float) -> GivenBounds:
        """With the λ of the groups that stay at a place between two bounds: low^(1 - place) · high^place, or 0."""
        return cls(high, low ** (1 - place) * high**place if place > 0 else 0.0)

    def observe(self, lr: float | Tensor, moved: Sequence[Tensor] | None, stays: Tensor) -> None:
        """Measure nothing."""

    def highest(self, lr: float | Tensor, largest: float | Tensor) -> float:
        """The one given."""
        return self.high

    def course_rest(self) -> float:
        """The one given."""
        return float(self.rest)

    def warnings(self, names: Sequence[str], lambdas: Tensor) -> list[str]:
        """Where λ has stayed at the largest. There is no smallest: λ is 0 where nothing is taken from a layer."""
        return at_bounds(names, lambdas, (0.0, self.high))

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore nothing."""


class MeasuredBounds(Bounds):
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

    remedy = "train for more steps"
    measures = True

    def __init__(self, groups: Groups, steps: int) -> None:
        squares = groups.layer_sum(groups.norms().square()) / groups.layer_sum(groups.size)
        self.groups, self.steps = groups, steps
        self.rms = float(torch.quantile(squares.sqrt(), 0.5))
        self.peak: float | Tensor = 0.0
        self.moved = torch.zeros_like(squares)  # [L] u_l
        self.rest: Tensor = torch.zeros_like(squares)
        self.high: float | Tensor = 0.0
        self.rest_sum, self.observed = torch.zeros_like(squares), 0  # over the steps so far; how many

    def observe(self, lr: float | Tensor, moved: Sequence[Tensor] | None, stays: Tensor) -> None:
        """Measure; the λ of the groups that stay and the largest follow."""
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

    def highest(self, lr: float | Tensor, largest: float | Tensor) -> float | Tensor:
        """By the largest learning rate: a layer that learns slower has a larger unit of λ."""
        if not isinstance(lr, Tensor):
            return self.high
        return self.high * largest / lr.clamp(min=torch.finfo(lr.dtype).tiny)

    def course_rest(self) -> tuple[float, ...]:
        """The mean of each layer over the steps so far."""
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
        device = self.moved.device
        self.moved, self.rest_sum = state["moved"].to(device), state["rest_sum"].to(device)
        self.observed = state["observed"]
