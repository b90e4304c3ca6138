"""Anytime curves, cost to match, Pareto fronts, and what figures make of frames."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.plots import anytime_arms_figure, anytime_figure, course_figure, lambda_figure, scatter_figure
from analysis.records.frames import rows as to_rows
from analysis.statistics.anytime import bands, common_grid, from_target_on, on_grid, with_seconds
from analysis.statistics.cost_to_match import NOT_REACHED, cost_to_match, match_table, trial_passes
from analysis.statistics.layers import lambda_course, lambda_study, layer_order, pattern
from analysis.statistics.pareto import REFERENCE_POINT, hypervolume, hypervolume_table, hypervolumes, pareto_front


def curve(arm, seed, points):
    return [
        {"arm": arm, "seed": seed, "passes": passes, "objective": j, "test_objective": j, "wall_seconds": 1.0}
        for passes, j in points
    ]


CURVES = pd.DataFrame(curve("meta", 0, [(200, 1.5)]) + curve("optuna", 0, [(100, 1.9), (300, 1.6), (800, 1.55)]))
EMPTY = CURVES.head(0)
NO_TRIALS = pd.DataFrame(columns=["arm", "seed", "status", "outcome", "method"])


def test_curves_are_steps_and_never_interpolated():
    table = on_grid(CURVES, "objective", "passes", np.array([0.0, 100.0, 299.0, 300.0, 900.0]))
    assert table["optuna", 0].tolist()[1:] == [1.9, 1.9, 1.6, 1.55]
    assert math.isnan(table["optuna", 0].iloc[0])
    assert table["meta", 0].tolist()[3:] == [1.5, 1.5]  # flat after its end


def test_a_band_begins_where_every_seed_has_a_result():
    curves = pd.DataFrame(curve("meta", 0, [(10, 2.0), (30, 1.0)]) + curve("meta", 1, [(20, 3.0)]))
    table = bands(on_grid(curves, "objective", "passes", common_grid(curves["passes"])))
    assert table[["x", "mean", "low", "high"]].to_numpy().tolist() == [[20, 2.5, 2, 3], [30, 2, 1, 3]]


def test_the_common_grid_holds_every_point_and_end():
    assert common_grid(CURVES["passes"], pd.Series([950.0, math.nan])).tolist() == [100, 200, 300, 800, 950]


def test_an_arm_with_a_single_result_is_on_the_figure():
    ends = pd.DataFrame({"arm": ["meta", "optuna"], "seed": 0, "passes": [200.0, 800.0]})
    labels = anytime_figure(CURVES, ends).axes[0].get_legend_handles_labels()[1]
    assert {"meta", "optuna"} <= set(labels)


@pytest.mark.parametrize(("longest", "unit"), [(90.0, "(s)"), (900.0, "(min)")])
def test_the_wall_clock_axis_counts_in_seconds_or_minutes(longest, unit):
    curves = CURVES.assign(seconds=[10.0, 10.0, 20.0, longest])
    axes = anytime_figure(curves, curves[["arm", "seed", "seconds"]], "seconds").axes[-1]
    assert unit in axes.get_xlabel()
    assert axes.get_xlim()[1] == pytest.approx(longest if unit == "(s)" else longest / 60, rel=0.2)


def test_seconds_are_those_the_arm_needs_by_itself():
    trials = pd.DataFrame({"arm": "optuna", "seed": 0, "index": [0, 1, 2], "cost/passes": [100.0, 200.0, 500.0]})
    trials["cost/wall_seconds"] = [10.0, 20.0, 50.0]
    rows = pd.DataFrame({"arm": ["optuna"], "seed": [0], "searcher_seconds": [3.0]})
    timed = with_seconds(CURVES, trials, rows)
    assert timed.loc[timed["arm"] == "optuna", "seconds"].tolist() == [11, 32, 83]
    assert timed.loc[timed["arm"] == "meta", "seconds"].tolist() == [1]  # no trials: what was recorded


def test_points_before_the_target_is_reached_are_left_out():
    trials = pd.DataFrame({"arm": "optuna", "seed": 0, "index": [0, 1, 2], "cost/passes": [100.0, 200.0, 500.0]})
    trials = trials.assign(density=[0.8, 0.5, 0.4], status="FINISHED", outcome="")
    optuna = CURVES[CURVES["arm"] == "optuna"]
    assert from_target_on(optuna, trials, 0.44)["passes"].tolist() == [300, 800]
    assert from_target_on(optuna, trials.assign(outcome="stopped"), 0.44).empty
    assert len(from_target_on(optuna, trials, None)) == 3


def test_cost_to_match_is_the_first_budget_at_or_below_the_others_final_value():
    costs = cost_to_match(CURVES).set_index(["arm", "other"])["spent"]
    assert costs["meta", "optuna"] == 200


def test_cost_to_match_is_censored_where_an_arm_never_gets_there():
    costs = cost_to_match(CURVES)
    assert math.isnan(costs.set_index(["arm", "other"])["spent"]["optuna", "meta"])
    table = match_table(costs, 100.0)
    assert list(table.iloc[0])[2:] == ["2.0", NOT_REACHED]


def test_a_seed_in_which_an_arm_failed_counts_as_not_reached():
    curves = pd.concat([CURVES, pd.DataFrame(curve("optuna", 1, [(100, 1.7)]))])
    costs = cost_to_match(curves)
    assert math.isnan(costs[(costs["arm"] == "meta") & (costs["seed"] == 1)]["spent"].item())


def test_the_median_cost_counts_censored_seeds_as_infinite():
    costs = pd.DataFrame({"arm": "meta", "other": "optuna", "seed": range(3), "spent": [100.0, math.nan, 300.0]})
    assert match_table(costs)["A reaches B's final J after (passes)"].tolist() == ["300 (2 of 3 seeds)"]
    costs.loc[0, "spent"] = math.nan
    assert match_table(costs).iloc[0, 2] == "not reached (1 of 3 seeds)"


def test_the_passes_of_one_trial_come_from_the_limit():
    rows = to_rows([{"arm": "meta", "seed": 0, "limit": 800}])
    assert trial_passes(rows, NO_TRIALS, {"budget": {"trials": 8}}) == 100


POINTS = pd.DataFrame({"delta_m": [-10.0, -5.0, -20.0, -6.0], "density": [0.2, 0.5, 0.3, 0.6]})


def test_the_front_holds_what_no_other_point_beats():
    assert pareto_front(POINTS).index.tolist() == [0, 1]


def test_hypervolume_is_the_area_of_a_worked_example():
    # From density .2 to .5 the best is -10, from .5 to 1 it is -5: 40 · .3 + 45 · .5, above Δm = -50.
    assert hypervolume(POINTS, (-50.0, 1.0)) == pytest.approx(34.5)
    assert hypervolume(POINTS.assign(delta_m=-60.0)) == 0


def test_dense_alone_has_no_hypervolume():
    assert hypervolume(pd.DataFrame({"delta_m": [0.0], "density": [1.0]})) == 0


finite = st.tuples(st.floats(-60, 20), st.floats(0, 1))


@given(st.lists(finite, max_size=12))
def test_hypervolume_is_the_share_of_a_fine_grid_that_some_point_beats(values):
    points = pd.DataFrame(values, columns=["delta_m", "density"], dtype=float)
    lowest, densest = REFERENCE_POINT
    deltas = lowest + (np.arange(300) + 0.5) / 300 * (20 - lowest)
    densities = (np.arange(300) + 0.5) / 300 * densest
    beaten = np.zeros((300, 300), dtype=bool)
    for delta, density in values:
        beaten |= (deltas[:, None] <= delta) & (densities[None, :] >= density)
    area = beaten.mean() * (20 - lowest) * densest
    assert hypervolume(points) == pytest.approx(area, abs=0.6)


def test_hypervolumes_are_by_seed_and_of_whole_trials_of_searched_arms():
    trials = pd.DataFrame(
        {
            "arm": ["dense", "meta", "meta", "optuna"],
            "seed": [0, 0, 1, 0],
            "status": "FINISHED",
            "outcome": ["", "", "", "stopped"],
            "delta_m": [0.0, -10.0, -20.0, 0.0],
            "density": [0.9, 0.5, 0.5, 0.1],
        }
    )
    volumes = hypervolumes(trials)
    assert volumes["volume"].tolist() == [20, 15]
    assert hypervolume_table(volumes)["Hypervolume (% × density)"].tolist() == ["17.5"]


def test_lambda_over_training_is_linear_between_knots_and_a_geometric_mean_over_seeds():
    courses = [[{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 2.0}], [{"a": 4.0, "b": 0.0}, {"a": 4.0, "b": 0.0}]]
    records = [{"arm": "meta", "seed": seed, "lambda": course} for seed, course in enumerate(courses)]
    course = lambda_course(to_rows([*records, {"arm": "optuna", "seed": 0, "lambda": {"a": 1.0}}]))
    assert list(course) == ["meta"]
    assert course["meta"].loc["a", [0.0, 50.0, 100.0]].tolist() == pytest.approx([2, math.sqrt(8), math.sqrt(12)])
    assert course["meta"].loc["b"].tolist() == pytest.approx([2] * 41)  # λ = 0 is left out


def test_layers_keep_the_order_of_the_network():
    rows = to_rows([{"arm": "meta", "seed": 0, "lambda": [{"stem": 1.0, "block": 1.0}]}])
    trials = pd.DataFrame({"arm": ["meta"], "sparsity/layer/block": [0.5], "sparsity/layer/stem": [0.1]})
    assert layer_order(rows) == ["stem", "block"]
    table = pattern(trials, pd.Series([True]), layer_order(rows))
    assert table["meta"].to_dict() == {"stem": 10, "block": 50}


def test_the_study_takes_whole_trials_of_the_grid_in_order_of_lambda():
    trials = pd.DataFrame({"arm": ["grid", "grid", "grid", "random"], "outcome": ["", "", "stopped", ""]})
    trials = trials.assign(
        **{"lambda/a": [0.2, 0.1, 0.3, 0.4], "lambda/b": [0.2, 0.1, 0.3, 0.1], "status": "FINISHED"}
    )
    assert lambda_study(trials)["lambda_"].tolist() == pytest.approx([0.1, 0.2])
    assert lambda_study(trials[trials["arm"] == "random"]).empty


def test_figures_take_frames_without_points():
    assert anytime_figure(EMPTY, EMPTY[["arm", "seed", "passes"]]).axes
    assert anytime_arms_figure(CURVES, CURVES, "objective") is None  # one seed has no span
    trials = NO_TRIALS.assign(**{"test/objective": [], "density": []})
    assert scatter_figure(trials, pd.Series(dtype=bool)).axes
    rows = to_rows([{"arm": "meta", "seed": 0}])
    assert lambda_figure(rows) is None and course_figure(rows) is None
