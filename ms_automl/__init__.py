"""ms_automl: learn the sparsity strength λ of a multi-task network, or search for it, under one budget."""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"]:  # as Python has it while it looks for one of our commands
    from ms_automl.environment.hidden import say

    sys.excepthook = say

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ms_automl.models.archive import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: a module of the core should not load the rest with it.
    if name == "load":
        from ms_automl.models.archive import load

        return load
    raise AttributeError(f"module 'ms_automl' has no attribute '{name}'")
