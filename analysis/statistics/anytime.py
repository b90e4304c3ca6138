"""Anytime curves: the best J so far against what was spent, as step functions on a common grid."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.statistics.trials import full_fidelity

RUN = ["arm", "seed"]  # what a run is told by


def common_grid(*budgets: pd.Series) -> np.ndarray:
    """Every budget at which some curve has a point or ends, increasing: on it step functions lose nothing."""
    return np.unique(pd.concat(budgets).dropna().to_numpy(dtype=float))


def on_grid(anytime: pd.DataFrame, metric: str, x: str, grid: np.ndarray) -> pd.DataFrame:
    """The curves as step functions on one grid: the value at g is that of the last point at or before g.

    Values are not interpolated between points, because an arm has nothing to show between two results. Before its
    first result a curve is NaN; after its last one it is flat.

    Args:
        anytime: Columns arm, seed, `x` and `metric`.
        metric: `objective` (validation) or `test_objective`.
        x: `passes` or `seconds`.
        grid: Increasing budgets, in the unit of `x`.

    Returns:
        One row per budget (the index), one column per (arm, seed).
    """
    points = anytime.dropna(subset=[metric, x]).sort_values(x, kind="stable")
    curves = {
        key: curve.groupby(x)[metric].last().reindex(pd.Index(grid), method="ffill")
        for key, curve in points.groupby(RUN, sort=False)
    }
    keys = pd.DataFrame(list(curves), columns=RUN)
    columns = pd.MultiIndex.from_frame(keys)
    return pd.DataFrame(curves, index=pd.Index(grid, name=x), columns=columns)


def bands(curves: pd.DataFrame) -> pd.DataFrame:
    """Mean, lowest and highest over seeds at every budget, from `on_grid`.

    Only where every seed of the arm has a result: a mean that gains seeds on the way would jump for no gain. The
    band is the range and not an interval, because which arm is better is asked of paired differences, not of
    whether bands overlap.

    Returns:
        Columns arm, x, mean, low, high, seeds.
    """
    frames = []
    for arm, table in curves.T.groupby(level="arm", sort=False):
        values = table.T.dropna()
        frame = pd.DataFrame(
            {"arm": arm, "x": values.index, "mean": values.mean(axis=1), "low": values.min(axis=1)}
            | {"high": values.max(axis=1), "seeds": values.shape[1]}
        )
        frames.append(frame.reset_index(drop=True))
    columns = ["arm", "x", "mean", "low", "high", "seeds"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def with_seconds(anytime: pd.DataFrame, trials: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Add `seconds`: the wall-clock an arm and seed needs by itself to come as far.

    The recorded `wall_seconds` run since the comparison began, with other arms in the same slots, so they say who
    came first. Here the wall-clock of the run's trials, failed ones included, is added up in their order, and
    its searcher's time is spread evenly over them; in between, seconds go with passes. Where trials have no
    wall-clock, the recorded one is kept.
    """
    if not {"cost/wall_seconds", "cost/passes"} <= set(trials.columns):
        return anytime.assign(seconds=anytime["wall_seconds"])
    searcher = rows.set_index(RUN)["searcher_seconds"]
    clocks = dict(iter(trials.groupby(RUN)))
    parts = []
    for key, curve in anytime.groupby(RUN, sort=False):
        run = clocks.get(key)
        if run is None or run["cost/wall_seconds"].isna().all():
            parts.append(curve.assign(seconds=curve["wall_seconds"]))
            continue
        spent = run.sort_values("index")[["cost/passes", "cost/wall_seconds"]].fillna(0.0).cumsum()
        share = np.arange(1, len(spent) + 1) / len(spent) * np.nan_to_num(float(searcher.get(key, 0.0)))
        passes = np.concatenate([[0.0], spent["cost/passes"]])
        seconds = np.concatenate([[0.0], spent["cost/wall_seconds"] + share])
        parts.append(curve.assign(seconds=np.interp(curve["passes"], passes, seconds)))
    return pd.concat(parts, ignore_index=True) if parts else anytime.assign(seconds=anytime["wall_seconds"])


def from_target_on(anytime: pd.DataFrame, trials: pd.DataFrame, target: float | None) -> pd.DataFrame:
    """Leave out the points before a run has a model of the asked sparsity: their J is of another problem.

    Args:
        anytime: Columns arm, seed, passes, ….
        trials: One row per trial.
        target: The sparsity asked for, in [0, 1]; `None` keeps everything.
    """
    if target is None or not {"density", "cost/passes"} <= set(trials.columns):
        return anytime
    ordered = trials.sort_values("index")
    spent = ordered["cost/passes"].fillna(0.0).groupby([ordered[name] for name in RUN]).cumsum()
    reached = full_fidelity(ordered) & (1 - ordered["density"] >= target - 1e-9)
    first = ordered.assign(first=spent)[reached].groupby(RUN)["first"].min()
    keys = pd.MultiIndex.from_frame(anytime[RUN])
    # Half a pass of slack: the curve's passes are whole numbers.
    return anytime[anytime["passes"].to_numpy() >= first.reindex(keys).to_numpy() - 0.5]
