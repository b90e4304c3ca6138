"""Printed tables: rounded, with units, as Markdown; and frames at full precision, as CSV."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_object_dtype

from analysis.statistics.cost_to_match import NOT_REACHED
from analysis.statistics.formats import EMPTY, fixed, signed
from analysis.statistics.paired import Paired
from analysis.statistics.verdict import reading

_NUMBER = rf"[−+-]?[\d.,]+( ?[▲▼])?|{EMPTY}|{NOT_REACHED}"


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


def _zeros(density: float) -> str:
    """Of a model that is larger than the dense network, how much larger."""
    return fixed(1, 100)(1 - density) if density <= 1 else f"{density:.1f} x"


# Column of the comparison table: what a person reads above it, and how it is written.
COLUMNS: dict[str, tuple[str, Callable[..., str]]] = {
    "arm": ("Arm", str),
    "space": ("λ space", str),
    "seeds": ("Seeds", str),
    "retrained_test_objective": ("Test J, retrained", fixed(3)),
    "test_objective": ("Test J", fixed(3)),
    "objective": ("Validation J", fixed(3)),
    "delta_m": ("Δm (%)", fixed(1)),
    "delta_m_single": ("Δm against single-task (%)", fixed(1)),
    "density_single": ("Parameters (% of single-task)", fixed(1, 100)),
    "macs_ratio_single": ("MACs (% of single-task)", fixed(1, 100)),
    "sparsity_group": ("Group sparsity (%)", fixed(1, 100)),
    "density": ("Parameter sparsity (%)", _zeros),
    "sparsity_param": ("Of penalised weights (%)", fixed(1, 100)),
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
        unit: What the budget is counted in, for the heading of what exceeds it.
    """
    wanted = set(columns)
    if table["spent_trials"].notna().any():
        wanted.discard("passes")
    if table["space"].nunique() < 2:
        wanted.discard("space")
    if ((1 - table["density"] - table["sparsity_param"]).abs() < 1e-9).all():
        wanted.discard("sparsity_param")  # the same: all weights are penalised, or they alone are counted
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


def is_numeric(values: pd.Series) -> bool:
    """Whether a column of a printed table is to be aligned right."""
    return all(re.fullmatch(rf"({_NUMBER})( (s|min|h|x))?( \(.*\))?", str(value)) for value in values)


def markdown(table: pd.DataFrame) -> str:
    """Write a printed table as GitHub Markdown, numbers aligned right.

    >>> print(markdown(pd.DataFrame({"Arm": ["meta"], "J": ["1.50"]})), end="")
    | Arm | J |
    | :-- | --: |
    | meta | 1.50 |
    """
    cells = table.to_numpy(dtype=object).tolist()
    rules = ["--:" if is_numeric(table[name]) else ":--" for name in table]
    lines: list[list[Any]] = [list(table.columns), rules, *cells]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def write_csv(table: pd.DataFrame, file: Path) -> None:
    """Write all columns at full precision; λ and other nested values as JSON."""
    nested = table.copy()
    for name in filter(lambda name: is_object_dtype(table[name]), table.columns):
        nested[name] = table[name].map(
            lambda value: json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value
        )
    nested.to_csv(file, index=False, encoding="utf-8", lineterminator="\n")
