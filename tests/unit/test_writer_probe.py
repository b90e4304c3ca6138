"""Outages are told from what a store will never take by trying it, on real stores."""

import http.server
import json
import shutil
import sqlite3
import threading
import time

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    BAD_REQUEST,
    INTERNAL_ERROR,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
)

from ms_automl.callbacks.mlflow import Tracker
from ms_automl.callbacks.mlflow.writer import Writer
from ms_automl.comparison.run import Run, Trial
from ms_automl.errors import TrackingError
from tests.unit.stores import store

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


@pytest.fixture
def tracker(tmp_path):
    tracker = Tracker(store(tmp_path))
    tracker.begin("one", {"preset": "none"}, {"a": 1})
    return tracker


def trial_of(tracker, name="arm-0"):
    run = Run("arm", 0, "scalar", 10.0, ("m",), 3)
    trial = Trial(name, run.name, 0, "m", {"lambda": 0.1}, {})
    tracker.run_opened(run)
    tracker.trial_started(run, trial)
    return run, trial


def idle(tracker):
    """Everything that was put is written, or lost."""
    written = threading.Event()
    tracker.writer.put(lambda attempt: written.set())
    assert written.wait(60)


def closed(tracker):
    began = time.monotonic()
    tracker.finish({"rows": []}, {}, "FINISHED")
    return time.monotonic() - began


def ended(tracker, run, trial):
    trial.status = "FINISHED"
    tracker.trial_reported(run, trial, {"val/objective": 1.0, "step": 1.0})
    tracker.trial_ended(run, trial)


def failing(code, times=99):
    left = [MlflowException("it is so", error_code=code) for _ in range(times)]

    def write(attempt):
        if left:
            raise left.pop()

    return write


@pytest.mark.parametrize("code", [INTERNAL_ERROR, BAD_REQUEST])
def test_a_write_that_fails_while_others_are_taken_is_given_up_and_those_behind_it_are_written(code):
    probed, written, said = [], [], []
    writer = Writer(lambda: probed.append(1), said.append)
    writer.put(failing(code))
    writer.put(lambda attempt: written.append(attempt))
    began = time.monotonic()
    writer.start()
    writer.close()
    assert time.monotonic() - began < 5
    assert (writer.lost, writer.lacks, writer.written) == ("it is so", 1, 1)
    assert written == [0] and len(probed) == 3
    assert said == ["not in MLflow: it is so"]


def test_a_store_that_comes_and_goes_loses_nothing():
    writer = Writer(lambda: None)
    writer.put(failing(TEMPORARILY_UNAVAILABLE, times=3))
    writer.start()
    writer.close()
    assert writer.lost is None and writer.written == 1


def test_a_store_that_is_away_is_waited_for_whatever_code_its_errors_have():
    away = [True]

    def probe():
        if away.pop() if away else False:
            raise MlflowException("away", error_code=INTERNAL_ERROR)

    away += [True]
    writer = Writer(probe)
    writer.put(failing(BAD_REQUEST, times=4))
    writer.start()
    writer.close()
    assert writer.lost is None


def test_a_probe_that_is_refused_for_good_ends_the_waiting():
    writer = Writer(lambda: failing(RESOURCE_DOES_NOT_EXIST)(0))
    writer.put(failing(INTERNAL_ERROR))
    began = time.monotonic()
    writer.start()
    writer.close()
    assert time.monotonic() - began < 2 and writer.lost == "it is so"


def test_what_could_not_be_waited_for_says_the_store_s_own_reason():
    writer = Writer(patience=0.5)
    writer.put(failing(TEMPORARILY_UNAVAILABLE))
    writer.put(failing(TEMPORARILY_UNAVAILABLE))
    writer.start()
    writer.close()
    assert writer.lost == "the store did not answer for 0.5 s: it is so" and writer.lacks == 2


def test_a_run_that_a_person_deletes_in_the_middle_is_said_at_once_and_no_other_is_lost(tracker):
    run, first = trial_of(tracker)
    second = Trial("b", run.name, 1, "m", {}, {})
    tracker.trial_started(run, second)
    idle(tracker)
    tracker.client.delete_run(tracker.runs[first.name])
    for trial in (first, second):
        ended(tracker, run, trial)
    assert closed(tracker) < 60
    assert "must be in the 'active' state" in tracker.writer.lost and tracker.writer.lacks == 3
    found = tracker.client.get_run(tracker.runs[second.name])
    assert found.info.status == "FINISHED" and found.data.metrics == {"val/objective": 1.0}


def test_an_experiment_that_a_person_deletes_in_the_middle_is_said_at_once(tracker):
    run, trial = trial_of(tracker)
    idle(tracker)
    tracker.client.delete_experiment(tracker.experiment)
    tracker.trial_started(run, Trial("c", run.name, 2, "m", {"lambda": 1.0}, {}))
    ended(tracker, run, trial)
    assert closed(tracker) < 60
    assert "must be in the 'active' state" in tracker.writer.lost


def test_what_belongs_to_a_run_that_could_not_be_made_gives_no_reasons_of_its_own(tracker, monkeypatch):
    def refuse(*args, **options):
        raise MlflowException("no more runs", error_code=INTERNAL_ERROR)

    monkeypatch.setattr(tracker.client, "create_run", refuse)
    run, trial = trial_of(tracker)
    ended(tracker, run, trial)
    assert closed(tracker) < 60
    assert tracker.writer.lost == "no more runs" and tracker.writer.lacks == 7


def read_only(file):
    """Have SQLite refuse to write a file, for whichever user: of a form that only a later version writes."""
    with file.open("r+b") as database:
        database.seek(18)
        database.write(b"\x03")


def test_a_database_that_becomes_read_only_is_no_outage(tracker, tmp_path):
    run, trial = trial_of(tracker)
    idle(tracker)
    tracker.client._tracking_client.store.engine.dispose()
    read_only(tmp_path / "mlflow.db")
    ended(tracker, run, trial)
    assert closed(tracker) < 60
    assert tracker.writer.lost == "(sqlite3.OperationalError) attempt to write a readonly database"


@pytest.mark.fault
def test_a_database_that_somebody_else_holds_is_waited_for(tracker, tmp_path):
    run, trial = trial_of(tracker)
    idle(tracker)
    other = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(
        23, lambda: (other.execute("ROLLBACK"), other.close())
    )  # MLflow itself waits for 20 s
    release.start()
    ended(tracker, run, trial)
    closed(tracker)
    release.join()
    assert tracker.writer.lost is None
    assert tracker.client.get_run(tracker.runs[trial.name]).info.status == "FINISHED"


def test_a_folder_of_artifacts_that_cannot_be_written_loses_those_alone(tracker, tmp_path):
    idle(tracker)
    shutil.rmtree(tmp_path / "mlruns")
    (tmp_path / "mlruns").write_text("a file, where a folder was")
    run, trial = trial_of(tracker)
    ended(tracker, run, trial)
    assert closed(tracker) < 60
    assert "Not a directory" in tracker.writer.lost and tracker.writer.lacks == 1
    assert tracker.client.get_run(tracker.runs[trial.name]).data.metrics == {"val/objective": 1.0}
    assert tracker.client.get_run(tracker.run_id).info.status == "FINISHED"


def test_a_parameter_that_has_another_value_already_is_said_with_the_store_s_whole_reason(tracker):
    run, trial = trial_of(tracker)
    trial.values["lambda"] = 0.2
    tracker.trial_started(run, trial)
    ended(tracker, run, trial)
    assert closed(tracker) < 60
    assert "Changing param values is not allowed" in tracker.writer.lost and tracker.writer.lacks == 1


def test_values_that_no_table_holds_and_long_texts_are_taken(tracker):
    run, trial = trial_of(tracker)
    trial.metrics = {"a": float("nan"), "b": float("inf"), "c": -1e300, "step": 1.0}
    trial.status, trial.error = "FAILED", "x" * 20_000
    tracker.trial_reported(run, trial, trial.metrics)
    tracker.trial_ended(run, trial)
    closed(tracker)
    assert tracker.writer.lost is None


class Answering(http.server.BaseHTTPRequestHandler):
    def answer(self):
        self.server.asked += 1
        body = json.dumps(self.server.body).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815 as the base class calls them

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.asked, server.body, server.status = 0, {}, 200
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("body", [{"message": "its own words"}, {"detail": "its own words"}, "its own words"])
@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (403, "have its owner let you write there"),
        (404, "to the address of an MLflow server"),
    ],
)
def test_what_a_server_answers_is_told_with_the_remedy_for_that(server, status, remedy, body):
    server.status, server.body = status, body
    with pytest.raises(TrackingError) as error:
        Tracker(f"http://me:secret@127.0.0.1:{server.server_port}")
    said = str(error.value)
    assert "its own words" in said and remedy in said
    assert "secret" not in said and "start it" not in said


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_fails_is_to_be_looked_after(server, status):
    server.status = status
    with pytest.raises(TrackingError, match=rf"{status} error responses.*look into the server's log"):
        Tracker(f"http://127.0.0.1:{server.server_port}")


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_lets_nobody_write_any_more_is_not_waited_for(server, status):
    tracker = object.__new__(Tracker)
    tracker.uri = f"http://127.0.0.1:{server.server_port}"
    server.status = status
    writer = Writer(tracker._probe)
    writer.put(failing(INTERNAL_ERROR))
    began = time.monotonic()
    writer.start()
    writer.close()
    assert time.monotonic() - began < 5 and writer.lost == "it is so"


def test_a_server_that_is_not_there_is_to_be_started(server):
    with pytest.raises(TrackingError, match=r"refused.*start it, or set MLFLOW_TRACKING_URI to one that runs"):
        Tracker("http://127.0.0.1:9")
