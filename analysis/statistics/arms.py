"""Which arms are set against each other, and on which number: fixed before any result is seen."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

from ms_automl.comparison.run import Role
from ms_automl.samplers.arms import ARMS
from ms_automl.samplers.arms import REFERENCE as REFERENCE


def with_role(role: Role) -> tuple[str, ...]:
    """The arms that may speak for a role: those that have the budget of all others."""
    return tuple(name for name, arm in ARMS.items() if arm.role is role and arm.share == 1)


# Which arm speaks for a side is fixed beforehand: picking the best of several afterwards would favour it.
LEARNED, SEARCHED, PRUNED = map(with_role, (Role.LEARNED, Role.SEARCHED, Role.PRUNED))

FREE = tuple(name for name, arm in ARMS.items() if math.isinf(arm.share))
"""The dense reference, and networks for each task: what the others' budget says nothing of."""

# Strictest first: fresh seeds of training undo the luck of the selection, a test split undoes half of it.
METRICS = {
    "retrained_test_objective": "test J, retrained",
    "test_objective": "test J",
    "objective": "validation J",
}


def headline_metric(rows: pd.DataFrame) -> str:
    """The column that arms are compared on, the same for all of them.

    The first of `METRICS` that at least half of the valid results have, so that one retraining that failed does
    not take the others' away; results without it are then left out of the comparison, and counted.
    """
    valid = rows[(rows["status"] == "ok") & (rows["arm"] != REFERENCE)]
    for metric in METRICS:
        if len(valid) and 2 * int(valid[metric].notna().sum()) >= len(valid):
            return metric
    return "test_objective" if rows["test_objective"].notna().any() else "objective"


def ordered(arms: Iterable[str]) -> list[str]:
    """The arms present, in the order of `ARMS`, so that legends agree between figures; others after them."""
    present = list(dict.fromkeys(arms))
    return [arm for arm in ARMS if arm in present] + [arm for arm in present if arm not in ARMS]


def rivals(rows: pd.DataFrame) -> tuple[str, str] | None:
    """The pair the verdict is about: the first learned and the first searched arm present, or `None`."""
    learned, searched = first_of(LEARNED, rows), first_of(SEARCHED, rows)
    return (learned, searched) if learned and searched else None


def first_of(names: tuple[str, ...], rows: pd.DataFrame) -> str | None:
    """The first of these arms that is present."""
    present = set(rows["arm"])
    return next((name for name in names if name in present), None)


def learned_pairs(arms: list[str]) -> list[tuple[str, str]]:
    """Every learned arm with every other one but the dense reference."""
    others = [arm for arm in arms if arm not in LEARNED and arm != REFERENCE]
    return [(left, right) for left in LEARNED if left in arms for right in others]
