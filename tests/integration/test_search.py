"""`python -m ms_automl.search` as a user runs it, each comparison in a folder of its own."""

import base64
import json
import math
import zlib

import pytest
import torch

import ms_automl
from ms_automl.samplers.arms import ARMS, REFERENCE
from ms_automl.sparsity import ChannelGroups, measure
from tests.integration.command import Search, finished, untimed

pytestmark = [
    pytest.mark.integration,
    # SQLAlchemy warns about MLflow's own models.
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]


# These differ from one that is run here by a rule, a criterion or a number alone: theirs is the long set.
ALIKE = tuple(
    arm
    for arm in ARMS
    if arm.endswith("-tuned")
    or arm in ("prune-l2", "prune-fpgm", "prune-isomorphic", "hesso", "greg", "group-norm", "pat", "dsd")
    or arm in ("meta-in-optuna", "smac", "fixed-adam", "meta-scalar", "overparam-sparse", "single-sparse")
)
RUN = tuple(arm for arm in ARMS if arm not in ALIKE)


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    return Search(tmp_path_factory.mktemp("search"), "--slots", "2", "--arms", ",".join(RUN)).wait()


def test_it_ends_with_status_0_and_nothing_on_stderr(search):
    assert (search.status, search.errors) == (0, "")


def test_every_arm_has_a_valid_row(search):
    check_rows(search, RUN)
    assert all(row["delta_m_single"] is not None for row in search.rows.values())
    assert search.rows["dense"]["delta_m"] == 0
    assert isinstance(search.rows["random"]["lambda"], dict) and search.rows["dense"]["lambda"] is None
    assert search.rows["topk"]["stopped_trials"] > 0


def check_rows(search, arms):
    assert list(search.rows) == [REFERENCE, *(arm for arm in arms if arm != REFERENCE)]
    for arm, row in search.rows.items():
        assert row["status"] == "ok", row
        assert 0 <= row["sparsity_param"] <= 1 and row["objective"] > 0
        if arm not in ("topk", "optuna-asha"):  # theirs are of different lengths
            others = {
                "meta-search": 2,
                "meta-optuna": 2,
                "meta-in-optuna": 2,
                "optuna-level": 2,
                "smac-level": 2,
                "random-2x": 6,
            }
            assert row["trials"] == (1 if ARMS[arm].single else others.get(arm, 3))
        assert (row["limit"] is None) == math.isinf(ARMS[arm].share)
        assert row["limit"] is None or row["spent"] <= row["limit"] * (1 + 1e-9)


def test_the_record_says_where_its_store_lies(search):
    uri = search.record["mlflow"]["tracking_uri"]
    assert (search.out / uri.removeprefix("sqlite:///")).resolve() == (search.folder / "mlflow.db").resolve()


def test_the_ledger_adds_up_to_the_rows(search):
    lines = search.events("charge")
    for arm, row in search.rows.items():
        spent = sum(line["passes"] for line in lines if line["run"] == f"{arm}-0")
        assert row["passes"] == pytest.approx(spent)


def test_the_table_on_the_screen_shows_every_arm_whole(search):
    assert "…" not in search.shown
    for arm, row in search.rows.items():
        lines = [line for line in search.shown.splitlines() if line.split()[:2] == [arm, "0"]]
        assert len(lines) == 1 and f"{row['objective']:.3f}" in lines[0]


def test_mlflow_has_one_parent_a_run_per_arm_and_one_per_trial_all_ended(search):
    runs = search.runs()
    parent = runs["out"]
    assert parent.info.run_id == search.record["mlflow"]["run_id"]
    assert parent.data.tags["ms_automl.kind"] == "comparison" and "mlflow.parentRunId" not in parent.data.tags
    stopped = {name for name, run in runs.items() if run.data.tags.get("ms_automl.outcome") == "stopped"}
    assert len(stopped) == sum(row["stopped_trials"] for row in search.rows.values())
    for name, run in runs.items():
        assert run.info.status == ("KILLED" if name in stopped else "FINISHED"), name
    assert len(runs) == 1 + len(RUN) + sum(row["trials"] for row in search.rows.values())
    for arm, row in search.rows.items():
        arm_run = runs[f"{arm}-0"]
        assert arm_run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert arm_run.outputs.model_outputs == []  # resources.onnx=false
        assert arm_run.data.metrics["delta_m_single"] == pytest.approx(row["delta_m_single"])
        assert json.loads(arm_run.data.tags["ms_automl.row"]) == {k: v for k, v in row.items() if k != "lambda"}
        for index in range(row["trials"]):
            trial = runs[f"{arm}-0/{index:02d}"]
            assert trial.data.tags["mlflow.parentRunId"] == arm_run.info.run_id


def test_the_trials_of_the_grid_say_what_lambda_saves(search):
    runs = search.runs()
    for index in range(3):
        found = runs[f"grid-0/{index:02d}"].data.metrics
        assert 0 < found["compact/macs_ratio"] <= 1 and found["compact/latency_ratio"] > 0
    assert "compact/macs_ratio" not in runs["random-0/00"].data.metrics


def test_metrics_are_logged_by_training_step_and_the_anytime_curve_by_passes(search):
    client, runs = search.client(), search.runs()
    history = client.get_metric_history(runs["random-0/00"].info.run_id, "val/objective")
    assert [point.step for point in history] == [4, 8]
    curve = client.get_metric_history(runs["random-0"].info.run_id, "anytime/objective")
    values = [point.value for point in sorted(curve, key=lambda point: point.step)]
    assert len(values) == 3 and values == sorted(values, reverse=True)
    assert values[-1] == search.rows["random"]["objective"]


def test_the_best_model_of_every_arm_is_given_back_with_its_zeros(search):
    for arm, row in search.rows.items():
        network = ms_automl.load(search.out / "best" / f"{arm}-0")
        assert measure(ChannelGroups(network)).param == row["sparsity_param"]
        with torch.no_grad():
            assert all(bool(out.isfinite().all()) for out in network(torch.zeros(1, 3, 32, 32)).values())


def test_the_parent_run_says_what_data_and_what_came_out(search):
    parent = search.runs()["out"]
    (used,) = search.client().get_run(parent.info.run_id).inputs.dataset_inputs
    assert (used.dataset.name, json.loads(used.dataset.profile)["train"]) == ("rooms", 64)
    note = parent.data.tags["mlflow.note.content"]
    warnings = search.record["warnings"]  # eight steps teach dense nothing of most tasks
    assert note.split("\n\n")[: len(warnings)] == warnings
    assert note.split("\n\n")[len(warnings)].startswith("One seed claims nothing.") and "| meta-optuna |" in note


def test_the_view_that_the_command_names_has_the_arms(search):
    experiment = search.client().get_experiment_by_name("ms_automl")
    assert f"viewStateShareKey={search.record['mlflow']['run_id']}" in search.shown
    view = json.loads(experiment.tags[f"mlflow.sharedViewState.{search.record['mlflow']['run_id']}"])
    assert view["name"] == "out"
    state = json.loads(zlib.decompress(base64.b64decode(view["state"].removeprefix("deflate;"))))
    runs = search.client().search_runs([experiment.experiment_id], state["searchFilter"], order_by=[
        f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
    ])  # fmt: skip
    shown = {run.info.run_name: run.data.metrics["test/objective"] for run in runs}
    assert shown == {f"{arm}-0": row["test_objective"] for arm, row in search.rows.items()}
    assert list(shown.values()) == sorted(shown.values())
    logged = {f"metrics.`{key}`" for key in runs[0].data.metrics} | {
        f"params.`{key}`" for key in runs[0].data.params
    }
    assert set(state["selectedColumns"]) <= logged
    assert {chart["metricKey"] for chart in state["compareRunCharts"]} <= set(runs[0].data.metrics)


def test_the_report_is_there(search):
    assert (search.out / "report" / "index.html").exists()
    assert "report: out/report/index.html" in search.shown


@pytest.mark.whole
def test_the_arms_that_are_like_another_run_too(tmp_path):
    search = Search(tmp_path, "--slots", "2", "--tune", "training.lr", "--arms", ",".join(ALIKE)).wait()
    assert (search.status, search.errors) == (0, "")
    check_rows(search, ALIKE)


@pytest.mark.whole
def test_the_same_config_gives_the_same_table_at_any_number_of_slots(tmp_path):
    one, two = (
        finished(folder, "--slots", str(slots), "--arms", "topk,optuna-asha,meta-optuna")
        for slots, folder in enumerate((tmp_path / "one", tmp_path / "two"), 1)
        if not folder.mkdir()
    )
    assert one.status == two.status == 0
    assert {arm: untimed(row) for arm, row in one.rows.items()} == {
        arm: untimed(row) for arm, row in two.rows.items()
    }
