"""What a store lacks of a trial or an arm that has ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlflow.entities import Run

from ms_automl.comparison.run import Status, Trial

LARGEST = 1e308
"""Values from here on may stand for infinity, which databases do not hold."""


def ended_as(trial: Trial) -> str:
    """The status of a trial's run in MLflow, which has no word of its own for one that was stopped."""
    return Status.KILLED if trial.status == Status.STOPPED else trial.status


def lacks(run: Run | None, trial: Trial, params: Mapping[str, str]) -> bool:
    """Whether a store lacks something of a trial that has ended.

    Args:
        run: the trial's; None where there is none.
        trial: as it ended.
        params: that its run is to have.
    """
    if run is None or run.info.status != ended_as(trial) or params.keys() - run.data.params.keys():
        return True
    outcome = run.data.tags.get("ms_automl.outcome")
    return outcome != trial.status.lower() or bool(lacking(run.data.metrics, reported(trial)))


def reported(trial: Trial) -> dict[str, float]:
    """What a trial's last report has, without its step."""
    return {key: value for key, value in trial.metrics.items() if key != "step"}


def lacking(logged: Mapping[str, float], wanted: Mapping[str, float]) -> dict[str, float]:
    """The wanted metrics that a run has not logged, or not with this value."""
    return {key: value for key, value in wanted.items() if key not in logged or not _same(logged[key], value)}


def _same(logged: float, value: Any) -> bool:
    if math.isnan(value):
        return math.isnan(logged) or logged == 0.0  # some databases keep a mark beside a zero
    return logged == value or (math.isinf(value) and math.copysign(1, value) * logged >= LARGEST)
