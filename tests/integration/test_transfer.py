"""`python -m ms_automl.transfer` as a user runs it, on a comparison that has ended."""

import hashlib
import json
import os
import shutil
import signal
import time

import pytest
from mlflow import MlflowClient

from ms_automl.errors import ConfigError
from ms_automl.storage.files import alone
from ms_automl.transfer import main, transfer_selected
from tests.integration.command import transfer

pytestmark = [
    pytest.mark.integration,
    pytest.mark.whole,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]
FEW = ["--arms", "meta", "--task", "edges", "--shots", "4,all", "--steps", "4"]


def ended(folder, *options):
    process = transfer(folder, *options)
    shown, errors = process.communicate(timeout=300)
    return process.returncode, shown, errors


def prints(out):
    """What the comparison itself has on disk, by file."""
    files = [out / "comparison.json", out / "events.jsonl", *(out / "best").rglob("*.*")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def own_runs(search):
    return {
        name: (run.info.status, run.info.end_time, run.data.params, run.data.metrics)
        for name, run in search.runs().items()
        if not name.startswith("transfer")
    }


@pytest.fixture(scope="module")
def search(two_seeds):
    return two_seeds


@pytest.fixture(scope="module")
def before(search):
    return prints(search.out), own_runs(search)


@pytest.fixture(scope="module")
def stage(search, before):
    """Stopped by Ctrl-C in the middle, and gone on with."""
    options = ["--comparison", "out", *FEW]
    process = transfer(search.folder, *options)
    log, deadline = search.out / "transfer" / "events.jsonl", time.monotonic() + 200
    while not log.exists() or log.read_text().count('"FINISHED"') < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=200)
    assert process.returncode == 130
    done = json.loads((search.out / "transfer" / "transfer.json").read_text())["rows"]
    assert {row["status"] for row in done} == {"FINISHED"}  # the others were stopped on the way
    status, shown, errors = ended(search.folder, *options)
    assert (status, errors) == (0, ""), shown + errors
    return done, shown


@pytest.fixture
def refused(monkeypatch, capsys):
    """What the command says to bad input, without a process of its own."""

    def run(folder, *options):
        monkeypatch.chdir(folder)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert main(list(options)) == 2
        return capsys.readouterr().err

    return run


@pytest.fixture(scope="module")
def record(search, stage):
    return json.loads((search.out / "transfer" / "transfer.json").read_text())


def test_what_an_earlier_version_has_left_is_taken_over(search, record, tmp_path):
    """Its folder had a journal of rows in the place of the log."""
    out = tmp_path / "stage"
    out.mkdir()
    head = {name: record[name] for name in ("format", "comparison", "settings")}
    kept = record["rows"][:-2]
    (out / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [head, *kept]))
    client = search.client()
    run = next(run for name, run in search.runs().items() if name == "transfer")
    client.delete_run(run.info.run_id)  # that has all of them
    status, shown, errors = ended(search.folder, "--comparison", "out", *FEW, "--out", str(out))
    client.restore_run(run.info.run_id)
    assert (status, errors) == (0, ""), shown + errors
    assert "38 done, 2 to run" in shown
    assert len(json.loads((out / "transfer.json").read_text())["rows"]) == 40


def key(row):
    return tuple(row[name] for name in ("arm", "seed", "weights", "mode", "shots", "draw"))


def test_every_start_takes_up_the_task_in_every_mode_with_every_number_of_labels(record):
    rows = {key(row): row for row in record["rows"]}
    assert len(rows) == len(record["rows"]) == 2 * 2 * 2 * 5  # seeds, arms, shots; two modes with new weights too
    for row in rows.values():
        assert row["status"] == "FINISHED"
        assert row["metrics"]["labels"] == (row["shots"] or 64)
        assert 0 <= row["metrics"]["test/edges/ods_f1"] <= 1
        assert ("old/delta_m" in row["metrics"]) == (row["weights"] == "trained" and row["mode"] != "frozen")
        assert len(row["curve"]) == 4


def test_what_was_done_before_the_stop_was_not_done_again(stage, record):
    done, shown = stage
    assert done and f"{len(done)} done, {40 - len(done)} to run" in shown
    rows = {key(row): row for row in record["rows"]}
    assert all(rows[key(row)] == row | {"lost_passes": 0.0} for row in done)


def test_zeros_stay_zero_and_new_weights_have_the_models_zeros(search, record):
    for row in record["rows"]:
        if row["arm"] == "meta":
            kept = next(one for one in search.record["rows"] if (one["arm"], one["seed"]) == ("meta", row["seed"]))
            assert row["metrics"]["sparsity/param"] == pytest.approx(kept["sparsity_param"])


def test_the_comparisons_own_records_are_as_they_were(search, before, stage):
    assert (prints(search.out), own_runs(search)) == before


def test_it_costs_what_was_said_before_it_began(stage, record):
    said = float(stage[1].partition("to run, ")[2].partition(" passes, about ")[0].replace(",", ""))
    began = {key(row) for row in stage[0]}
    assert sum(row["passes"] for row in record["rows"] if key(row) not in began) == pytest.approx(said, abs=0.51)


def test_mlflow_has_one_run_for_each_below_the_comparisons(search, stage, record):
    runs = search.runs()
    parent = runs["transfer"]
    assert parent.data.tags["mlflow.parentRunId"] == search.record["mlflow"]["run_id"]
    assert parent.info.status == "FINISHED"
    below = [run for name, run in runs.items() if name.startswith("transfer/")]
    assert len(below) == len(record["rows"])
    assert {run.data.tags["mlflow.parentRunId"] for run in below} == {parent.info.run_id}
    assert {run.info.status for run in below} == {"FINISHED"}
    row = next(row for row in record["rows"] if key(row) == ("meta", 0, "trained", "joint", None, 0))
    run = runs[f"transfer/edges/meta-0/joint/all/0 {row['digest'][:6]}"]
    assert run.data.metrics["test/edges/ods_f1"] == pytest.approx(row["metrics"]["test/edges/ods_f1"])
    assert run.data.metrics["cost/passes"] == pytest.approx(row["passes"])
    assert [item.path for item in search.client().list_artifacts(parent.info.run_id)] == ["transfer.json"]


def test_the_report_has_the_curves_and_the_verdict(search, stage):
    page = (search.out / "report" / "index.html").read_text()
    assert "Unseen tasks" in page and "edges, finetuned: meta against dense" in page
    assert "fewer than 5 seeds claim nothing" in page
    for name in ("transfer-edges.png", "transfer-edges.svg", "transfer.csv"):
        assert (search.out / "report" / name).stat().st_size > 0
    assert "edges, joint: meta against dense" in stage[1]


def test_from_python_it_is_the_same_and_what_is_done_is_not_done_again(search, record, monkeypatch):
    monkeypatch.chdir(search.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    given = {"arms": ["meta"], "tasks": ["edges"], "shots": [4, None], "steps": 4, "progress": False}
    result = transfer_selected(search.out, **given)
    assert result.complete and not result.lacks and result.report == search.out / "report" / "index.html"
    assert len(result.table) == len(record["rows"]) and "edges, joint: meta against dense" in str(result)
    with pytest.raises(ConfigError, match="--shots takes numbers of at least 2, and 'all', but got '1'"):
        transfer_selected(search.out, **given | {"shots": [1]})


def test_other_labels_are_added_and_the_models_may_come_from_mlflow(search, stage):
    run_id = search.record["mlflow"]["run_id"]
    options = ["--comparison", run_id, "--arms", "meta", "--task", "count"]
    options += ["--shots", "4", "--steps", "4", "--modes", "frozen"]
    status, shown, errors = ended(search.folder, *options)
    assert (status, errors) == (0, ""), shown + errors
    record = json.loads((search.folder / f"transfer-{run_id}" / "transfer.json").read_text())
    assert [row["task"] for row in record["rows"]].count("count") == 2 * 2 * 2
    assert [row["task"] for row in record["rows"]].count("edges") == 40  # from MLflow
    assert "count, frozen: meta against dense" in shown and "edges, joint: meta against dense" in shown


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--task", "edge"], "unknown unseen task 'edge': did you mean 'edges'? Known: edges, count."),
        (["--shots", "65"], "--shots 65 is more than the 64 labels of 'edges' in the train split"),
        (["--shots", "1,all"], "--shots takes numbers of at least 2, and 'all', but got '1'"),
        (["--modes", "frozn"], "unknown mode 'frozn': did you mean 'frozen'?"),
        (["--arms", "optuna"], "unknown arm 'optuna': Known: dense, random, meta."),
        (["--draws", "0"], "`--draws 1` or more must hold, but got 0"),
        (["--steps", "8"], "holds adaptations with steps=4, and now it is 8"),
    ],
)
def test_what_cannot_be_is_one_clear_line(options, problem, search, stage, refused):
    errors = refused(search.folder, "--comparison", "out", *options)
    assert problem in errors and errors.count("\n") == 1


def test_two_at_a_time_in_one_folder_are_refused(search, stage, refused):
    with alone(search.out / "transfer"):
        errors = refused(search.folder, "--comparison", "out", *FEW)
    assert "another process is at work in" in errors and errors.count("\n") == 1


def test_a_comparison_without_its_models_or_of_another_version_is_refused(search, stage, tmp_path, refused):
    copy = tmp_path / "out"
    shutil.copytree(search.out, copy, ignore=shutil.ignore_patterns("tune-*", "transfer"))
    shutil.copy(search.folder / "mlflow.db", tmp_path)
    shutil.copytree(search.folder / "mlruns", tmp_path / "mlruns")
    shutil.rmtree(copy / "best" / "meta-1")
    errors = refused(tmp_path, "--comparison", "out", *FEW)
    assert "meta-1 holds no model: give the comparison's MLflow run id" in errors
    record = json.loads((copy / "comparison.json").read_text())
    (copy / "comparison.json").write_text(json.dumps(record | {"format": 7}))
    errors = refused(tmp_path, "--comparison", "out", *FEW)
    assert "has record format 7, this version reads 1" in errors


def test_a_comparison_that_was_stopped_is_refused(search, stage, tmp_path, refused):
    copy = tmp_path / "out"
    shutil.copytree(search.out, copy, ignore=shutil.ignore_patterns("tune-*", "transfer"))
    shutil.copy(search.folder / "mlflow.db", tmp_path)
    shutil.copytree(search.folder / "mlruns", tmp_path / "mlruns")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    client.set_terminated(search.record["mlflow"]["run_id"], "KILLED")
    errors = refused(tmp_path, "--comparison", "out", *FEW)
    assert (
        "the comparison out has not ended (KILLED): let the search finish, or go on with it by --resume" in errors
    )
