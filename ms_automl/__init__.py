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
    from ms_automl.api import ComparisonResult as ComparisonResult
    from ms_automl.api import compare as compare
    from ms_automl.data.contract import MultiTaskData as MultiTaskData
    from ms_automl.meta.objective import Objective as Objective
    from ms_automl.meta.schedule import LambdaSchedule as LambdaSchedule
    from ms_automl.models.archive import load as load
    from ms_automl.models.network import MultiTaskNet as MultiTaskNet
    from ms_automl.sparsifier.sparsifier import Sparsifier as Sparsifier
    from ms_automl.sparsity.compact import compact as compact
    from ms_automl.tasks.task import Task as Task

__version__ = "0.1.0"
_HOMES = {
    "ComparisonResult": "ms_automl.api",
    "LambdaSchedule": "ms_automl.meta.schedule",
    "MultiTaskData": "ms_automl.data.contract",
    "MultiTaskNet": "ms_automl.models.network",
    "Objective": "ms_automl.meta.objective",
    "Sparsifier": "ms_automl.sparsifier.sparsifier",
    "Task": "ms_automl.tasks.task",
    "compact": "ms_automl.sparsity.compact",
    "compare": "ms_automl.api",
    "load": "ms_automl.models.archive",
}
__all__ = ["__version__", *_HOMES]
__getattr__, __dir__ = lazy(__name__, _HOMES)
