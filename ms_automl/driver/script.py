"""What trials report in a simulation: passes as real ones', results made up."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ms_automl.comparison.registry import METHODS
from ms_automl.comparison.run import Trial
from ms_automl.data import MultiTaskData
from ms_automl.meta import LambdaSchedule
from ms_automl.training import TrainingSettings

Passes = Mapping[str, float]
"""Passes by kind: train, outer, hessian, forward."""

CONSTANT = 4.0
"""A made-up loss of a constant prediction: above all that trials are made to have."""


@dataclass(frozen=True)
class Script:
    """The reports that a trial makes: passes as a real one's, results made up.

    Results depend on the seed and on what was suggested, and on nothing else. A layer loses its groups where λ
    comes near the upper bound, as in the presets' sweeps, the loss rises with what is lost, and no two seeds agree
    on the second decimal: enough for arms that stop trials to stop as many as they would.

    Attributes:
        settings: how a trial trains.
        data: whose tasks and numbers of samples every seed is taken to have.
        layers: what has a λ of its own.
        bounds: (low, high) of λ.
        plan: passes of a whole trial of a method.
        seed: of what is made up.
    """

    settings: TrainingSettings
    data: MultiTaskData
    layers: tuple[str, ...]
    bounds: tuple[float, float]
    plan: Callable[[str], Passes]
    seed: int = 0

    @property
    def reports(self) -> int:
        """How many reports a whole trial makes."""
        return self.settings.reports

    def passes(self, trial: Trial, interval: int) -> dict[str, float]:
        """Passes by kind of a report interval 0, 1, … of a whole trial; over all of them what was planned."""
        settings = self.settings
        begin = interval * settings.report_every
        end = min(begin + settings.report_every, settings.steps)
        sparsifying = min(end, settings.prox_steps) - min(begin, settings.prox_steps)
        whole, probe = self.plan(trial.method), 0
        if trial.params.get("probe") or (
            METHODS[trial.method].learns_lambda and interval < settings.sparsifying_reports
        ):
            probe = settings.probe_samples(self.data)
        evaluated = len(self.data.val) + probe + (len(self.data.test) if end == settings.steps else 0)
        return {
            "train": whole["train"] * (end - begin) / settings.steps,
            "outer": whole["outer"] * sparsifying / settings.prox_steps,
            "hessian": whole["hessian"] * sparsifying / settings.prox_steps,
            "forward": evaluated / 3,
        }

    def metrics(self, trial: Trial, interval: int) -> dict[str, float]:
        """The metrics that a trial gives at the end of an interval."""
        settings = self.settings
        step = min((interval + 1) * settings.report_every, settings.steps)
        share = min(1.0, step / settings.prox_steps)
        by_layer = {layer: zeros * share for layer, zeros in self._zeros(trial).items()}
        zeros = sum(by_layer.values()) / len(by_layer)
        key = f"{self.seed}/{trial.run}/{trial.training_seed}/{sorted(trial.values.items())}"
        noise = random.Random(key).gauss(0, 0.02)
        loss = 0.5 * (1 + 0.2 * zeros**3 / (1.05 - zeros) + abs(noise)) * (1 + 1 / (interval + 1))
        metrics = {"step": float(step), "density": 1 - zeros, "sparsity/param": zeros, "sparsity/group": zeros}
        metrics |= {f"sparsity/layer/{layer}": value for layer, value in by_layer.items()}
        for split in ("val", "test") if step == settings.steps else ("val",):
            for task in self.data.tasks:
                metrics |= {f"{split}/{task.name}/{name}": 1 / (1 + loss) for name in task.metrics}
                metrics[f"{split}/{task.name}/loss"] = loss
                if trial.params.get("probe"):
                    metrics |= {f"{split}/{task.name}/constant": CONSTANT, f"probe/{task.name}/loss": loss}
                    if step == settings.steps:
                        metrics[f"{split}/{task.name}/loss_error"] = 0.0
        return metrics

    def _zeros(self, trial: Trial) -> dict[str, float]:
        """Share of each layer's groups that a whole trial takes away."""
        low, high = map(math.log, self.bounds)
        schedule = trial.params.get("schedule")
        if METHODS[trial.method].learns_lambda:
            return dict.fromkeys(self.layers, 0.5)
        if schedule is None or not trial.params.get("freeze", True):
            return dict.fromkeys(self.layers, float(trial.params.get("level", 0.0)))
        where = [(math.log(max(value, 1e-12)) - low) / (high - low) for value in schedule["values"][-1]]
        return {layer: 1 / (1 + math.exp(-(x - 0.75) / 0.04)) for layer, x in zip(self.layers, where, strict=True)}

    def learned(self) -> dict[str, Any]:
        """The λ that a trial that learns it ends with."""
        value = self.bounds[0] ** 0.25 * self.bounds[1] ** 0.75
        return LambdaSchedule.constant(dict.fromkeys(self.layers, value)).to_dict()
