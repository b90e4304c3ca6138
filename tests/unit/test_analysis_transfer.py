"""The transfer stage's numbers: areas, paired gains, and sentences no bolder than they allow."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis.plots import transfer_figure
from analysis.records import frames
from analysis.statistics.transfer import area, gain, sentences, start_name, transfer_table

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
    labels = np.array([16, 64, 256])  # two octaves each
    assert area(labels, np.array([0.2, 0.4, 0.4])) == pytest.approx((0.3 * 2 + 0.4 * 2) / 4)
    assert area(labels[:1], np.array([0.3])) == 0.3


def test_a_gain_is_over_what_both_did_with_the_same_labels_seed_and_draw():
    meta, dense = (0.2, None, 0.4), (0.1, 0.9, 0.3)
    found = gain(frame({META: [meta] * 2, DENSE: [dense] * 2}), "edges", "frozen", META, DENSE, 1.0)
    assert (found.mean, found.pairs) == (pytest.approx(0.1), 2)
    record = content({META: [(0.5,)] * 5, DENSE: [(0.5,)] * 5}, shots=(16,), draws=3)
    record["rows"] = [row for row in record["rows"] if row["arm"] == "dense" or row["draw"] == 0]
    found = gain(frames.transfer(record), "edges", "frozen", META, DENSE, 1.0)
    assert (found.mean, found.pairs) == (0.0, 5)  # dense's other draws are .01 and .02 better


def test_labels_that_only_some_have_take_no_verdict_away():
    both = content(FIVE)
    both["rows"] += content({("optuna", "trained"): [(0.4,)] * 5, DENSE: [(0.3,)] * 5}, shots=(32,))["rows"]
    assert sentences(frames.transfer(both)) == sentences(frame(FIVE))
    assert transfer_figure(frames.transfer(both), "edges") is not None


FIVE = {
    META: [(v, v, v) for v in (0.50, 0.52, 0.54, 0.51, 0.53)],
    DENSE: [(v, v, v) for v in (0.48, 0.51, 0.52, 0.50, 0.50)],
    NEW: [(v, v, v) for v in (0.1, 0.1, 0.1, 0.1, 0.1)],
}


def test_a_gain_is_paired_by_seed_with_students_interval():
    found = gain(frame(FIVE), "edges", "frozen", META, DENSE, 1.0)
    differences = np.array([0.02, 0.01, 0.02, 0.01, 0.03])
    half = 2.7764451 * differences.std(ddof=1) / math.sqrt(5)
    assert (found.mean, found.low, found.high) == pytest.approx(
        (differences.mean(), differences.mean() - half, differences.mean() + half)
    )
    assert (found.pairs, found.unit) == (5, "seed")
    assert gain(frame(FIVE), "edges", "frozen", META, DENSE, -1.0).mean == pytest.approx(-0.018)


def test_draws_are_averaged_within_a_seed_and_are_pairs_only_where_there_is_one_seed():
    several = gain(frame(FIVE, draws=3), "edges", "frozen", META, DENSE, 1.0)
    assert (several.pairs, several.unit) == (5, "seed")
    one = frame({META: FIVE[META][:1], DENSE: FIVE[DENSE][:1]}, draws=3)
    assert (gain(one, "edges", "frozen", META, DENSE, 1.0).pairs) == 3
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
        "16 labels", "64 labels", "all labels", "Better than dense by", "Old tasks, Δm (%)", "Passes",
    ]  # fmt: skip
    assert table.loc["meta", "16 labels"] == "0.520"
    assert table.loc["meta", "Better than dense by"].startswith("+0.018 (+0.008 to +0.028)")
    assert table.loc["dense", "Better than dense by"] == "–"
    assert table.loc["meta", "Old tasks, Δm (%)"] == "−2.0"


def test_failed_adaptations_and_a_stage_that_was_not_run_say_nothing():
    record = content(FIVE)
    for row in record["rows"]:
        row["status"] = "FAILED"
    for nothing in (frames.transfer(record), frames.transfer(None), pd.DataFrame()):
        assert sentences(nothing) == []
    assert transfer_figure(frames.transfer(None), "edges") is None
    assert transfer_table(frames.transfer(record), "edges", "frozen").empty


def test_starts_have_names_that_say_what_they_are():
    assert start_name("dense", "random", "frozen") == "new dense trunk"
    assert start_name("dense", "random", "finetuned") == "single task from scratch"


def test_the_figure_names_its_axes_with_units_and_every_start_once():
    figure = transfer_figure(frame(FIVE), "edges")
    above, below = figure.axes
    assert above.get_ylabel() == "Test F1\nhigher is better"
    assert (above.get_xlabel(), below.get_xlabel()) == ("Labelled samples", "Step")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "meta", "dense", "meta's zeros, new weights",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "unit", ["F1", "share of all the images", "share of the pixels that have a label of their own"]
)
def test_the_names_of_two_axes_keep_off_each_other(unit):
    tasks = {"edges": {"metric": "f1", "direction": "max", "unit": unit}}
    figure = transfer_figure(frame(FIVE, tasks=tasks), "edges")
    figure.draw_without_rendering()
    above, below = (ax.yaxis.label.get_window_extent() for ax in figure.axes)
    assert below.y1 < above.y0 and above.y1 <= figure.bbox.y1


def test_a_report_without_a_valid_label_is_a_gap_in_the_curve_and_no_error():
    record = content({META: FIVE[META]})
    for row in record["rows"]:
        row["curve"][0][1] = None
    lower = transfer_figure(frames.transfer(record), "edges").axes[1]
    assert np.isnan(lower.lines[0].get_ydata()[0]) and lower.lines[0].get_ydata()[1] == 0.2


def test_an_arm_that_has_few_labels_yet_takes_no_curve_away():
    both = content({META: FIVE[META], DENSE: FIVE[DENSE]})
    both["rows"] += content({("optuna", "trained"): [(0.4,)] * 5}, shots=(16,))["rows"]
    for row in both["rows"]:
        row["curve"] = [[4.0, 0.5 if row["shots"] is None else 0.1]]
    lower = transfer_figure(frames.transfer(both), "edges").axes[1]
    assert sorted(list(line.get_ydata()) for line in lower.lines) == [[], [0.5], [0.5]]


def test_bands_belong_to_the_learned_arm_and_dense():
    values = {META: FIVE[META], DENSE: FIVE[DENSE], ("optuna", "trained"): FIVE[META]}
    assert len(transfer_figure(frame(values), "edges").axes[0].collections) == 2
