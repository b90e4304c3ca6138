"""What the terminal shows, at 80 columns."""

import io
import math

import pytest
from rich.console import Console

from ms_automl.callbacks.screen import Screen, comparison_table, notes, progress_table
from ms_automl.comparison.judge import Judge
from ms_automl.comparison.ledger import Ledger
from ms_automl.comparison.run import Run, Trial
from ms_automl.comparison.state import Comparison
from ms_automl.meta import Objective
from ms_automl.samplers.arms import ARMS


def row(arm, **changed):
    values = {
        "arm": arm, "seed": 17, "status": "ok", "objective": 12.3456, "test_objective": 11.2341,
        "delta_m": -123.45, "density": 0.0, "trials": 128,
        "spent": 12_345.0, "device_seconds": 12_345.6, "note": "",
    }  # fmt: skip
    return values | changed


def text_of(what, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(what)
    return console.file.getvalue()


def test_the_table_shows_every_number_of_every_arm_whole_at_80_columns():
    rows = [row(arm, note="1 trial failed; target sparsity 0.44 not reached") for arm in ARMS]
    text = text_of(comparison_table(rows, 100.0))
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    for arm in ARMS:
        (line,) = [line for line in text.splitlines() if line.split()[:1] == [arm]]
        assert line.split()[1:] == ["17", "12.346", "11.234", "-123.5", "100", "128", "123x", "12346"]


def test_an_arm_without_a_result_has_dashes():
    values = row("meta", status="failed", objective=None, test_objective=None, delta_m=None, density=None)
    (line,) = [line for line in text_of(comparison_table([values], 100.0)).splitlines() if "meta" in line]
    assert line.split()[2:6] == ["-", "-", "-", "-"]


def test_only_rows_with_something_to_say_have_a_note():
    rows = [row("dense"), row("meta", note="1 trial failed"), row("random", status="failed")]
    assert notes(rows) == ["meta-17: 1 trial failed", "random-17: failed"]


@pytest.fixture
def comparison(tmp_path):
    runs = [
        Run(arm, 0, "per_layer", math.inf if arm == "dense" else 400.0, ARMS[arm].winners, 4, ARMS[arm].role)
        for arm in ARMS
    ]
    return Comparison(Judge(Objective(), []), runs, Ledger({}))


def test_the_progress_table_can_be_drawn_at_any_moment(comparison):
    assert "not known yet" in text_of(progress_table(comparison))
    comparison.register(Trial("t", "dense-0", 0, "dense", {}, {}))
    comparison.started("t")
    comparison.trials["t"].metrics = {"step": 40.0}
    text = text_of(progress_table(comparison))
    assert "step 40" in text and "…" not in text
    assert sum("waiting" in line for line in text.splitlines()) == len(ARMS) - 1


def test_an_error_is_printed_as_it_is_whatever_brackets_it_holds(comparison):
    console = Console(file=io.StringIO(), width=80)
    error = "target has shape [b, c], expected [/tmp/x]" + " and more" * 20
    run = comparison.runs["meta-0"]
    Screen(console).trial_ended(run, Trial("t", "meta-0", 0, "meta", {}, {}, status="FAILED", error=error))
    assert console.file.getvalue() == f"meta-0/00 failed: {error}\n"
