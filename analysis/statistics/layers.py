"""λ and zeros by layer."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from analysis.statistics.arms import REFERENCE
from analysis.statistics.trials import full_fidelity, layer_columns

PHASES = 41


def knots(lambda_: object) -> list[dict[str, float]]:
    """λ by layer, a dict a knot: one knot where it is constant (a dict), several over training (a list), or none.

    >>> knots({"stem": 0.1}), knots(None)
    ([{'stem': 0.1}], [])
    """
    course = lambda_ if isinstance(lambda_, list) else [lambda_]
    return [
        {str(layer): float(value) for layer, value in knot.items()} for knot in course if isinstance(knot, dict)
    ]


def last_knot(lambda_: object) -> dict[str, float]:
    """λ by layer at the end of the sparsifying phase; empty where there is none.

    >>> last_knot([{"stem": 0.1}, {"stem": 0.2}])
    {'stem': 0.2}
    """
    course = knots(lambda_)
    return course[-1] if course else {}


def lambda_course(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """λ over the sparsifying phase, by arm in whose result it moves: a frame, layers down, phase across.

    Knots are equally spaced over the phase and linear in between, as `LambdaSchedule` has them; the frame's
    columns are the phase in % of it, its values geometric means over seeds. λ = 0 is NaN, which leaves its seed
    out.
    """
    courses: dict[str, list[pd.DataFrame]] = {}
    phase = np.linspace(0.0, 1.0, PHASES)
    for arm, lambda_ in zip(rows["arm"], rows["lambda"], strict=True):
        course = pd.DataFrame(knots(lambda_))
        if len(course) > 1 and arm != REFERENCE:
            places = np.linspace(0.0, 1.0, len(course))
            values = {layer: np.interp(phase, places, course[layer]) for layer in course}
            courses.setdefault(arm, []).append(pd.DataFrame(values, index=100 * phase).T)
    return {arm: _geometric_mean(frames) for arm, frames in courses.items()}


def _geometric_mean(frames: list[pd.DataFrame]) -> pd.DataFrame:
    logs = [frame.where(frame > 0).map(math.log) for frame in frames]
    stacked = pd.concat(logs, keys=range(len(frames)))
    return stacked.groupby(level=1, sort=False).mean().map(math.exp)


def layer_order(rows: pd.DataFrame) -> list[str]:
    """The layers in the network's order, as the rows' λ have them; MLflow gives metrics back in no order."""
    return list(dict.fromkeys(layer for lambda_ in rows["lambda"] for layer in last_knot(lambda_)))


def pattern(trials: pd.DataFrame, chosen: pd.Series, order: list[str]) -> pd.DataFrame:
    """Share of zero groups in % by layer (the index) and arm (columns), mean over seeds of the selected models.

    A layer without a zero in any model is kept: that it stays whole is part of the pattern.

    Args:
        trials: One row per trial with `sparsity/layer/<name>`.
        chosen: Whether a trial is the one its arm and seed selected.
        order: The layers in the network's order; those it lacks come last.
    """
    names = layer_columns(trials, "sparsity/layer")
    picked = trials[chosen & (trials["arm"] != REFERENCE)]
    table = 100 * picked.groupby("arm", sort=False)[list(names)].mean().T
    table = table.rename(index=names).dropna(how="all").dropna(axis=1, how="all")
    known = [layer for layer in order if layer in table.index]
    return table.loc[[*known, *(layer for layer in table.index if layer not in known)]]


def lambda_study(trials: pd.DataFrame, arm: str = "grid") -> pd.DataFrame:
    """The trials of an arm that varies one λ for all layers, by increasing λ; empty where there are none.

    Returns:
        The arm's full-fidelity trials with a column `lambda_`: the geometric mean over layers, which is the one
        value.
    """
    names = list(layer_columns(trials, "lambda"))
    study = trials[full_fidelity(trials) & (trials["arm"] == arm)]
    if not names or study.empty:
        return study.head(0).assign(lambda_=pd.Series(dtype=float))
    values = study[names]
    lambdas = np.exp(np.log(values.where(values > 0)).mean(axis=1))
    return study.assign(lambda_=lambdas).dropna(subset=["lambda_"]).sort_values("lambda_", ignore_index=True)
