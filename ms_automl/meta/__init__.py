"""λ: its schedule, its gradient (``hypergradients``) and the ways of learning it (``learners``)."""

from ms_automl.meta.objective import Objective
from ms_automl.meta.reference import Reference
from ms_automl.meta.schedule import KNOTS, LambdaSchedule
from ms_automl.meta.settings import LearnerSettings, WaterfillSettings

__all__ = ["KNOTS", "LambdaSchedule", "LearnerSettings", "Objective", "Reference", "WaterfillSettings"]
