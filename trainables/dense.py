"""Multi-task training without sparsity: the reference that every objective is relative to."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cached_property

from ms_automl.data import MultiTaskData
from ms_automl.meta.meter import RESISTANCE, Meter
from ms_automl.models import MultiTaskNet
from ms_automl.sparsity import PROX_METRICS
from ms_automl.training import Metrics, State, TrainingLoop, TrainingSettings, constant_losses


class Dense:
    """Σ_t w_t L_t alone.

    Args:
        data: what to train on.
        network: trained in place.
        settings: length, optimiser and phases.
        seed: of the data order.
        probe: whether it is the reference of others: each report has the probe's losses, which a learner of λ
            compares its own with, those of the best constant predictions, ``<split>/<task>/constant``, and what
            bounds of λ follow from (:class:`~ms_automl.meta.meter.Meter`); the last one also the standard
            errors of its losses.
        weight_decay: in the place of the settings'.
    """

    def __init__(
        self,
        data: MultiTaskData,
        network: MultiTaskNet,
        settings: TrainingSettings,
        seed: int,
        *,
        probe: bool = False,
        weight_decay: float | None = None,
    ) -> None:
        if weight_decay is not None:
            settings = replace(settings, weight_decay=weight_decay)
        self.loop = TrainingLoop(data, network, settings, seed)
        self.probe = probe
        self.loop.errors = probe
        groups, metric = self.loop.sparsifier.groups, PROX_METRICS[settings.prox_metric]
        resistance = RESISTANCE[settings.optimizer]
        self.meter = Meter(groups, resistance, lambda: metric(self.loop.optimizer, groups))
        if probe:
            self.loop.sparsifier.rule = self.meter
        self.cost = self.loop.cost

    @property
    def done(self) -> bool:
        """Whether the last report was made."""
        return self.loop.done

    def step(self) -> Metrics:
        """Train one report interval and evaluate."""
        metrics = self.loop.interval()
        if not self.probe:
            return metrics
        # As with the losses themselves, what the test split says is said at the end.
        known = {key: value for key, value in self._constants.items() if self.done or not key.startswith("test/")}
        return metrics | self.loop.probe() | known | self.meter.metrics()

    @cached_property
    def _constants(self) -> Metrics:
        began = time.perf_counter()
        found = constant_losses(self.loop.data, self.loop.eval_batch)
        self.loop.evaluation_seconds += time.perf_counter() - began
        return found

    def state_dict(self) -> State:
        """Everything that the rest of the run depends on."""
        return {"loop": self.loop.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Restore :meth:`state_dict`."""
        self.loop.load_state_dict(state["loop"])
