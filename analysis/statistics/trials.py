"""Which trials count as results, and which one an arm selected."""

from __future__ import annotations

import pandas as pd

from analysis.statistics.arms import FREE


def stopped(trials: pd.DataFrame) -> pd.Series:
    """Whether a trial was stopped before its last step, by its budget or at a rung."""
    return trials["outcome"] == "stopped"


def full_fidelity(trials: pd.DataFrame) -> pd.Series:
    """Whether a trial ran to its last step: only such results are compared with one another."""
    return (trials["status"] == "FINISHED") & ~stopped(trials)


def searched(frame: pd.DataFrame) -> pd.Series:
    """Whether a line belongs to an arm that is compared, as those are not whose cost is charged to nobody."""
    return ~frame["arm"].isin(FREE)


def selected(rows: pd.DataFrame, trials: pd.DataFrame) -> pd.Series:
    """Whether a trial is the one its arm and seed selected, by the index of `trials`.

    It is the one the row names; records that name none give the finished trial nearest to the row's J.
    """
    chosen = pd.Series(False, index=trials.index)
    if "val/objective" not in trials:
        return chosen
    valid = trials[(trials["status"] != "FAILED") & trials["val/objective"].notna()]
    by_run = rows.set_index(["arm", "seed"])
    for key, group in valid.groupby(["arm", "seed"]):
        if key not in by_run.index:
            continue
        row = by_run.loc[[key]].iloc[0]
        named = group[group["index"] == _index(row["selected_trial"])]
        finished = group[full_fidelity(group)]
        if len(named):
            chosen[named.index[0]] = True
        elif pd.notna(row["objective"]) and len(finished):
            chosen[(finished["val/objective"] - row["objective"]).abs().idxmin()] = True
    return chosen


def _index(name: object) -> int:
    """The number in a trial's name `<arm>-<seed>/<index>`; -1 where there is no name."""
    number = name.rpartition("/")[2] if isinstance(name, str) else ""
    return int(number) if number.isdigit() else -1


def layer_columns(trials: pd.DataFrame, prefix: str) -> dict[str, str]:
    """Layer by column, for the columns `<prefix>/<layer>` in the order of the network.

    >>> layer_columns(pd.DataFrame(columns=["lambda/b", "lambda/a", "x"]), "lambda")
    {'lambda/b': 'b', 'lambda/a': 'a'}
    """
    return {name: name.removeprefix(f"{prefix}/") for name in trials.columns if name.startswith(f"{prefix}/")}
