"""What optimisers have just done: whether they stepped, how far, and along which gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ms_automl.errors import ConfigError


class OptimizerSteps:
    """Watches the steps of optimisers through their hooks, until the next look.

    η and gradients are those of the step, whatever a scheduler or ``zero_grad`` does before the look. A step that
    a ``GradScaler`` skips is none; of the others it has scaled the gradients back. Of several optimisers each has
    to step before there is a step of the training.

    Args:
        optimizers: what trains the weights.
        weights: the weights; one that none of them trains has an η of 0.
        measures: asked before a step whether to measure how far it moves the weights, which takes a copy of them.
    """

    def __init__(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        weights: Sequence[Tensor],
        measures: Callable[[], bool],
    ) -> None:
        self.weights, self.measures = list(weights), measures
        owners = {
            id(value): (optimizer, index)
            for optimizer in optimizers
            for index, group in enumerate(optimizer.param_groups)
            for value in group["params"]
        }
        self._owners = [owners.get(id(weight), (None, 0)) for weight in self.weights]
        self._handles: list[RemovableHandle] = [
            optimizer.register_step_pre_hook(self._copy) for optimizer in optimizers
        ] + [optimizer.register_step_post_hook(self._note) for optimizer in optimizers]
        self._lrs = [0.0] * len(self.weights)
        self._gradients: dict[int, tuple[Tensor, int]] = {}  # by place: value, version
        self._before: dict[int, Tensor] = {}  # by place
        self._moved: dict[int, Tensor] = {}  # by place
        trainers = {id(owner) for owner, _ in self._owners if owner is not None}
        self._trainers = trainers or {id(one) for one in optimizers}
        self._waiting = set(self._trainers)  # for their steps

    def remove(self) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()

    def _copy(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        if self.measures():
            owned = [place for place, (owner, _index) in enumerate(self._owners) if owner is optimizer]
            self._before = {place: self.weights[place].detach().clone() for place in owned}

    def _note(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        before, self._before = self._before, {}
        if _skipped(optimizer):
            return
        self._waiting.discard(id(optimizer))
        for place, (owner, group) in enumerate(self._owners):
            if owner is optimizer:
                self._lrs[place] = float(optimizer.param_groups[group]["lr"])
                if place in before:
                    self._moved[place] = self.weights[place].detach() - before[place]
                gradient = self.weights[place].grad
                if gradient is not None:
                    self._gradients[place] = gradient, gradient._version

    def take(self) -> list[float] | None:
        """η of each weight, where there was a step since the last look."""
        if self._waiting:
            return None
        self._waiting = set(self._trainers)
        return list(self._lrs)

    def gradients(self) -> list[Tensor]:
        """What the step was taken along, shaped like the weights; 0 where there was nothing.

        Raises:
            ConfigError: where it has been written to since.
        """
        return [self._gradient(place, weight) for place, weight in enumerate(self.weights)]

    def moved(self) -> list[Tensor] | None:
        """By how much the step has changed the weights; None where that was not measured."""
        if not self._moved:
            return None
        return [self._moved.get(place, torch.zeros_like(weight)) for place, weight in enumerate(self.weights)]

    def forget(self) -> None:
        """Let go of the gradients, and of what was measured."""
        self._gradients.clear()
        self._moved.clear()

    def _gradient(self, place: int, weight: Tensor) -> Tensor:
        if place not in self._gradients:
            return torch.zeros_like(weight)
        value, version = self._gradients[place]
        if value._version != version:
            raise ConfigError(
                "the gradients were written to between optimizer.step() and sparsifier.step(): call "
                "sparsifier.step() right after optimizer.step()"
            )
        return value


def _skipped(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the gradients of a step overflow under a GradScaler, so that it moves nothing.

    An optimiser that scales back by itself (``fused=True``) is told so for as long as its step takes; another
    one's step is not called then.
    """
    overflow: Any = vars(optimizer).get("found_inf")
    return overflow is not None and bool(overflow)
