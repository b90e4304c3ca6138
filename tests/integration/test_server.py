"""A tracking server on PostgreSQL: several comparisons at once, and the server away for a while."""

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

import ms_automl
from tests.integration.command import ONNX, ROOT, TINY, Search
from tests.integration.server import Server

pytestmark = [
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]
AWAY = 30
"""Seconds that the server is away."""

WRITER = """
import sys, time
from types import SimpleNamespace
from ms_automl.callbacks.mlflow import Tracker
from ms_automl.comparison.run import Run, Trial

name, pause = sys.argv[1], float(sys.argv[2])
tracker = Tracker()
tracker.begin(name, {"preset": "none"}, {"a": 1, "b": {"c": 2}})
longest = 0.0
for arm in ("one", "two"):
    run = Run(arm, 0, "scalar", 10.0, ("m",), 3)
    tracker.run_opened(run)
    for index in range(3):
        trial = Trial(f"{arm}{index}", run.name, index, "m", {"lambda": 0.1}, {})
        run.best = trial
        began = time.monotonic()
        tracker.trial_started(run, trial)
        longest = max(longest, time.monotonic() - began)
        for step in range(10):
            time.sleep(pause)
            began = time.monotonic()
            trial.metrics = {"step": float(step), "val/objective": 1 / (step + 1), "sparsity/param": step / 10}
            tracker.trial_reported(run, trial, trial.metrics)
            longest = max(longest, time.monotonic() - began)
        trial.status = "FINISHED"
        run.anytime.append((10.0 * (index + 1), 1.0, 1.0, 1.0))
        tracker.trial_ended(run, trial)
    row = {key: 0.0 for key in ("passes", "device_seconds", "wall_seconds", "searcher_seconds")} | {"status": "ok"}
    tracker.run_closed(run, row, None, "FINISHED")
tracker.finish({"rows": []}, {"useful_share": 1.0}, "FINISHED")
print(longest, tracker.writer.lost, tracker.run_id)
"""


@pytest.fixture(scope="module")
def server():
    server = Server()
    try:
        yield server.start()
    finally:
        server.close()


def environment(server):
    return os.environ | {"MLFLOW_TRACKING_URI": server.uri, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def runs_of(server, parent):
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("ms_automl").experiment_id
    runs = client.search_runs([experiment], f"tags.`ms_automl.comparison` = '{parent}'", max_results=1000)
    return client, runs


@pytest.fixture
def writers(server, tmp_path):
    """Eight processes that write a comparison each, all at once."""
    (tmp_path / "writer.py").write_text(WRITER)
    command = [sys.executable, str(tmp_path / "writer.py")]
    options = {"env": environment(server), "stdout": subprocess.PIPE, "text": True}
    with ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen([*command, f"w{n}", "0.5"], **options)) for n in range(8)
        ]
        yield processes
        for process in processes:
            process.kill()


def begun(client):
    """How many comparisons have a trial."""
    found = client.get_experiment_by_name("ms_automl")
    runs = client.search_runs([found.experiment_id], "tags.`ms_automl.kind` = 'trial'") if found else []
    return len({run.data.tags["ms_automl.comparison"] for run in runs})


def test_eight_writers_lose_and_double_no_run_while_the_server_is_away(server, writers):
    client, deadline = MlflowClient(server.uri), time.monotonic() + 200
    while begun(client) < 8:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    server.stop()
    assert all(writer.poll() is None for writer in writers), "one was done before the server was away"
    time.sleep(AWAY)
    server.start()
    for writer in writers:
        said, _ = writer.communicate(timeout=300)
        assert writer.returncode == 0, said
        longest, lost, parent = said.split()  # and nothing of MLflow's between
        assert lost == "None"
        assert float(longest) < 1.0, "a report waited for the store"
        client, runs = runs_of(server, parent)
        names = sorted(run.info.run_name for run in runs)
        assert names == sorted(
            name for arm in ("one", "two") for name in (f"{arm}-0", *(f"{arm}-0/{i:02d}" for i in range(3)))
        )
        assert {run.info.status for run in [*runs, client.get_run(parent)]} == {"FINISHED"}
        for run in runs:
            if "/" in run.info.run_name:
                history = client.get_metric_history(run.info.run_id, "val/objective")
                assert sorted(point.step for point in history) == list(range(10)), run.info.run_name


def test_a_comparison_on_the_server_and_its_report(server, tmp_path):
    search = Search(tmp_path, "--arms", "random", settings=[*TINY, ONNX], tracking=server.uri).wait()
    assert (search.status, search.errors) == (0, ""), search.shown
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert record["mlflow"]["tracking_uri"] == server.uri
    assert not (tmp_path / "mlflow.db").exists()
    client, runs = runs_of(server, record["mlflow"]["run_id"])
    assert {run.info.status for run in runs} == {"FINISHED"} and len(runs) == 2 + 1 + 3
    artifacts = {item.path for item in client.list_artifacts(record["mlflow"]["run_id"], "report")}
    assert "report/index.html" in artifacts
    arm = next(run for run in runs if run.info.run_name == "random-0")
    (output,) = client.get_run(arm.info.run_id).outputs.model_outputs
    assert_it_predicts_the_same_without_torch(
        ms_automl.load(tmp_path / "out" / "best" / "random-0"), f"models:/{output.model_id}", server, tmp_path
    )


def assert_it_predicts_the_same_without_torch(network, model, server, folder):
    images = torch.randn(3, 3, 32, 32)
    np.save(folder / "images.npy", images.numpy())
    script = (
        "import sys, numpy, mlflow; m = mlflow.pyfunc.load_model(sys.argv[1]); "
        "numpy.savez('answer.npz', **m.predict({'images': numpy.load('images.npy')})); "
        "assert not {'torch', 'ray', 'ms_automl'} & set(sys.modules), 'imported'"
    )
    store = os.environ | {"MLFLOW_TRACKING_URI": server.uri}
    subprocess.run([sys.executable, "-c", script, model], check=True, env=store, cwd=folder)
    with torch.no_grad():
        expected = network(images)
    found = np.load(folder / "answer.npz")
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value.numpy(), rtol=1e-3, atol=1e-4)
