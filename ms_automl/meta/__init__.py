"""λ: its schedule, its gradient (``hypergradients``) and the ways of learning it (``learners``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ms_automl.environment.lazy import lazy

if TYPE_CHECKING:
    from ms_automl.meta.objective import Objective
    from ms_automl.meta.reference import Reference
    from ms_automl.meta.schedule import KNOTS, LambdaSchedule
    from ms_automl.meta.settings import LearnerSettings, WaterfillSettings

__all__ = [
    "KNOTS",
    "LambdaSchedule",
    "LearnerSettings",
    "Objective",
    "Reference",
    "WaterfillSettings",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "KNOTS": "ms_automl.meta.schedule",
        "LambdaSchedule": "ms_automl.meta.schedule",
        "LearnerSettings": "ms_automl.meta.settings",
        "Objective": "ms_automl.meta.objective",
        "Reference": "ms_automl.meta.reference",
        "WaterfillSettings": "ms_automl.meta.settings",
    },
)
