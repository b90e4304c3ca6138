"""Trials that were run and published: how ways of choosing λ did, to be looked at without training anything."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from ms_automl.errors import unknown_name

if TYPE_CHECKING:
    import pandas as pd

FOLDER = resources.files("ms_automl.data") / "published"


def published() -> list[str]:
    """Data sets whose trials are here."""
    return sorted(
        entry.name.removesuffix(".parquet") for entry in FOLDER.iterdir() if entry.name.endswith(".parquet")
    )


def trials(dataset: str) -> pd.DataFrame:
    """Every trial that was run on a data set, a row each (docs/trials.md says what the columns are).

    J of a trial at any price is ``loss + price * density``, on the test split ``loss_test + price * density``.

    Args:
        dataset: ``rooms`` or another of :func:`published`.

    Raises:
        ConfigError: for a data set without trials; it lists those that have some.
    """
    import pandas as pd

    if dataset not in published():
        raise unknown_name("data set with published trials", dataset, published())
    with resources.as_file(FOLDER / f"{dataset}.parquet") as path:
        return pd.read_parquet(path)
