"""What each arm came to: means over its seeds."""

from __future__ import annotations

import math

import pandas as pd

from analysis.statistics.arms import REFERENCE, headline_metric
from analysis.statistics.intervals import interquartile_mean

MEANS = (
    *("retrained_test_objective", "test_objective", "objective", "delta_m", "retrained_delta_m"),
    *("delta_m_single", "retrained_delta_m_single", "density_single", "macs_ratio_single"),
    *("density", "sparsity_group", "sparsity_param", "retrained_sparsity_param", "macs_ratio", "latency_ratio"),
    *("passes", "spent", "overshoot", "device_seconds", "wall_seconds", "searcher_seconds"),
)
SUMS = ("trials", "failed_trials", "stopped_trials")


def comparison_table(rows: pd.DataFrame, passes_per_trial: float | None = None) -> pd.DataFrame:
    """One line per arm, best first by the headline J, the dense reference last.

    Values are means over the seeds with a result (trials: sums over all seeds); `headline` names the column that
    arms are compared on, `iqm` is its interquartile mean; `spent_trials` the passes in fixed-λ trials' worth;
    `spent_share` the part of the limit.
    """
    metric = headline_metric(rows)
    records = []
    for arm, group in rows.groupby("arm", sort=False):
        ok = group[group["status"] != "failed"]
        records.append(
            {
                "arm": arm,
                "headline": metric,
                "space": ", ".join(dict.fromkeys(group["space"].dropna().astype(str))),
                "seeds": f"{len(ok)} of {len(group)}" if len(ok) < len(group) else f"{len(group)}",
                "iqm": interquartile_mean(ok[metric]),
                **{name: ok[name].mean() for name in MEANS},
                **{name: group[name].sum(min_count=1) for name in SUMS},
                "spent_trials": ok["passes"].mean() / passes_per_trial if passes_per_trial else math.nan,
                "spent_share": (ok["spent"] / ok["limit"]).mean(),
            }
        )
    table = pd.DataFrame.from_records(records)
    order = table.assign(last=table["arm"] == REFERENCE).sort_values(["last", metric], kind="stable").index
    return table.loc[order].reset_index(drop=True)
