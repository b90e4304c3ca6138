"""The copy that another head goes on from: in a folder for real; a bucket is in the tests of faults."""

import json
import threading
import zipfile

import pytest

from ms_automl.callbacks.backup import FILES, OWNER, RECORD, Backup, check_own, fetch, last_heartbeat
from ms_automl.errors import ConfigError, DataError
from ms_automl.storage.remote import Storage

RECORDED = {"format": 1, "mlflow": {"run_id": "1", "tracking_uri": "sqlite:///../mlflow.db"}}


@pytest.fixture
def places(tmp_path):
    """Folder of a comparison, its storage, and the folder of another head."""
    out = tmp_path / "mine"
    out.mkdir()
    (out / "comparison.json").write_text(json.dumps(RECORDED))
    (out / "events.jsonl").write_text("1\n")
    return out, Storage(str(tmp_path / "shared" / "mine")), tmp_path / "other" / "mine"


def copied(storage):
    with zipfile.ZipFile(f"{storage.address}/{RECORD}") as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def until(true):
    for _ in range(2000):
        if true():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came")


def test_what_files_hold_at_one_moment_is_copied_as_they_grow(places):
    out, storage, _ = places
    backup = Backup(out, storage, every=0.01)
    backup.begin()
    assert copied(storage)["events.jsonl"] == "1\n" and set(copied(storage)) <= set(FILES)
    with (out / "events.jsonl").open("a") as file:
        file.write("2\n")
    (out / "optuna.journal").write_text("a\n")
    backup.trial_ended(None, None)
    with (out / "events.jsonl").open("a") as file:
        file.write("3\n")  # of a later moment, which nobody has told of yet
    until(lambda: "optuna.journal" in copied(storage))
    assert copied(storage)["events.jsonl"] == "1\n2\n"
    backup.close()
    assert copied(storage)["events.jsonl"] == "1\n2\n3\n"
    assert backup.trouble is None


def test_reports_alone_are_copied_from_time_to_time(places, monkeypatch):
    out, storage, _ = places
    made, write = [], Storage.write
    monkeypatch.setattr(
        Storage, "write", lambda self, name, content: (made.append(name), write(self, name, content))
    )
    backup = Backup(out, storage, every=0.001, heartbeat=0.001)
    backup.begin()

    def report(count):
        (out / "events.jsonl").write_text("1\n" * count)
        backup.trial_reported(None, None, {})
        heartbeats = last_heartbeat(storage).beats
        until(lambda: last_heartbeat(storage).beats > heartbeats + 5)

    report(2)
    assert made.count(RECORD) == 1
    monkeypatch.setattr("ms_automl.callbacks.backup.AT_LEAST", 0.01)
    report(3)
    until(lambda: copied(storage)["events.jsonl"] == "1\n1\n1\n")
    copies = made.count(RECORD)
    report(3)
    assert made.count(RECORD) == copies  # nothing new
    backup.close()


def test_results_are_copied_at_the_end_and_the_driver_says_that_it_has_ended(places):
    out, storage, _ = places
    backup = Backup(out, storage)
    backup.begin()
    assert not last_heartbeat(storage).ended
    (out / "report").mkdir()
    (out / "report" / "index.html").write_text("page")
    backup.close()
    assert (out.parent / "shared" / "mine" / "report" / "index.html").read_text() == "page"
    assert last_heartbeat(storage).ended and last_heartbeat(storage).driver == backup.driver


def test_a_state_is_deleted_once_no_copy_names_it(places):
    out, storage, _ = places
    state = out.parent / "shared" / "mine" / "state"
    state.mkdir(parents=True)
    backup = Backup(out, storage, every=1000)
    backup.begin()
    backup.remove(str(state))
    assert state.is_dir()
    backup.close()
    assert not state.exists()


def test_a_store_that_is_away_holds_nothing_up_and_loses_nothing(places, monkeypatch):
    out, storage, _ = places
    state = out.parent / "shared" / "mine" / "state"
    backup = Backup(out, storage, every=0.01)
    backup.begin()
    state.mkdir()
    written, away = Storage.write, OSError("away")

    def write(self, name, content):
        raise away

    monkeypatch.setattr(Storage, "write", write)
    (out / "events.jsonl").write_text("1\n2\n")
    backup.remove(str(state))
    backup.trial_ended(None, None)
    until(lambda: backup.trouble)
    assert "away" in backup.trouble and state.is_dir()
    monkeypatch.setattr(Storage, "write", written)
    until(lambda: not state.exists() and backup.trouble is None)
    assert copied(storage)["events.jsonl"] == "1\n2\n"
    backup.close()


def test_a_store_that_cannot_be_written_is_said_before_anything_runs(places, monkeypatch):
    out, storage, _ = places
    away = OSError("away")

    def write(self, name, content):
        raise away

    monkeypatch.setattr(Storage, "write", write)
    backup = Backup(out, storage)
    with pytest.raises(ConfigError, match=r"nothing can be stored in .*: away"):
        backup.begin()
    backup.close()


def test_the_driver_gives_signs_of_life(places):
    out, storage, _ = places
    backup = Backup(out, storage, heartbeat=0.01)
    backup.begin()
    until(lambda: last_heartbeat(storage).beats > 3)
    backup.close()


def test_another_head_gets_all_of_it_and_looks_for_its_runs_in_any_store(places):
    out, storage, other = places
    backup = Backup(out, storage)
    backup.begin()
    backup.close()
    said = []
    fetch(other, storage, said.append)
    assert (other / "events.jsonl").read_text() == "1\n"
    assert json.loads((other / "comparison.json").read_text())["mlflow"] == {"run_id": "1", "tracking_uri": None}
    assert said == [f"fetched from {storage.address}: events.jsonl, comparison.json"]


def test_a_driver_that_is_still_at_work_is_not_replaced(places):
    out, storage, other = places
    backup = Backup(out, storage, heartbeat=0.01)
    backup.begin()
    with pytest.raises(ConfigError, match=r"another driver is at work on .*, on host "):
        fetch(other, storage, str, heartbeat=0.2)
    backup.close()
    assert not other.exists()


def test_one_that_was_lost_is(places):
    out, storage, other = places
    Backup(out, storage, heartbeat=1000).begin()  # leaves no further heartbeat
    fetch(other, storage, str, heartbeat=0.01)
    assert (other / "comparison.json").exists()


def test_what_another_comparison_has_stored_is_not_written_over(places):
    out, storage, _ = places
    check_own(storage, None)
    backup = Backup(out, storage)
    backup.begin()
    backup.close()
    with pytest.raises(ConfigError, match="holds a comparison already: go on with it by --resume"):
        check_own(storage, None)
    with pytest.raises(ConfigError, match=r"went on elsewhere, on host .*Move --out away"):
        check_own(storage, {"drivers": ["another"]})
    check_own(storage, {"drivers": ["another", backup.driver]})


def test_without_a_copy_a_line_says_what_is_needed(places):
    _, storage, other = places
    with pytest.raises(ConfigError, match=r"no comparison.json in .*, and no copy of one in "):
        fetch(other, storage, str)
    assert not other.exists()


def pack(**files):
    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)

    return write


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b"no archive"),
        pack(**{"events.jsonl": "1\n"}),
        pack(**{"comparison.json": "{"}),
        pack(**{"comparison.json": "[]"}),
        pack(**{"comparison.json": "{}"}),
    ],
)
def test_a_damaged_copy_is_said_in_a_line_and_nothing_is_left_behind(places, write):
    out, storage, other = places
    (out.parent / "shared" / "mine").mkdir(parents=True)
    write(out.parent / "shared" / "mine" / RECORD)
    with pytest.raises(DataError, match=r"record.zip in .* is damaged"):
        fetch(other, storage, str)
    assert not (other / "comparison.json").exists() and not (other / "events.jsonl").exists()


def test_only_the_files_of_a_comparison_are_taken_out_of_it(places):
    out, storage, other = places
    (out.parent / "shared" / "mine").mkdir(parents=True)
    hostile = {"comparison.json": json.dumps(RECORDED), "../escaped": "x", "/escaped": "x", "best/model.json": "x"}
    pack(**hostile)(out.parent / "shared" / "mine" / RECORD)
    fetch(other, storage, str)
    assert {file.name for file in other.iterdir()} <= {"comparison.json", ".lock"}
    assert not (other.parent / "escaped").exists()


def test_a_damaged_sign_is_said_in_a_line(places):
    _, storage, _ = places
    storage.write(OWNER, b"{}")
    with pytest.raises(DataError, match=r"driver.json in .* is damaged"):
        last_heartbeat(storage)
