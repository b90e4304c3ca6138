"""Where MLflow lacks records of a comparison, that is said, its exit status is 1, and --resume adds them once."""

import os
import subprocess
import sys

import pytest

from ms_automl.callbacks.mlflow.opening import database
from tests.integration.command import ONNX, ROOT, TINY, Ended, Search

pytestmark = [
    pytest.mark.integration,
    pytest.mark.fault,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]
PROGRAM = """
import sys
import mlflow

if __name__ == "__main__":
    mlflow.set_experiment("theirs")
    with mlflow.start_run() as run:
        from ms_automl.search import main
        status = main(sys.argv[1:])
        assert mlflow.active_run().info.run_id == run.info.run_id
        mlflow.log_metric("after", 1, synchronous=True)
    sys.exit(status)
"""


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """In a program that uses MLflow itself, in an odd folder, with --out on another disk, artifacts in the way."""
    top = tmp_path_factory.mktemp("records")
    folder, disk = top / "a b#1%20", top / "disk" / "deep" / "out"
    folder.mkdir()
    disk.mkdir(parents=True)
    (folder / "out").symlink_to(disk)
    (folder / "mlruns").write_text("a file, where a folder is to be")
    (folder / "program.py").write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment |= {"MLFLOW_ENABLE_ASYNC_LOGGING": "true", "MLFLOW_EXPERIMENT_NAME": "theirs"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    sets = [part for setting in [*TINY, ONNX, "budget.trials=2"] for part in ("--set", setting)]
    command = [sys.executable, "program.py", "--preset", "smoke", "--arms", "random", "--out", "out", *sets]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=580)
    return Ended(folder), done


def counted(client, run):
    """How often a run has each of its metrics."""
    return {key: len(client.get_metric_history(run.info.run_id, key)) for key in run.data.metrics}


def artifacts(client, run):
    return {item.path for item in client.list_artifacts(run.info.run_id)}


def test_what_mlflow_does_not_take_is_said_at_once_with_its_reason_and_the_status_is_1(begun):
    search, done = begun
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("MLflow lacks some records: "))
    assert "Not a directory" in line and line.endswith("comparison.json is complete, --resume adds what lacks")
    assert done.stdout.count("not in MLflow: ") <= 3
    assert {row["status"] for row in search.rows.values()} == {"ok"}
    named = database(search.record["mlflow"]["tracking_uri"])
    assert str(named) == "../../../a b#1%20/mlflow.db"
    assert (search.out / "report" / "index.html").is_file()


def test_our_runs_and_those_of_the_program_do_not_know_each_other(begun):
    search, _ = begun
    client = search.client()
    (theirs,) = client.search_runs([client.get_experiment_by_name("theirs").experiment_id])
    assert theirs.data.metrics == {"after": 1.0} and theirs.info.status == "FINISHED" and not theirs.data.params
    assert len(search.runs()) == 1 + 2 + 3  # the whole, arms, trials


def test_resume_adds_what_lacks_and_a_second_one_adds_nothing(begun):
    search, _ = begun
    client, before = search.client(), search.runs()
    (search.folder / "mlruns").unlink()
    client.delete_run(before["random-0/00"].info.run_id)
    client.update_run(before["dense-0/00"].info.run_id, status="RUNNING")  # as if its end had been lost
    first = Search(search.folder, "--resume", preset=None, settings=()).wait()
    assert first.status == 0, first.shown + first.errors
    assert "MLflow lacked records of 2 trials that ended" in first.shown and "lacks some" not in first.shown
    runs = first.runs()
    assert runs.keys() == before.keys()
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    trial = runs["random-0/00"]
    assert trial.info.run_id != before["random-0/00"].info.run_id
    for have in ("metrics", "params"):
        assert getattr(trial.data, have) == getattr(before["random-0/00"].data, have)
    assert artifacts(client, runs["out"]) == {"config.json", "comparison.json", "report"}
    for arm in ("dense-0", "random-0"):
        assert artifacts(client, runs[arm]) == {"model"}
        (output,) = runs[arm].outputs.model_outputs
        model = client.get_logged_model(output.model_id)
        assert (model.name, model.status, model.source_run_id) == (arm, "READY", runs[arm].info.run_id)
    second = Search(search.folder, "--resume", preset=None, settings=()).wait()
    assert second.status == 0 and "MLflow lack" not in second.shown, second.shown + second.errors
    again = second.runs()
    assert {name: run.info.run_id for name, run in again.items()} == {n: r.info.run_id for n, r in runs.items()}
    for name in before.keys() - {"out"}:  # whose seconds are those of the last process
        assert counted(client, again[name]) == counted(client, runs[name])
        assert len(again[name].outputs.model_outputs) == len(runs[name].outputs.model_outputs) <= 1
    assert len(again["out"].inputs.dataset_inputs) == 1
