"""The transfer stage's numbers: areas, paired gains, and sentences no bolder than they allow."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis import frames
from analysis.plots import transfer_figure
from analysis.transfer import areas, gain, sentences, start_name, transfer_table

META, DENSE, NEW = ("meta", "trained"), ("dense", "trained"), ("meta", "random")


def content(values, shots=(16, 64, None), tasks=None, mode="frozen", draws=1):
    """A record with test values by (arm, weights), seed and number of labels; draws add 0, .01, …"""
    rows = []
    for (arm, weights), by_seed in values.items():
        for seed, found in enumerate(by_seed):
            for count, value in zip(shots, found, strict=True):
                for draw in range(draws):
                    test = None if value is None else value + 0.01 * draw
                    metrics = {"test/edges/f1": test, "labels": float(count or 256), "old/delta_m": -2.0}
                    row = {"arm": arm, "seed": seed, "weights": weights, "mode": mode, "task": "edges"}
                    row |= {"shots": count, "draw": draw, "status": "FINISHED", "error": None, "passes": 100.0}
                    rows.append(row | {"metrics": metrics, "curve": [[4.0, 0.1], [8.0, 0.2]]})
    return {"tasks": tasks or {"edges": {"metric": "f1", "direction": "max", "unit": "F1"}}, "rows": rows}


def frame(values, **more):
    return frames.transfer(content(values, **more))


def test_an_area_is_the_mean_over_the_logarithm_of_the_labels():
    over = areas(frame({META: [(0.2, 0.4, 0.4)]}))
    assert over["value"].tolist() == [
        pytest.approx((0.3 * 2 + 0.4 * 2) / 4)
    ]  # 16 to 64 and 64 to 256: 2 octaves each
    assert areas(frame({META: [(0.3,)]}, shots=(16,)))["value"].tolist() == [0.3]


def test_an_area_needs_every_number_of_labels():
    found = areas(frame({META: [(0.2, None, 0.4)], DENSE: [(0.2, 0.3, 0.4)]}))
    assert found["arm"].tolist() == ["dense"]


FIVE = {
    META: [(v, v, v) for v in (0.50, 0.52, 0.54, 0.51, 0.53)],
    DENSE: [(v, v, v) for v in (0.48, 0.51, 0.52, 0.50, 0.50)],
    NEW: [(v, v, v) for v in (0.1, 0.1, 0.1, 0.1, 0.1)],
}


def test_a_gain_is_paired_by_seed_with_students_interval():
    over = areas(frame(FIVE))
    found = gain(over, "edges", "frozen", META, DENSE, 1.0)
    differences = np.array([0.02, 0.01, 0.02, 0.01, 0.03])
    half = 2.7764451 * differences.std(ddof=1) / math.sqrt(5)
    assert (found.mean, found.low, found.high) == pytest.approx(
        (differences.mean(), differences.mean() - half, differences.mean() + half)
    )
    assert (found.pairs, found.unit) == (5, "seeds")
    assert gain(over, "edges", "frozen", META, DENSE, -1.0).mean == pytest.approx(-0.018)


def test_draws_are_averaged_within_a_seed_and_are_pairs_only_where_there_is_one_seed():
    several = gain(areas(frame(FIVE, draws=3)), "edges", "frozen", META, DENSE, 1.0)
    assert (several.pairs, several.unit) == (5, "seeds")
    one = frame({META: FIVE[META][:1], DENSE: FIVE[DENSE][:1]}, draws=3)
    assert (gain(areas(one), "edges", "frozen", META, DENSE, 1.0).pairs) == 3
    assert "3 draws): one model each, which claims nothing" in sentences(one)[0]


@pytest.mark.parametrize(
    ("shift", "seeds", "words"),
    [
        (0.0, 5, "it helped"),
        (-0.1, 5, "it did harm"),
        (-0.018, 5, "not distinguishable"),
        (0.0, 4, "fewer than 5 seeds claim nothing"),
    ],
)
def test_the_sentence_says_what_the_interval_allows(shift, seeds, words):
    moved = {META: [tuple(v + shift for v in row) for row in FIVE[META][:seeds]], DENSE: FIVE[DENSE][:seeds]}
    (sentence,) = sentences(frame(moved))
    assert words in sentence
    assert sentence.startswith("edges, frozen: meta against dense")


def test_where_lower_is_better_a_gain_is_still_above_zero():
    lower = {"edges": {"metric": "f1", "direction": "min", "unit": "m"}}
    assert "it did harm" in sentences(frame(FIVE, tasks=lower))[0]


def test_a_table_has_a_line_for_each_start_with_its_gain_over_dense():
    table = transfer_table(frame(FIVE), "edges", "frozen").set_index("Start")
    assert list(table.index) == ["meta", "meta's zeros, new weights", "dense"]
    assert list(table.columns) == [
        "16 labels", "64 labels", "all labels", "Area", "Better than dense by", "Old tasks, Δm (%)", "Passes",
    ]  # fmt: skip
    assert table.loc["meta", "16 labels"] == "0.520"
    assert table.loc["meta", "Better than dense by"].startswith("+0.018 (+0.008 to +0.028)")
    assert table.loc["dense", "Better than dense by"] == "–"
    assert table.loc["meta", "Old tasks, Δm (%)"] == "−2.0"


def test_failed_uptakes_and_a_stage_that_was_not_run_say_nothing():
    record = content(FIVE)
    for row in record["rows"]:
        row["status"] = "FAILED"
    for nothing in (frames.transfer(record), frames.transfer(None), pd.DataFrame()):
        assert sentences(nothing) == []
    assert transfer_figure(frames.transfer(None), "edges") is None
    assert transfer_table(frames.transfer(record), "edges", "frozen").empty


def test_starts_have_names_that_say_what_they_are():
    assert start_name("dense", "random", "frozen") == "random dense trunk"
    assert start_name("dense", "random", "finetuned") == "single task from scratch"


def test_the_figure_names_its_axes_with_units_and_every_start_once():
    figure = transfer_figure(frame(FIVE), "edges")
    above, below = figure.axes
    assert above.get_ylabel() == "Test F1\nhigher is better"
    assert (above.get_xlabel(), below.get_xlabel()) == ("Labelled samples", "Step")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "meta", "dense", "meta's zeros, new weights",
    ]  # fmt: skip
