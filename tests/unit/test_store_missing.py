"""What a store lacks of a comparison that has ended is found and added, and what it has is not written again."""

import json
import math
import sqlite3
from contextlib import closing

import mlflow
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ms_automl.callbacks.mlflow import Tracker
from ms_automl.comparison.run import Run, Trial
from tests.unit.stores import store

pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*inferred as AnyType:UserWarning"),  # MLflow of its own types
]
ROW = {"status": "ok", "passes": 20.0, "device_seconds": 1.0, "wall_seconds": 1.0, "searcher_seconds": 0.1}


def arm():
    """An arm with trials that finished, were stopped and failed, as a journal gives them back."""
    finished = {"val/objective": 1.5, "delta_m": math.nan, "cost/passes": 10.0, "step": 12.0}
    trials = [
        Trial("a", "arm-0", 0, "m", {"lambda": 0.1}, {}, status="FINISHED", metrics=finished),
        Trial(
            "b",
            "arm-0",
            1,
            "m",
            {"lambda": 0.2},
            {},
            status="STOPPED",
            metrics={"val/objective": 2.0, "step": 6.0},
        ),
        Trial("c", "arm-0", 2, "m", {"lambda": 0.3}, {}, status="FAILED", error="not finite"),
    ]
    run = Run("arm", 0, "scalar", 10.0, ("m",), 3, trials=trials)
    run.anytime = [(10.0, 1.5, 1.6, 1.0), (20.0, 1.5, 1.6, 2.0), (30.0, 1.5, 1.6, 3.0)]
    run.best = trials[0]
    return run


def network(weight=1.0):
    values = numpy_helper.from_array(np.full((2, 2), weight, np.float32), "weight")
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])], "net", *[[s] for s in shapes], [values]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def told(tracker, run, model, weight=1.0):
    """All that a driver tells at the end of a comparison; how many trials lacked something."""
    tracker.run_opened(run)
    count = tracker.recall(run)
    tracker.dataset_used("data", {"factory": "none"}, {"train": 8})
    tracker.model_exported(run, network(weight))
    tracker.run_closed(run, ROW, model, "FINISHED")
    tracker.finish({"rows": [ROW]}, {}, "FINISHED")
    assert tracker.writer.lost is None
    return count


def resumed(uri, run_id, run, model, weight=1.0):
    tracker = Tracker(uri)
    tracker.resume(run_id, {"a": 1})
    return told(tracker, run, model, weight)


def content(file):
    """All rows that hold a record, without those that tell when a process was at work."""
    tables = (
        "metrics",
        "latest_metrics",
        "params",
        "tags",
        "inputs",
        "logged_models",
        "datasets",
        "experiment_tags",
    )
    with closing(sqlite3.connect(file)) as connection:
        found = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables}
        found["runs"] = connection.execute("SELECT run_uuid, name, status, lifecycle_stage FROM runs").fetchall()
    return {name: sorted(map(repr, rows)) for name, rows in found.items()}


@pytest.fixture
def comparison(tmp_path):
    """The address of a store, a comparison's run there, and the folder of its model."""
    model = tmp_path / "best"
    model.mkdir()
    (model / "model.json").write_text("{}")
    uri = store(tmp_path)
    tracker = Tracker(uri)
    tracker.begin("one", {"preset": "none"}, {"a": 1})
    assert told(tracker, arm(), model) == 3
    return uri, tracker.run_id, model


def test_a_comparison_of_which_nothing_lacks_is_left_as_it_is(comparison, tmp_path):
    uri, run_id, model = comparison
    assert resumed(uri, run_id, arm(), model) == 0  # which leaves its mark once
    before = content(tmp_path / "mlflow.db")
    assert resumed(uri, run_id, arm(), model) == 0
    assert content(tmp_path / "mlflow.db") == before


DAMAGES = {
    "a metric": "DELETE FROM {table} WHERE key = 'val/objective' AND run_uuid = '{a}'",
    "the last report": "UPDATE {table} SET value = 9 WHERE key = 'cost/passes' AND run_uuid = '{a}'",
    "an end": "UPDATE runs SET status = 'RUNNING' WHERE run_uuid = '{b}'",
    "an outcome": "DELETE FROM tags WHERE key = 'ms_automl.outcome' AND run_uuid = '{c}'",
    "a parameter": "DELETE FROM params WHERE key = 'value/lambda' AND run_uuid = '{b}'",
    "a run": "UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = '{c}'",
}


@pytest.mark.parametrize("what", DAMAGES)
def test_what_a_trial_lacks_is_added_once(what, comparison, tmp_path):
    uri, run_id, model = comparison
    tracker = Tracker(uri)
    tracker.run_id = run_id
    known = tracker._search_runs()
    ids = {letter: known[f"arm-0/{index:02d}"].info.run_id for index, letter in enumerate("abc")}
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        for table in ("metrics", "latest_metrics"):
            connection.execute(DAMAGES[what].format(table=table, **ids))
    assert resumed(uri, run_id, arm(), model) == 1
    runs = tracker._search_runs()
    first, second, third = (runs[f"arm-0/{index:02d}"] for index in range(3))
    assert first.data.metrics["val/objective"] == 1.5 and first.data.metrics["cost/passes"] == 10.0
    assert [run.info.status for run in (first, second, third)] == ["FINISHED", "KILLED", "FAILED"]
    assert second.data.params["value/lambda"] == "0.2" and third.data.tags["ms_automl.outcome"] == "failed"
    before = content(tmp_path / "mlflow.db")
    assert resumed(uri, run_id, arm(), model) == 0
    assert content(tmp_path / "mlflow.db") == before


def test_what_the_arm_and_the_whole_lack_is_added_once(comparison, tmp_path):
    uri, run_id, model = comparison
    whole = content(tmp_path / "mlflow.db")
    tracker = Tracker(uri)
    tracker.run_id = run_id
    run = tracker._search_runs()["arm-0"]
    for folder in (run.info.run_id, run_id):
        for file in (tmp_path / "mlruns" / "ms_automl" / folder).rglob("*.json"):
            file.unlink()
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        connection.execute("DELETE FROM metrics WHERE key LIKE 'anytime/%' AND step = 20")
        for table in ("params", "inputs", "experiment_tags"):
            connection.execute(f"DELETE FROM {table}" + f" WHERE run_uuid = '{run_id}'" * (table == "params"))
        connection.execute("UPDATE logged_models SET status = 1")  # as if it had not been uploaded whole
    assert resumed(uri, run_id, arm(), model) == 0
    steps = [point.step for point in tracker.client.get_metric_history(run.info.run_id, "anytime/objective")]
    assert sorted(steps) == [10, 20, 30]
    now = content(tmp_path / "mlflow.db")
    assert now["params"] == whole["params"] and len(now["logged_models"]) == 1
    assert {name: len(rows) for name, rows in now.items() if name != "tags"} == {
        name: len(rows) for name, rows in whole.items() if name != "tags"
    }
    assert tracker.artifacts.names(run_id) == {"config.json", "comparison.json"}
    assert tracker.artifacts.names(run.info.run_id, "model") == {"model/model.json"}


def test_another_selected_model_is_logged_beside_the_one_before(comparison):
    uri, run_id, model = comparison
    resumed(uri, run_id, arm(), model, weight=2.0)
    tracker = Tracker(uri)
    tracker.run_id = run_id
    outputs = tracker._search_runs()["arm-0"].outputs.model_outputs
    models = [tracker.client.get_logged_model(output.model_id) for output in outputs]
    assert len({one.tags["ms_automl.digest"] for one in models}) == 2


def test_in_a_program_that_uses_mlflow_itself_its_run_and_experiment_stay_as_they_are(tmp_path, monkeypatch):
    uri = store(tmp_path / "theirs")
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        mlflow.set_experiment("theirs")
        with mlflow.start_run() as run:
            tracker = Tracker(store(tmp_path / "ours"))
            tracker.begin("one", {}, {"a": 1})
            told(tracker, arm(), None)
            assert mlflow.active_run().info.run_id == run.info.run_id and mlflow.get_tracking_uri() == uri
        (theirs,) = mlflow.MlflowClient(uri).search_runs([run.info.experiment_id])
        assert not theirs.data.params and not theirs.data.metrics and theirs.info.status == "FINISHED"
    finally:
        mlflow.set_tracking_uri(None)
        mlflow.tracking.fluent._active_experiment_id = None
    assert mlflow.get_tracking_uri() == before
    arm_run = tracker._search_runs()["arm-0"]
    (output,) = arm_run.outputs.model_outputs
    logged = tracker.client.get_logged_model(output.model_id)
    assert (logged.status, logged.source_run_id, logged.name) == ("READY", arm_run.info.run_id, "arm-0")
    files = {item.path: item for item in tracker.client.list_logged_model_artifacts(output.model_id)}
    assert {"MLmodel", "model.onnx"} <= files.keys()
    place = tmp_path / "ours" / "mlruns" / "ms_automl" / "models" / output.model_id / "artifacts"
    assert (place / "model.onnx").stat().st_mode & 0o044 == 0o044  # for others too
    assert onnx.load(place / "model.onnx").graph.initializer[0].name == "weight"
    about = mlflow.models.Model.load(str(place))
    assert (about.run_id, about.model_id) == (arm_run.info.run_id, output.model_id)
    assert json.loads(arm_run.data.tags["ms_automl.row"])["status"] == "ok"
