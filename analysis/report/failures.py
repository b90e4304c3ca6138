"""What went wrong or was cut short."""

from __future__ import annotations

import pandas as pd

from analysis.statistics.trials import stopped

HAPPENED = "What happened"
SHOWN = 30  # lines on the page; trials.csv has all


def failures(rows: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """One line per failed or killed trial and per note on an arm and seed: Arm, Seed, Trial, What happened."""
    failed = trials[trials["status"].isin(["FAILED", "KILLED"]) & ~stopped(trials)]
    noted = rows[rows["note"].notna() & (rows["note"].astype(str) != "")]
    reasons = failed["error"].where(failed["error"] != "", failed["status"].str.lower())
    parts = [
        pd.DataFrame({"Arm": failed["arm"], "Seed": failed["seed"], "Trial": failed["index"], HAPPENED: reasons}),
        pd.DataFrame({"Arm": noted["arm"], "Seed": noted["seed"], "Trial": "all", HAPPENED: noted["note"]}),
    ]
    return pd.concat([part.astype(str) for part in parts], ignore_index=True)


def counts(rows: pd.DataFrame, trials: pd.DataFrame) -> str:
    """A sentence: how many trials failed, were stopped before their last step, or were interrupted."""
    early = stopped(trials)
    numbers = {
        "failed": int(((trials["status"] == "FAILED") & ~early).sum()),
        "stopped before their last step (recorded and scored, never selected over whole ones)": int(early.sum()),
        "interrupted": int(((trials["status"] == "KILLED") & ~early).sum()),
    }
    words = [f"{number} {what}" for what, number in numbers.items() if number]
    return f"Of {len(trials)} trials, {', '.join(words)}." if words else f"None of {len(trials)} trials failed."
