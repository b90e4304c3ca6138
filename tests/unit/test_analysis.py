"""The pure part of the analysis, on frames made by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis import page
from analysis.match import NOT_REACHED, cost_to_match, match_table, trial_passes
from analysis.paired import interval, paired, reading, rivals, verdict
from analysis.plots import anytime_figure, lambda_figure
from analysis.records import _rows
from analysis.store import reachable_uri, without_password
from analysis.tables import comparison_table, display, interquartile_mean, markdown, paired_table, write_csv
from ms_automl.errors import TrackingError


def rows_of(meta, optuna, status="ok"):
    records = [
        {"arm": arm, "seed": seed, "space": "scalar", "status": status, "objective": j, "test_objective": j}
        | {"sparsity_group": 0.5, "limit_passes": 800, "trials": 1, "failed_trials": 0, "passes": 100}
        for arm, values in {"meta": meta, "optuna": optuna}.items()
        for seed, j in enumerate(values)
    ]
    return _rows(records)


def curve(arm, seed, points):
    return [
        {"arm": arm, "seed": seed, "passes": passes, "objective": j, "test_objective": j, "wall_seconds": 1.0}
        for passes, j in points
    ]


CURVES = pd.DataFrame(curve("meta", 0, [(200, 1.5)]) + curve("optuna", 0, [(100, 1.9), (300, 1.6), (800, 1.55)]))


def test_cost_to_match_is_the_first_budget_at_or_below_the_others_final_value():
    costs = cost_to_match(CURVES).set_index(["arm", "other"])["passes"]
    assert costs["meta", "optuna"] == 200


def test_cost_to_match_is_censored_where_an_arm_never_gets_there():
    costs = cost_to_match(CURVES)
    assert math.isnan(costs.set_index(["arm", "other"])["passes"]["optuna", "meta"])
    table = match_table(costs, 100.0)
    assert list(table.iloc[0])[2:] == ["2.0", NOT_REACHED]


def test_a_seed_in_which_an_arm_failed_counts_as_not_reached():
    curves = pd.concat([CURVES, pd.DataFrame(curve("optuna", 1, [(100, 1.7)]))])
    costs = cost_to_match(curves)
    assert math.isnan(costs[(costs["arm"] == "meta") & (costs["seed"] == 1)]["passes"].item())


def test_the_passes_of_one_trial_come_from_the_limit():
    assert trial_passes(rows_of([1.0], [1.0]), pd.DataFrame(), {"budget": {"trials": 8}}) == 100


def test_one_seed_claims_nothing():
    result = paired(rows_of([1.4], [1.6]), "meta", "optuna", "test_objective")
    assert verdict(result).startswith("One seed claims nothing.")


def test_two_to_four_seeds_are_a_hint_at_most():
    result = paired(rows_of([1.4, 1.41, 1.4], [1.6, 1.6, 1.61]), "meta", "optuna", "test_objective")
    assert verdict(result).startswith("A hint that meta is better.")
    assert "A claim needs 5 seeds" in verdict(result)


@pytest.mark.parametrize(
    ("shift", "spread", "words"),
    [
        (-0.1, 0.01, "meta is better"),
        (0.1, 0.01, "optuna is better"),
        (0.0, 0.01, "meta is no worse (margin 0.02)"),
        (0.0, 0.2, "no difference shown"),
    ],
)
def test_with_five_seeds_the_reading_follows_the_interval(shift, spread, words):
    meta = [1.5 + shift + spread * step for step in (-1, -0.5, 0, 0.5, 1)]
    assert reading(paired(rows_of(meta, [1.5] * 5), "meta", "optuna", "objective")) == words


def test_seeds_without_a_valid_result_in_both_are_left_out_and_counted():
    result = paired(rows_of([1.4, math.nan, 1.5], [1.5, 1.6, 1.7]), "meta", "optuna", "objective")
    assert result.seeds == (0, 2)
    assert result.left_out == 1


def test_partial_results_and_results_below_the_target_do_not_count():
    assert paired(rows_of([1.4], [1.5], "partial"), "meta", "optuna", "objective").seeds == ()
    assert paired(rows_of([1.4], [1.5]), "meta", "optuna", "objective", target=0.6).seeds == ()


def test_the_interval_is_students():
    low, high = interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert (low, high) == pytest.approx((3 - 1.96324, 3 + 1.96324), abs=1e-4)
    assert all(math.isnan(bound) for bound in interval(np.array([1.0])))


def test_the_rivals_are_fixed_beforehand():
    assert rivals(rows_of([1.0], [1.0])) == ("meta", "optuna")
    assert rivals(rows_of([1.0], [])) is None


def test_the_table_is_ordered_by_test_j_and_leaves_out_empty_columns():
    table = comparison_table(rows_of([1.6, 1.6], [1.5, 1.5]), 50.0)
    assert list(table["arm"]) == ["optuna", "meta"]
    assert list(table["spent"]) == [2.0, 2.0]
    assert "Latency (% of dense)" not in display(table)


def test_the_interquartile_mean_ignores_both_ends():
    assert interquartile_mean(pd.Series([0.0, 2.0, 4.0, 100.0])) == 3
    assert math.isnan(interquartile_mean(pd.Series([1.0, 2.0, 3.0])))


def test_a_single_seed_has_no_paired_table():
    assert paired_table(rows_of([1.4], [1.5])).empty


def test_markdown_aligns_numbers_right_and_escapes_bars():
    lines = markdown(pd.DataFrame({"Arm": ["a|b"], "J": ["−1.5"]})).splitlines()
    assert lines == ["| Arm | J |", "| :-- | --: |", "| a\\|b | −1.5 |"]


def test_csv_keeps_nested_lambda_as_json(tmp_path):
    write_csv(pd.DataFrame({"lambda": [{"stem": 0.1}]}), tmp_path / "table.csv")
    assert '"{""stem"": 0.1}"' in (tmp_path / "table.csv").read_text()


def test_html_is_escaped():
    assert "<script>" not in page.table(pd.DataFrame({"Error": ["<script>"]}))


def test_figures_take_frames_without_points():
    empty = CURVES.head(0)
    assert anytime_figure(empty, empty[["arm", "seed", "passes"]]).axes
    assert lambda_figure(rows_of([1.0], [1.0])) is None


def test_a_missing_store_is_named_and_not_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_URI"):
        reachable_uri(None)
    assert not list(tmp_path.iterdir())


def test_a_silent_server_is_an_error_without_its_password():
    with pytest.raises(TrackingError, match=r"http://127\.0\.0\.1:9 does not answer"):
        reachable_uri("http://me:secret@127.0.0.1:9")
    assert without_password("http://host:5000") == "http://host:5000"
