"""Where each arm's time went."""

from __future__ import annotations

import pandas as pd

from analysis.statistics.formats import duration, fixed
from analysis.statistics.trials import searched

PARTS = {
    "training_seconds": "Training",
    "evaluation_seconds": "Evaluation",
    "startup_seconds": "Start-up",
    "idle_seconds": "Idle",
    "searcher_seconds": "Searcher",
}


def cost_breakdown(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean seconds a seed by arm (the index) and part (the columns of `PARTS`); empty where not recorded.

    Training, evaluation and start-up are parts of the device time, from a trial's start to its release; idle is
    the rest of it, never below 0. The searcher runs in the driver, beside the device time.
    """
    known = rows[searched(rows) & rows["training_seconds"].notna()].copy()
    if known.empty:
        return pd.DataFrame(columns=list(PARTS), dtype=float)
    on_device = known[["training_seconds", "evaluation_seconds", "startup_seconds"]].fillna(0.0)
    known[on_device.columns] = on_device
    known["idle_seconds"] = (known["device_seconds"] - on_device.sum(axis=1)).clip(lower=0)
    return known.groupby("arm", sort=False)[list(PARTS)].mean().fillna(0.0)


def cost_table(breakdown: pd.DataFrame) -> pd.DataFrame:
    """The breakdown ready to be printed, with the searcher's share of the whole."""
    if breakdown.empty:
        return pd.DataFrame()
    total = breakdown.sum(axis=1)
    shown = {"Arm": breakdown.index.to_series()}
    shown |= {words: breakdown[name].map(duration) for name, words in PARTS.items()}
    shown |= {
        "Total a seed": total.map(duration),
        "Searcher (% of total)": (breakdown["searcher_seconds"] / total).map(fixed(1, 100)),
    }
    return pd.DataFrame(shown, dtype=object).reset_index(drop=True)
