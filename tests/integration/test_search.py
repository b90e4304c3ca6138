"""`python -m ms_automl.search` as a user runs it, each comparison in a folder of its own."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
import torch

import ms_automl
from ms_automl.arms import ARMS
from ms_automl.sparsity import ChannelGroups, measure
from tests.integration.command import SMALL, TINY, Search, finished, has_trained, untimed

pytestmark = [
    pytest.mark.integration,
    # SQLAlchemy warns about MLflow's own models.
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]

FRAGILE = """
from ms_automl.models import MultiTaskNet
from ms_automl.models.resnet import small_resnet
from ms_automl.sparsity import ChannelGroups


class Fragile(MultiTaskNet):
    def forward(self, images):
        gone = bool((ChannelGroups(self).norms() == 0).any())
        if gone:
            BREAK
        return {name: out * float("nan") if gone else out for name, out in super().forward(images).items()}


def network(image_shape, heads):
    net = small_resnet(image_shape, heads, width=8, hidden=8)
    return Fragile(net.trunk, net.heads, net.removable)
"""


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("search"), "--slots", "2", "--arms", ",".join(ARMS))


def test_it_ends_with_status_0_and_nothing_on_stderr(search):
    assert (search.status, search.errors) == (0, "")


def test_every_arm_has_a_valid_row(search):
    assert list(search.rows) == list(ARMS)
    for arm, row in search.rows.items():
        assert row["status"] == "ok", row
        assert 0 <= row["sparsity_param"] <= 1 and row["objective"] > 0
        if arm not in ("topk", "optuna-asha"):  # theirs are of different lengths
            single = {"dense": 1, "fixed": 1, "meta": 1, "meta-search": 2, "meta-optuna": 2, "random-2x": 6}
            assert row["trials"] == single.get(arm, 3)
        assert arm == "dense" or row["spent"] <= row["limit"] * (1 + 1e-9)
    assert search.rows["dense"]["delta_m"] == 0
    assert isinstance(search.rows["random"]["lambda"], dict) and search.rows["dense"]["lambda"] is None
    assert search.rows["topk"]["stopped_trials"] > 0


def test_the_record_says_where_its_store_lies(search):
    uri = search.record["mlflow"]["tracking_uri"]
    assert (search.out / uri.removeprefix("sqlite:///")).resolve() == (search.folder / "mlflow.db").resolve()


def test_the_ledger_adds_up_to_the_rows(search):
    lines = [json.loads(line) for line in (search.out / "ledger.jsonl").read_text().splitlines()]
    for arm, row in search.rows.items():
        spent = sum(line["passes"] for line in lines if line["stream"] == f"{arm}-0")
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
    assert len(runs) == 1 + len(ARMS) + sum(row["trials"] for row in search.rows.values())
    for arm, row in search.rows.items():
        stream = runs[f"{arm}-0"]
        assert stream.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert json.loads(stream.data.tags["ms_automl.row"]) == {k: v for k, v in row.items() if k != "lambda"}
        for index in range(row["trials"]):
            trial = runs[f"{arm}-0/{index:02d}"]
            assert trial.data.tags["mlflow.parentRunId"] == stream.info.run_id


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


def test_an_arms_model_in_mlflow_gives_the_same_without_torch(search, tmp_path):
    run = search.runs()["meta-0"]
    (output,) = search.client().get_run(run.info.run_id).outputs.model_outputs
    images = torch.randn(3, 3, 32, 32)
    np.save(tmp_path / "images.npy", images.numpy())
    script = (
        "import sys, numpy, mlflow; m = mlflow.pyfunc.load_model(sys.argv[1]); "
        "numpy.savez(sys.argv[3], **m.predict({'images': numpy.load(sys.argv[2])})); "
        "assert not {'torch', 'ray', 'ms_automl'} & set(sys.modules), 'imported'"
    )
    model, given, answer = f"models:/{output.model_id}", tmp_path / "images.npy", tmp_path / "answer.npz"
    store = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{search.folder / 'mlflow.db'}"}
    command = [sys.executable, "-c", script, model, str(given), str(answer)]
    subprocess.run(command, check=True, env=store, cwd=search.folder)
    network = ms_automl.load(search.out / "best" / "meta-0")
    with torch.no_grad():
        expected = network(images)
    found = np.load(answer)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value.numpy(), rtol=1e-3, atol=1e-4)


def test_the_parent_run_says_what_data_and_what_came_out(search):
    parent = search.runs()["out"]
    (used,) = search.client().get_run(parent.info.run_id).inputs.dataset_inputs
    assert (used.dataset.name, json.loads(used.dataset.profile)["train"]) == ("rooms", 64)
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith("One seed claims nothing.") and "| meta-optuna |" in note


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


def test_the_same_config_gives_the_same_table_at_any_number_of_slots(search, tmp_path):
    arms = "path,topk,optuna-asha,meta-optuna"
    single = finished(tmp_path, "--slots", "1", "--arms", arms)
    assert single.status == 0
    for arm, row in single.rows.items():
        assert untimed(row) == untimed(search.rows[arm])


def broken(folder, how, arms, *settings):
    """A comparison whose network breaks as soon as a group is zero, which λ sees to in the first step."""
    (folder / "fragile.py").write_text(FRAGILE.replace("BREAK", how))
    own = ["network.factory=fragile:network", "network.args={}", "space=scalar", "lambda.fixed=0"]
    strong = ["lambda.low=500", "lambda.high=1000"]
    return finished(folder, "--arms", arms, settings=[*TINY, *own, *strong, *settings])


@pytest.mark.parametrize(
    ("how", "settings", "said"),
    [
        ("import os; os._exit(1)", [], "the trial's process died"),
        ("import time; time.sleep(10_000)", ["resources.report_timeout=15"], "no report for 15 s"),
    ],
)
def test_a_trial_whose_process_dies_or_hangs_is_failed_and_charged_and_the_others_go_on(
    tmp_path, how, settings, said
):
    search = broken(tmp_path, how, "random,fixed", "budget.trials=2", *settings)
    assert search.status == 0, search.shown + search.errors
    rows, runs = search.rows, search.runs()
    assert (rows["fixed"]["status"], rows["random"]["status"]) == ("ok", "failed")
    assert rows["random"]["failed_trials"] == 2 and 0 < rows["random"]["spent"] <= rows["random"]["limit"]
    assert rows["random"]["device_seconds"] > (29 if settings else 0)
    assert all(said in runs[f"random-0/{index:02d}"].data.tags["ms_automl.error"] for index in (0, 1))
    assert {run.info.status for name, run in runs.items() if name.startswith("random-0")} == {"FAILED"}


def test_a_budget_in_seconds_stops_trials_on_the_way(tmp_path):
    settings = [*SMALL, "training.steps=60", "training.report_every=2", "budget.unit=device_seconds"]
    search = finished(tmp_path, "--arms", "random,optuna", "--slots", "1", settings=[*settings, "budget.trials=2"])
    assert search.status == 0, search.shown + search.errors
    for arm, row in search.rows.items():
        assert row["unit"] == "device_seconds"
        if arm != "dense":
            assert row["limit"] == pytest.approx(2 * search.rows["dense"]["spent"], rel=1e-3)  # the sampler's time
            assert row["spent"] == pytest.approx(row["device_seconds"] + row["searcher_seconds"])
            assert row["spent"] > 0.9 * row["limit"]


def test_trials_whose_loss_is_not_finite_fail_alone_and_say_their_lambda_and_step(tmp_path):
    search = broken(tmp_path, "pass", "fixed,random,prune-taylor")
    assert search.status == 0, search.shown + search.errors
    rows = search.rows
    assert {arm: row["status"] for arm, row in rows.items()} == {
        "dense": "ok", "fixed": "ok", "random": "failed", "prune-taylor": "failed"
    }  # fmt: skip
    assert rows["random"]["failed_trials"] == 3 and rows["random"]["passes"] > 0
    run = search.runs()["random-0/00"]
    assert run.info.status == "FAILED"
    error = run.data.tags["ms_automl.error"]
    assert "not finite at step" in error and error.count("λ = ") == 1
    assert error in search.shown and "Traceback" not in search.shown + search.errors
    assert search.runs()["random-0"].info.status == "FAILED"
    assert search.runs()["fixed-0"].info.status == "FINISHED"


def test_without_a_single_valid_arm_the_status_is_1_and_the_table_says_why(tmp_path):
    search = finished(tmp_path, "--arms", "fixed", settings=[*TINY, "training.lr=1e30"])
    assert (search.status, search.errors) == (1, "")
    assert {row["status"] for row in search.rows.values()} == {"failed"}
    assert "fixed-0: the dense reference failed" in search.shown
    assert search.runs()["out"].info.status == "FINISHED"


def test_ctrl_c_closes_all_runs_and_keeps_what_was_done(tmp_path):
    settings = [*SMALL, "training.steps=400", "training.report_every=2"]
    search = Search(tmp_path, "--arms", "random", settings=settings)
    ledger, deadline = search.out / "ledger.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and not (ledger.exists() and has_trained(ledger.read_text(), "random-0/00")):
        time.sleep(0.1)
    os.killpg(search.process.pid, signal.SIGINT)  # as a terminal does: the whole group
    time.sleep(0.5)
    os.killpg(search.process.pid, signal.SIGINT)  # and the impatient
    search.wait()
    assert (search.status, search.errors) == (130, "")
    rows, runs = search.rows, search.runs()
    assert rows["dense"]["objective"] == 2.0
    assert rows["random"]["note"].startswith("stopped by Ctrl-C") and rows["random"]["passes"] > 0
    assert any(line.split()[:2] == ["random", "0"] for line in search.shown.splitlines())
    status = {name: run.info.status for name, run in runs.items()}
    assert status["dense-0/00"] == "FINISHED"
    assert {status[name] for name in ("out", "random-0", "random-0/00")} == {"KILLED"}
    assert "RUNNING" not in status.values()
    assert (search.out / "best" / "dense-0" / "model.safetensors").exists()
