"""What each task gained or lost: test metrics of the selected models against the dense network of their seed."""

from __future__ import annotations

import math
import re

import pandas as pd

from analysis.statistics.arms import REFERENCE
from analysis.statistics.formats import EMPTY, signed

LOWER = re.compile(r"loss|error|err$|angle|rmse|mae|abs|rel")
HIGHER = re.compile(r"iou|acc|within|f1|auc|precision|recall|r2")


def direction(metric: str, recorded: dict[str, str]) -> int:
    """+1 where a higher value is better, −1 where a lower one is, 0 where nobody says.

    Args:
        metric: `<task>/<metric>`.
        recorded: `max` or `min` by `<task>/<metric>`, where the comparison says so; else the metric's name tells.

    >>> direction("segmentation/miou", {}), direction("depth/abs_error", {}), direction("x/y", {"x/y": "min"})
    (1, -1, -1)
    """
    known = recorded.get(metric)
    if known:
        return 1 if known == "max" else -1
    name = metric.rpartition("/")[2]
    return -1 if LOWER.search(name) else 1 if HIGHER.search(name) else 0


def task_changes(trials: pd.DataFrame, chosen: pd.Series) -> pd.DataFrame:
    """Test metrics of the selected models, beside dense's.

    Args:
        trials: One row per trial.
        chosen: Whether a trial is the one its arm and seed selected, dense's included.

    Returns:
        One row per arm, seed and metric: arm, seed, metric (`<task>/<metric>`), value, dense, change (% of the
        dense value of the same seed; missing where that is 0).
    """
    names = [name for name in trials.columns if name.count("/") == 2 and name.startswith("test/")]
    picked = trials.loc[chosen, ["arm", "seed", *names]]
    long = picked.melt(["arm", "seed"], names, "metric", "value").dropna(subset=["value"])
    long["metric"] = long["metric"].str.removeprefix("test/")
    base = long[long["arm"] == REFERENCE].drop(columns="arm").rename(columns={"value": "dense"})
    both = long[long["arm"] != REFERENCE].merge(base, on=["seed", "metric"])
    both["change"] = 100 * (both["value"] - both["dense"]) / both["dense"].abs().where(both["dense"] != 0)
    return both


def task_table(changes: pd.DataFrame, recorded: dict[str, str]) -> pd.DataFrame:
    """One line per metric: dense's value, then each arm's change in %, means over seeds; ▲ better, ▼ worse."""
    if changes.empty:
        return pd.DataFrame()
    arms, metrics = list(dict.fromkeys(changes["arm"])), list(dict.fromkeys(changes["metric"]))
    means = changes.pivot_table(index="metric", columns="arm", values="change").reindex(metrics)
    dense = changes.groupby("metric")["dense"].mean()
    records = []
    for metric in metrics:
        sign = direction(metric, recorded)
        arrow = {1: " ↑", -1: " ↓", 0: ""}[sign]
        record = {"Metric": metric.replace("/", " ") + arrow, "Dense": f"{dense[metric]:.4g}"}
        record |= {arm: _marked(means[arm][metric], sign) for arm in arms}
        records.append(record)
    return pd.DataFrame.from_records(records)


def _marked(change: float, sign: int) -> str:
    if math.isnan(change):
        return EMPTY
    better = sign * round(change, 1)
    mark = " ▲" if better > 0 else " ▼" if better < 0 else ""
    return signed(change, 1) + mark
