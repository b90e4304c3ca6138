"""λ: its schedule, its gradient and the rules that learn it."""

from ms_automl.meta.objective import Objective, Reference
from ms_automl.meta.schedule import KNOTS, LambdaSchedule

__all__ = ["KNOTS", "LambdaSchedule", "Objective", "Reference"]
