"""ms_automl: learn the sparsity strength λ of a multi-task network, or search for it, under one budget.

The public names are imported when they are asked for.
"""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"]:  # as Python has it while it looks for one of our commands
    from ms_automl.environment.hidden import say

    sys.excepthook = say

from typing import TYPE_CHECKING

from ms_automl.environment.lazy import lazy

if TYPE_CHECKING:
    from ms_automl.api import ComparisonResult, compare
    from ms_automl.data.contract import MultiTaskData
    from ms_automl.meta.objective import Objective
    from ms_automl.meta.schedule import LambdaSchedule
    from ms_automl.models.archive import load
    from ms_automl.models.network import MultiTaskNet
    from ms_automl.sparsity.compact import compact
    from ms_automl.tasks.task import Task

__version__ = "0.1.0"
__all__ = [
    "ComparisonResult",
    "LambdaSchedule",
    "MultiTaskData",
    "MultiTaskNet",
    "Objective",
    "Task",
    "__version__",
    "compact",
    "compare",
    "load",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "ComparisonResult": "ms_automl.api",
        "compare": "ms_automl.api",
        "MultiTaskData": "ms_automl.data.contract",
        "Objective": "ms_automl.meta.objective",
        "LambdaSchedule": "ms_automl.meta.schedule",
        "load": "ms_automl.models.archive",
        "MultiTaskNet": "ms_automl.models.network",
        "compact": "ms_automl.sparsity.compact",
        "Task": "ms_automl.tasks.task",
    },
)
