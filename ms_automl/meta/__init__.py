"""λ: its schedule, its gradient (``hypergradients``) and the ways of learning it (``learners``)."""

from ms_automl.meta.objective import Objective
from ms_automl.meta.schedule import KNOTS, LambdaSchedule

__all__ = ["KNOTS", "LambdaSchedule", "Objective"]
