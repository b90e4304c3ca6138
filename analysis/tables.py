"""The comparison as tables: full numbers for programs, rounded ones with units for people."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from analysis.paired import LEARNED, NAMES, headline_metric, paired, reading, signed

EMPTY = "–"
REFERENCE = "dense"
MEANS = (
    *("objective", "delta_m", "sparsity_group", "sparsity_param", "macs_ratio", "latency_ratio"),
    *("passes", "device_seconds", "wall_seconds", "searcher_seconds"),
)


def comparison_table(rows: pd.DataFrame, passes_per_trial: float | None = None) -> pd.DataFrame:
    """One line per arm, best first by the headline J, the dense reference last.

    Values are means over the seeds with a result (trials: sums over all seeds); `test_iqm` is the mean of the
    middle half, from four seeds on; `spent` is the passes in fixed-λ trials' worth.
    """
    records = []
    for arm, group in rows.groupby("arm", sort=False):
        ok = group[group["status"] != "failed"]
        records.append(
            {
                "arm": arm,
                "space": ", ".join(dict.fromkeys(group["space"].dropna().astype(str))),
                "seeds": f"{len(ok)} of {len(group)}" if len(ok) < len(group) else f"{len(group)}",
                "test_objective": ok["test_objective"].mean(),
                "test_iqm": interquartile_mean(ok["test_objective"]),
                **{name: ok[name].mean() for name in MEANS},
                **{name: group[name].sum() for name in ("trials", "failed_trials")},
                "spent": ok["passes"].mean() / passes_per_trial if passes_per_trial else math.nan,
            }
        )
    table = pd.DataFrame.from_records(records)
    order = table.assign(last=table["arm"] == REFERENCE).sort_values(["last", headline_metric(rows)]).index
    return table.loc[order].reset_index(drop=True)


def interquartile_mean(values: pd.Series) -> float:
    """Mean of the middle half; NaN below four values, where nothing could be cut."""
    kept = sorted(values.dropna())
    cut = len(kept) // 4
    return float(pd.Series(kept[cut : len(kept) - cut]).mean()) if cut else math.nan


def paired_table(rows: pd.DataFrame, target: float | None = None) -> pd.DataFrame:
    """Every learned arm against every other one, by seed, ready to be printed; empty with a single seed."""
    metric = headline_metric(rows)
    arms = [arm for arm in dict.fromkeys(rows["arm"]) if arm != REFERENCE]
    pairs = [(left, right) for left in LEARNED if left in arms for right in arms if right not in LEARNED]
    results = [paired(rows, left, right, metric, target) for left, right in pairs]
    return pd.DataFrame.from_records(
        [
            {
                "A": result.left,
                "B": result.right,
                "Seeds": str(len(result.seeds)),
                f"A − B, {NAMES[metric]}": signed(result.mean),
                "95 % interval": f"{signed(result.low)} to {signed(result.high)}",
                "What it allows to say": reading(result),
            }
            for result in results
            if len(result.seeds) > 1
        ]
    )


def _fixed(digits: int, factor: float = 1.0) -> Callable[[float], str]:
    return lambda value: f"{factor * value:,.{digits}f}".replace("-", "−")


def _text(value: object) -> str:
    return str(value)


# Column of the comparison table: what a person reads above it, and how it is written.
COLUMNS: dict[str, tuple[str, Callable[..., str]]] = {
    "arm": ("Arm", _text),
    "space": ("λ space", _text),
    "seeds": ("Seeds", _text),
    "test_objective": ("Test J", _fixed(3)),
    "test_iqm": ("Test J, IQM", _fixed(3)),
    "objective": ("Validation J", _fixed(3)),
    "delta_m": ("Δm (%)", _fixed(1)),
    "sparsity_group": ("Group sparsity (%)", _fixed(1, 100)),
    "sparsity_param": ("Parameter sparsity (%)", _fixed(1, 100)),
    "macs_ratio": ("MACs (% of dense)", _fixed(1, 100)),
    "latency_ratio": ("Latency (% of dense)", _fixed(1, 100)),
    "spent": ("Spent (fixed-λ trials)", _fixed(1)),
    "passes": ("Spent (passes)", _fixed(0)),
    "trials": ("Trials", _fixed(0)),
    "failed_trials": ("Failed trials", _fixed(0)),
    "device_seconds": ("Device time (s)", _fixed(0)),
    "searcher_seconds": ("Searcher time (s)", _fixed(1)),
}


def display(table: pd.DataFrame) -> pd.DataFrame:
    """Round, name with units, and leave out the columns in which nothing was recorded."""
    shown = {}
    skipped = {"passes"} if "spent" in table and table["spent"].notna().any() else set()
    if "failed_trials" in table and not table["failed_trials"].any():
        skipped.add("failed_trials")
    for name, (header, write) in COLUMNS.items():
        if name not in skipped and name in table and table[name].notna().any():
            shown[header] = [EMPTY if pd.isna(value) else write(value) for value in table[name]]
    return pd.DataFrame(shown, dtype=object)


def is_numeric(values: pd.Series) -> bool:
    """Whether a column of a printed table is to be aligned right."""
    return all(re.fullmatch(r"([−+-]?[\d.,]+|–|not reached)( \(.*\))?", str(value)) for value in values)


def markdown(table: pd.DataFrame) -> str:
    """Write a printed table as GitHub Markdown, numbers aligned right.

    >>> print(markdown(pd.DataFrame({"Arm": ["meta"], "J": ["1.50"]})), end="")
    | Arm | J |
    | :-- | --: |
    | meta | 1.50 |
    """
    cells: list[list[str]] = table.to_numpy(dtype=object).tolist()
    rules = ["--:" if is_numeric(table[name]) else ":--" for name in table]
    lines: list[list[str]] = [[str(name) for name in table], rules, *cells]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def write_csv(table: pd.DataFrame, file: Path) -> None:
    """Write all columns at full precision; λ and other nested values as JSON."""
    nested = table.map(lambda value: json.dumps(value) if isinstance(value, (dict, list)) else value)
    nested.to_csv(file, index=False, encoding="utf-8", lineterminator="\n")
