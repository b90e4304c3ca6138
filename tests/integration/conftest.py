"""A comparison that several files of tests look at: run once, by whichever process comes first."""

import os

import pytest

from ms_automl.storage.files import alone
from tests.integration.command import TINY, Ended, finished

STRONG = ["lambda.low=100", "lambda.high=1000"]
"""Bounds of λ that zero nearly everything in the few steps of a test."""


@pytest.fixture(scope="session")
def two_seeds(tmp_path_factory):
    """Of `random` and `meta`; tests leave its own records as they are."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "two_seeds"
    folder.mkdir(exist_ok=True)
    with alone(folder, waits=True):
        if not (folder / "shown").exists():
            options = ("--arms", "random,meta", "--seeds", "2")
            search = finished(folder, *options, settings=[*TINY, *STRONG, "budget.trials=2"])
            assert search.status == 0, search.shown + search.errors
            (folder / "shown").write_text(search.shown)
    return Ended(folder)
