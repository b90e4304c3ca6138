"""The tables and the page, on frames made by hand."""

import math

import pandas as pd
import pytest

from analysis.plots.style import style
from analysis.records.frames import rows as to_rows
from analysis.records.store import reachable_uri, without_password
from analysis.report.failures import counts, failures
from analysis.report.tables import COST, QUALITY, display, is_numeric, markdown, write_csv
from analysis.statistics.arms import ordered
from analysis.statistics.costs import cost_breakdown, cost_table
from analysis.statistics.matched_sparsity import best_at, matched, matched_display
from analysis.statistics.per_arm import comparison_table
from analysis.statistics.per_task import task_changes, task_table
from analysis.statistics.trials import selected
from ms_automl.errors import TrackingError
from ms_automl.samplers.arms import ARMS


def rows_of(**arms):
    """A row per arm and seed, `arm=[J, …]`; underscores in names are hyphens."""
    records = [
        {"arm": arm.replace("_", "-"), "seed": seed, "space": "scalar", "status": "ok"}
        | {"objective": j, "test_objective": j, "sparsity_group": 0.5, "sparsity_param": 0.5}
        | {"limit": 800, "trials": 1, "failed_trials": 0, "passes": 100}
        for arm, values in arms.items()
        for seed, j in enumerate(values)
    ]
    return to_rows(records)


def trials_of(*records):
    """Trials with every column that a trial always has."""
    usual = {"run_id": "", "seed": 0, "method": "fixed_lambda", "status": "FINISHED", "outcome": "", "error": ""}
    return pd.DataFrame([usual | {"index": index} | record for index, record in enumerate(records)])


def test_the_table_is_ordered_by_test_j_and_leaves_out_empty_columns():
    table = comparison_table(rows_of(meta=[1.6, 1.6], optuna=[1.5, 1.5]), 50.0)
    assert list(table["arm"]) == ["optuna", "meta"]
    assert list(table["spent_trials"]) == [2.0, 2.0]
    shown = display(table)
    assert "Latency (% of dense)" not in shown and "Failed trials" not in shown and "λ space" not in shown


def test_the_table_is_ordered_by_retrained_j_and_shows_it_with_its_iqm():
    rows = rows_of(meta=[1.6] * 4, optuna=[1.5] * 4)
    rows["retrained_test_objective"] = [1.4, 1.4, 1.5, 9.0, *[1.7] * 4]
    table = comparison_table(rows)
    assert list(table["arm"]) == ["optuna", "meta"]
    assert display(table)["Test J, retrained, IQM"].tolist() == ["1.700", "1.450"]


def test_both_halves_of_the_comparison_hold_every_column_once():
    table = comparison_table(rows_of(meta=[1.5], optuna=[1.5]), 50.0)
    halves = [*display(table, QUALITY), *display(table, COST)]
    assert sorted(halves) == sorted([*display(table), "Arm"])


def test_the_share_of_penalised_weights_stands_beside_that_of_all_where_they_differ():
    table = comparison_table(rows_of(meta=[1.5, 1.5]))
    assert "Of penalised weights (%)" not in display(table)
    shown = display(table.assign(density=0.75))
    assert shown["Parameter sparsity (%)"].tolist() == ["25.0"]
    assert shown["Of penalised weights (%)"].tolist() == ["50.0"]


def test_what_exceeds_the_limit_is_shown_in_the_unit_of_the_budget():
    rows = rows_of(meta=[1.5])
    rows["overshoot"] = 2.5
    assert "Overshoot (device seconds)" in display(comparison_table(rows), unit="device_seconds")


def test_records_of_earlier_versions_get_the_columns_they_lack():
    row = rows_of(meta=[1.5]).iloc[0]
    assert (row["unit"], row["limit"], row["spent"], row["density"]) == ("passes", 800, 100, 0.5)
    assert math.isnan(row["retrained_test_objective"])


def test_the_mean_of_the_retrainings_is_taken_where_the_record_has_none():
    entries = [{"test_objective": 1.0, "delta_m": 2.0}, {"test_objective": 2.0, "delta_m": None}]
    row = to_rows([{"arm": "meta", "seed": 0, "status": "ok", "retrained": entries}]).iloc[0]
    assert row["retrained_test_objective"] == 1.5
    assert row["retrained_delta_m"] == 2.0


def trial(arm, objective, density, **more):
    return {"arm": arm, "val/objective": objective, "test/objective": objective, "density": density, **more}


def test_at_a_sparsity_the_model_of_least_loss_is_taken_not_the_sparsest():
    trials = trials_of(trial("optuna", 1.5, 0.5), trial("optuna", 1.4, 0.2), trial("optuna", 1.3, 0.7))
    assert best_at(trials, 0.44, price=1.0)["val/objective"].item() == 1.5  # losses 1.0, 1.2 and, too dense, 0.6
    assert best_at(trials, 0.44, price=0.0)["val/objective"].item() == 1.4


def test_stopped_and_failed_trials_are_no_models():
    trials = trials_of(
        trial("optuna", 1.0, 0.1, outcome="stopped"),
        trial("optuna", 1.1, 0.1, status="FAILED"),
        trial("optuna", 1.2, 0.1),
    )
    assert best_at(trials, 0.44, 1.0)["val/objective"].item() == 1.2


def test_tuning_is_what_an_arm_costs_beyond_the_training_of_its_model():
    rows = rows_of(optuna=[1.5], meta=[1.6])
    rows["device_seconds"], rows["searcher_seconds"] = [400.0, 210.0], [20.0, 0.0]
    trials = trials_of(
        trial("optuna", 1.5, 0.5, **{"cost/device_seconds": 100.0}),
        trial("meta", 1.6, 0.9, **{"cost/device_seconds": 210.0}),
    )
    table = matched(rows, trials, 0.44, 1.0, 50.0).set_index("arm")
    assert table.loc["optuna", ["run_seconds", "tuning_seconds", "total_seconds"]].tolist() == [100, 320, 420]
    assert table.loc["optuna", "total_trials"] == 2
    assert table.loc["meta", "reached"] == 0 and math.isnan(table.loc["meta", "objective"])
    assert matched_display(table.reset_index()).iloc[1]["Seeds"] == "0 of 1"


def test_idle_is_what_is_left_of_the_device_time():
    rows = rows_of(dense=[2.0], meta=[1.5])
    rows[["device_seconds", "training_seconds", "evaluation_seconds"]] = [[9, 9, 9], [100, 70, 20]]
    rows["searcher_seconds"] = 10.0
    breakdown = cost_breakdown(rows)
    assert breakdown.loc["meta"].tolist() == [70, 20, 0, 10, 10]
    assert cost_table(breakdown)["Searcher (% of total)"].tolist() == ["9.1"]


def test_time_that_was_not_taken_apart_is_not_shown():
    assert cost_table(cost_breakdown(rows_of(meta=[1.5]))).empty


def test_tasks_are_compared_with_dense_of_the_same_seed_and_marked_by_direction():
    names = ("test/seg/miou", "test/depth/error", "test/x/quux")
    values = {("dense", 0): (0.4, 0.2, 1.0), ("dense", 1): (0.8, 0.2, 1.0)}
    values |= {("meta", 0): (0.2, 0.1, 2.0), ("meta", 1): (0.8, 0.2, 2.0)}
    trials = trials_of(
        *(
            {"arm": arm, "seed": seed, **dict(zip(names, numbers, strict=True))}
            for (arm, seed), numbers in values.items()
        )
    )
    changes = task_changes(trials, pd.Series(True, index=trials.index))
    table = task_table(changes, {}).set_index("Metric")["meta"]
    assert table.to_dict() == {"seg miou ↑": "−25.0 ▼", "depth error ↓": "−25.0 ▲", "x quux": "+100.0"}
    assert "x quux ↓" in set(task_table(changes, {"x/quux": "min"})["Metric"])


def test_the_selected_trial_is_the_one_the_row_names_else_the_nearest_finished_one():
    rows = rows_of(meta=[1.5])
    trials = trials_of(
        trial("meta", 1.5, 0.5, outcome="stopped"), trial("meta", 1.51, 0.5), trial("meta", 1.7, 0.5)
    )
    assert selected(rows, trials).tolist() == [False, True, False]
    rows["selected_trial"] = "meta-0/02"
    assert selected(rows, trials).tolist() == [False, False, True]


def test_failures_are_listed_and_stopped_trials_only_counted():
    rows = rows_of(optuna=[1.5])
    rows["note"] = ["1 trial failed"]
    trials = trials_of(
        {"arm": "optuna", "status": "FAILED", "error": "it broke"},
        {"arm": "optuna", "status": "KILLED"},
        {"arm": "optuna", "status": "KILLED", "outcome": "stopped"},
    )
    assert failures(rows, trials)["What happened"].tolist() == ["it broke", "killed", "1 trial failed"]
    assert counts(rows, trials).startswith("Of 3 trials, 1 failed, 1 stopped")


def test_markdown_aligns_numbers_right_and_escapes_bars():
    lines = markdown(pd.DataFrame({"Arm": ["a|b"], "J": ["−1.5"]})).splitlines()
    assert lines == ["| Arm | J |", "| :-- | --: |", "| a\\|b | −1.5 |"]


@pytest.mark.parametrize(
    "cell", ["1,234.5", "–", "−0.3 ▼", "2.1 min", "not reached (0 of 5 seeds)", "2.0 (5 of 5)"]
)
def test_numbers_with_units_and_notes_are_numbers(cell):
    assert is_numeric(pd.Series([cell]))
    assert not is_numeric(pd.Series([cell, "meta is better"]))


def test_csv_keeps_nested_lambda_as_json(tmp_path):
    write_csv(pd.DataFrame({"lambda": [{"stem": 0.1}]}), tmp_path / "table.csv")
    assert '"{""stem"": 0.1}"' in (tmp_path / "table.csv").read_text()


def test_a_missing_store_is_named_and_not_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_URI"):
        reachable_uri(None)
    assert not list(tmp_path.iterdir())


def test_a_silent_server_is_an_error_without_its_password():
    with pytest.raises(TrackingError, match=r"http://127\.0\.0\.1:9 does not answer"):
        reachable_uri("http://me:secret@127.0.0.1:9")
    assert without_password("http://host:5000") == "http://host:5000"


def test_every_arm_has_a_place_and_a_look_and_others_come_last():
    assert len({style(arm) for arm in ARMS}) == len(ARMS)
    assert ordered(["mine", "dense", "optuna", "meta", "optuna"]) == ["meta", "optuna", "dense", "mine"]
