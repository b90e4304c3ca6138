"""The comparison as tables: full numbers for programs, rounded ones with units for people."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import pandas as pd

from analysis.arms import REFERENCE, headline_metric
from analysis.formats import EMPTY, fixed, signed
from analysis.intervals import interquartile_mean
from analysis.paired import Paired
from analysis.verdict import reading

MEANS = (
    *("retrained_test_objective", "test_objective", "objective", "delta_m", "retrained_delta_m"),
    *("sparsity_group", "sparsity_param", "retrained_sparsity_param", "macs_ratio", "latency_ratio"),
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


def paired_table(pairs: Iterable[Paired]) -> pd.DataFrame:
    """One line per pair, ready to be printed; pairs with fewer than two common seeds are left out."""
    return pd.DataFrame.from_records(
        [
            {
                "A": result.left,
                "B": result.right,
                "Seeds": str(len(result.seeds)),
                "A − B": signed(result.mean),
                "95 % interval": f"{signed(result.low)} to {signed(result.high)}",
                "IQM": signed(result.iqm),
                "Win, tie, loss": f"{result.wins}, {result.ties}, {result.losses}",
                "What it allows to say": reading(result),
            }
            for result in pairs
            if len(result.seeds) > 1
        ]
    )


def _text(value: object) -> str:
    return str(value)


# Column of the comparison table: what a person reads above it, and how it is written.
COLUMNS: dict[str, tuple[str, Callable[..., str]]] = {
    "arm": ("Arm", _text),
    "space": ("λ space", _text),
    "seeds": ("Seeds", _text),
    "retrained_test_objective": ("Test J, retrained", fixed(3)),
    "test_objective": ("Test J", fixed(3)),
    "objective": ("Validation J", fixed(3)),
    "delta_m": ("Δm (%)", fixed(1)),
    "sparsity_group": ("Group sparsity (%)", fixed(1, 100)),
    "sparsity_param": ("Parameter sparsity (%)", fixed(1, 100)),
    "macs_ratio": ("MACs (% of dense)", fixed(1, 100)),
    "latency_ratio": ("Latency (% of dense)", fixed(1, 100)),
    "spent_trials": ("Spent (fixed-λ trials)", fixed(1)),
    "spent_share": ("Spent (% of limit)", fixed(1, 100)),
    "passes": ("Spent (passes)", fixed(0)),
    "overshoot": ("Overshoot", fixed(1)),
    "trials": ("Trials", fixed(0)),
    "failed_trials": ("Failed trials", fixed(0)),
    "stopped_trials": ("Stopped trials", fixed(0)),
    "device_seconds": ("Device time (s)", fixed(0)),
    "searcher_seconds": ("Searcher time (s)", fixed(1)),
}
COST = ("arm", *list(COLUMNS)[list(COLUMNS).index("spent_trials") :])
QUALITY = (*(name for name in COLUMNS if name not in COST or name == "arm"), "iqm")
_WHERE_NONZERO = ("failed_trials", "stopped_trials", "overshoot")


def display(table: pd.DataFrame, columns: Iterable[str] = (*COLUMNS, "iqm"), unit: str = "passes") -> pd.DataFrame:
    """Round, name with units, and leave out the columns in which nothing was recorded or that say nothing.

    Args:
        table: From `comparison_table`.
        columns: Which of its columns, in any order.
        unit: Of the budget, for the heading of what exceeds it.
    """
    wanted = set(columns)
    if table["spent_trials"].notna().any():
        wanted.discard("passes")
    if table["space"].nunique() < 2:
        wanted.discard("space")
    shown = {}
    for name, (header, write) in COLUMNS.items():
        values = table[name]
        if name not in wanted or not values.notna().any() or (name in _WHERE_NONZERO and not values.any()):
            continue
        heading = f"{header} ({unit.replace('_', ' ')})" if name == "overshoot" else header
        shown[heading] = [EMPTY if pd.isna(value) else write(value) for value in values]
        if name == table["headline"].iloc[0] and "iqm" in wanted and table["iqm"].notna().any():
            shown[f"{header}, IQM"] = table["iqm"].map(fixed(3)).to_list()
    return pd.DataFrame(shown, dtype=object)
