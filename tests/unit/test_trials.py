"""The published trials: they are those of the rows, and the page's script compares a search on them."""

import contextlib
import importlib
import io
import re
import sys
from pathlib import Path

import pandas as pd
import pytest

import ms_automl.data
from ms_automl.data.trials import published
from ms_automl.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def publish():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("publish")
        for name in ("publish", "rows"):
            del sys.modules[name]


def test_every_data_set_with_rows_is_published(publish):
    assert published() == publish.data_sets()


@pytest.mark.parametrize("name", published())
def test_published_trials_are_those_of_the_rows(publish, name, tmp_path):
    path = tmp_path / "again.parquet"
    publish.trials_of(name).to_parquet(path, index=False)
    again, found = pd.read_parquet(path), ms_automl.data.trials(name)
    told = f"{name} differs from the rows: python benchmarks/publish.py"
    assert list(again) == list(found) and len(again) == len(found), told
    nested = ["curve", "zeros_by_layer"]
    pd.testing.assert_frame_equal(again.drop(columns=nested), found.drop(columns=nested), obj=told)
    assert again[nested].astype(str).equals(found[nested].astype(str)), told


def test_j_of_any_price_follows_from_the_columns():
    trials = ms_automl.data.trials("rooms")
    meta = trials[(trials["arm"] == "meta") & (trials["source"] == "first comparison") & (trials["seed"] < 1000)]
    by_price = {price: meta[meta["objective"] == kind] for price, kind in ((1, "tradeoff"), (4, "tradeoff:4"))}
    found = {price: (rows["loss_test"] + price * rows["density"]).mean() for price, rows in by_price.items()}
    assert found == pytest.approx({1: 1.292, 4: 1.592}, abs=0.001)  # as benchmarks/HISTORY.md has them
    dense = trials[(trials["arm"] == "dense") & (trials["changes"] == "")]
    assert (dense["loss"] == 1).all() and (dense["density"] == 1).all()


def test_the_pages_script_of_thirty_lines_compares_a_search_on_them():
    text = (ROOT / "docs" / "trials.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, flags=re.S)[1]
    assert len([line for line in code.splitlines() if line]) <= 30
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        exec(compile(code, "docs/trials.md", "exec"), {"__name__": "page"})
    lines = shown.getvalue().splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"seed {seed}" for seed in range(5)]
    for line in lines:
        mine, best, meta = map(float, re.findall(r"\d\.\d{3}", line))
        assert best <= mine < 2 and meta < best


def test_a_data_set_without_trials_is_refused_with_those_that_have_some():
    with pytest.raises(ConfigError, match=r"unknown data set with published trials 'room': did you mean 'rooms'"):
        ms_automl.data.trials("room")
