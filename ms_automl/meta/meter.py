"""What bounds of λ follow from, measured in a dense training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ms_automl.meta.rule import Untouched
from ms_automl.meta.step import TrainingStep
from ms_automl.sparsity import Groups

RESISTANCE = {"adamw": 1.0, "sgd": 10.0}
"""By optimiser: Adam's steps keep their length whatever the gradient is, those of SGD grow with it, and momentum
adds up what all points one way (benchmarks/lambda_bounds.py: its groups begin to go at three times u / η, and at
eight times that a third has gone)."""


class Meter(Untouched):
    """Leaves every group alone and measures what :class:`~ms_automl.meta.lambda_bounds.LambdaBounds` follow from.

    Over the sparsifying phase, with u_l the root mean square of what a step of the optimiser adds to those weights
    of layer l that λ can act on, r_l that of the weights themselves, and medians over layers,

        step = κ median_l mean_t u_l,t / η_t,        shrink = median_l r_l / Σ_t η_t,

    u measured in every tenth step, r in the last of them. κ is what an optimiser adds to a group that is
    shortened, over what it adds in a dense training (:data:`RESISTANCE`). In a metric d of the prox u and r are
    those of d ∘ θ.

    Args:
        groups: the groups.
        resistance: κ.
        metric: gives d after a step, as :data:`~ms_automl.sparsity.PROX_METRICS` do; None where d is 1.
    """

    measures_every = 10

    def __init__(
        self, groups: Groups, resistance: float = 1.0, metric: Callable[[], Tensor | None] = lambda: None
    ) -> None:
        self.groups, self.resistance, self.metric = groups, resistance, metric
        self.steps = torch.zeros(len(groups.names), dtype=torch.float64)  # Σ_t u_l / η_t of those measured
        self.measured = 0
        self.rates = 0.0  # Σ_t η_t
        self.rms = torch.zeros_like(self.steps)  # r_l

    @torch.no_grad()
    def step(self, now: TrainingStep) -> None:
        """Measure where due."""
        lr = float(now.lr.mean()) if isinstance(now.lr, Tensor) else now.lr
        self.rates += lr
        if now.moved is not None and lr > 0:
            metric = self.metric()
            scales = None if metric is None else self.groups.blocks.split(metric)
            self.steps += self._rms(now.moved, scales) / lr
            self.rms = self._rms(self.groups.weights, scales)
            self.measured += 1

    def _rms(self, values: Sequence[Tensor], scales: Sequence[Tensor] | None) -> Tensor:
        """[L] the root mean square of tensors shaped like the weights, in the prox's metric."""
        if scales is not None:
            values = [value * scale for value, scale in zip(values, scales, strict=True)]
        squares = self.groups.layer_sum(self.groups.sum([value.square() for value in values]))
        return (squares / self.groups.layer_sum(self.groups.size)).sqrt().cpu().double()

    def metrics(self) -> dict[str, float]:
        """``bounds/step`` and ``bounds/shrink``; empty before the first measurement."""
        if not self.measured:
            return {}
        step, rms = (float(torch.quantile(each, 0.5)) for each in (self.steps / self.measured, self.rms))
        return {"bounds/step": self.resistance * step, "bounds/shrink": rms / self.rates}

    def state_dict(self) -> dict[str, Any]:
        """What was measured."""
        return {
            "steps": self.steps.clone(),
            "measured": self.measured,
            "rates": self.rates,
            "rms": self.rms.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`; of a trial that began with a version that measured nothing, nothing."""
        if state:
            self.steps, self.rms = state["steps"].clone(), state["rms"].clone()
            self.measured, self.rates = state["measured"], state["rates"]
