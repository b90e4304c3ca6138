"""The winner's curse: by how much the J that selected a model flatters it."""

from __future__ import annotations

import math

import pandas as pd

from analysis.statistics.arms import REFERENCE
from analysis.statistics.formats import EMPTY, fixed, signed
from analysis.statistics.intervals import interval
from analysis.statistics.trials import full_fidelity


def optimism(rows: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Validation J of the selected model minus its test J and minus that of its retrainings, per arm and seed.

    Negative where selection flatters. The best of many by validation is partly the luckiest on it, more so the
    more trials there were. The two splits may differ in difficulty as well, so `all_trials` gives the same
    difference, validation minus test, over all full-fidelity trials of the arm and seed: what is beyond it is the
    curse.

    Returns:
        Columns arm, seed, trials, test, retrained, all_trials; ratios as J is.
    """
    chosen = rows[(rows["status"] == "ok") & (rows["arm"] != REFERENCE)]
    frame = pd.DataFrame(
        {
            "arm": chosen["arm"],
            "seed": chosen["seed"],
            "trials": chosen["trials"],
            "test": chosen["objective"] - chosen["test_objective"],
            "retrained": chosen["objective"] - chosen["retrained_test_objective"],
        }
    )
    if {"val/objective", "test/objective"} <= set(trials.columns):
        whole = trials[full_fidelity(trials)]
        gap = (whole["val/objective"] - whole["test/objective"]).groupby([whole["arm"], whole["seed"]]).mean()
        frame["all_trials"] = gap.reindex(pd.MultiIndex.from_frame(frame[["arm", "seed"]])).to_numpy()
    else:
        frame["all_trials"] = math.nan
    return frame


def curse_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One line per arm from `optimism`: means over seeds with 95 % intervals; empty where no test J is."""
    if frame["test"].isna().all():
        return pd.DataFrame()
    records = []
    for arm, group in frame.groupby("arm", sort=False):
        record = {
            "Arm": str(arm),
            "Trials a seed": fixed(1)(group["trials"].mean()),
            "Validation − test J, all trials": signed(float(group["all_trials"].mean())),
            "Validation − test J, selected": _with_interval(group["test"]),
        }
        if frame["retrained"].notna().any():
            record["Validation J − retrained test J"] = _with_interval(group["retrained"])
        records.append(record)
    return pd.DataFrame.from_records(records)


def _with_interval(values: pd.Series) -> str:
    known = values.dropna().to_numpy(dtype=float)
    if not len(known):
        return EMPTY
    low, high = interval(known)
    return signed(float(known.mean())) + ("" if math.isnan(low) else f" ({signed(low)} to {signed(high)})")
