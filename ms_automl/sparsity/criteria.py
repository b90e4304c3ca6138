"""What gradual pruning ranks groups by, by name."""

from __future__ import annotations

from collections.abc import Callable

from ms_automl.sparsity.groups import Groups
from ms_automl.sparsity.importance import Importance, MagnitudeImportance, TaylorImportance
from ms_automl.sparsity.ranked import fpgm, isomorphic, l2

CRITERIA: dict[str, Callable[[Groups], Importance]] = {
    "taylor": TaylorImportance,
    "magnitude": MagnitudeImportance,
    "l2": l2,
    "fpgm": fpgm,
    "isomorphic": isomorphic,
}
