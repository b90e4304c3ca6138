"""Groups of weights go to zero while a network trains: what comes after each optimiser step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ms_automl.data import Batch
from ms_automl.errors import ConfigError
from ms_automl.meta.rule import Rule, Untouched
from ms_automl.meta.step import Evaluation, TrainingStep
from ms_automl.sparsifier.optimizers import OptimizerSteps
from ms_automl.sparsity import PROX_METRICS, Groups, measure, prox_


class GroupSparsifier:
    """A rule that zeroes groups in the sparsifying phase, and their zeros after it.

    In the first ``prox_share`` of the steps, the *sparsifying* phase, the rule acts after each optimiser step.
    Then the zeros are frozen and the rest trains on: the optimiser moves them, and each step puts them back.

    Args:
        groups: of a network that somebody else trains, in place.
        optimizer: what trains it; several as a sequence.
        steps: optimiser steps of the training.
        prox_share: share of the steps that the sparsifying phase takes.
        prox_metric: of the proximal step, a key of :data:`~ms_automl.sparsity.PROX_METRICS`.

    Attributes:
        rule: what zeroes the groups; to be set before the first step.
        taken: optimiser steps so far.
        pattern: [G] 1 where a group lives, once its zeros are frozen.
        batch: gives the batch of the step just taken, to rules that ask for it.
        outer_gradient: as of :class:`~ms_automl.meta.step.TrainingStep`, to rules that ask for it.
    """

    def __init__(
        self,
        groups: Groups,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        *,
        steps: int,
        prox_share: float = 0.75,
        prox_metric: str = "euclidean",
    ) -> None:
        self.groups, self.prox_metric = groups, prox_metric
        self.steps, self.prox_steps = steps, max(1, round(prox_share * steps))
        self.rule: Rule = Untouched()
        self.taken = 0
        self.pattern: Tensor | None = None
        self.batch: Callable[[], Batch] = _no_batch
        self.outer_gradient: Callable[[Sequence[Tensor]], list[Tensor]] = _no_outer_gradient
        self._steps: OptimizerSteps | None = None
        self.watch(optimizer)

    def watch(self, optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer]) -> None:
        """Take the steps of other optimisers for those of the training from here on."""
        several = (optimizer,) if isinstance(optimizer, torch.optim.Optimizer) else tuple(optimizer)
        if self._steps is not None:
            self._steps.remove()
        self.optimizers, self._steps = several, OptimizerSteps(several, self.groups.weights, self._measures)

    def _measures(self) -> bool:
        every = self.rule.measures_every
        return every > 0 and self.taken < self.prox_steps and self.taken % every == 0

    @property
    def phase(self) -> float:
        """Progress of the sparsifying phase, 0 at its first step and 1 at its last."""
        last = self.prox_steps - 1
        return self.taken / last if last else 1.0

    @torch.no_grad()
    def step(self) -> None:
        """To be called after each optimiser step; without one since the last call it does nothing.

        Raises:
            ConfigError: where the gradients of that step have been written to since.
        """
        assert self._steps is not None
        lrs = self._steps.take()
        if lrs is None:
            return
        if self.taken < self.prox_steps:
            gradients, outer, moved = self._steps.gradients, self.outer_gradient, self._steps.moved()
            lr, batch = self._lr(lrs), self.batch
            self.rule.step(TrainingStep(self.taken, self.phase, lr, batch, gradients, outer, moved))
            if self.rule.freezes and self.taken == self.prox_steps - 1:
                self.freeze()
        self._steps.forget()
        if self.pattern is not None:
            self.groups.scale_(self.pattern)  # the optimiser's momentum moves zeros: put them back
        self.taken += 1

    def _lr(self, lrs: Sequence[float]) -> float | Tensor:
        """η, or [G] the mean over each group's weights where they differ in it."""
        if len(set(lrs)) == 1:
            return lrs[0]
        each = [torch.full_like(weight, lr) for weight, lr in zip(self.groups.weights, lrs, strict=True)]
        return self.groups.sum(each) / self.groups.size

    def freeze(self) -> None:
        """What is zero now stays zero."""
        self.pattern = (self.groups.norms() > 0).to(self.groups.size.dtype)

    def prox(self, threshold: Tensor) -> None:
        """The proximal step of the groups, in their metric.

        Args:
            threshold: [G] η λ sqrt(n), as :func:`~ms_automl.sparsity.thresholds` gives it.
        """
        prox_(self.groups, threshold, PROX_METRICS[self.prox_metric](self.optimizers[0], self.groups))

    def hear(self, losses: Mapping[str, float], density: float) -> list[str]:
        """Let the rule know how the network does on validation samples; what it does then that one should know.

        Args:
            losses: L_t by task.
            density: share of the penalised weights outside zero groups.
        """
        return self.rule.observe(Evaluation(self.taken, self.phase, losses, density))

    def measure(self) -> dict[str, float]:
        """``sparsity/…``: shares of zeros in groups, penalised weights (``param``) and all weights; ``density``.

        The shares are those of :class:`~ms_automl.sparsity.Sparsity`; ``sparsity/layer/…`` and ``lambda/…`` are by
        layer.
        """
        found = measure(self.groups)
        shares = {"sparsity/group": found.group, "sparsity/param": found.param, "sparsity/trunk": found.trunk}
        shares["density"] = found.density
        layers = {f"sparsity/layer/{name}": share for name, share in found.layers.items()}
        return shares | layers | {f"lambda/{name}": value for name, value in self.lambdas().items()}

    def lambdas(self) -> dict[str, float]:
        """λ by layer now; empty with a rule without λ."""
        values = self.rule.lambdas()
        return {} if values is None else dict(zip(self.groups.names, values.tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Everything that later steps depend on."""
        return {"taken": self.taken, "pattern": self.pattern, "rule": self.rule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.taken, pattern = state["taken"], state["pattern"]
        self.pattern = None if pattern is None else pattern.to(self.groups.size.device)
        self.rule.load_state_dict(state["rule"])


def _no_batch() -> Batch:
    raise ConfigError("this rule asks for the batch of the step, which only the trainables hand on")


def _no_outer_gradient(parameters: Sequence[Tensor]) -> list[Tensor]:
    raise ConfigError("this rule asks for a gradient on validation batches, which only the trainables hand on")
