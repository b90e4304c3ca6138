"""The queue of uptakes and its journal: every uptake is run once, and its row says what it cost."""

import json
from pathlib import Path
from typing import Any

import pytest

from ms_automl.comparison.run import Report
from ms_automl.data import MultiTaskData
from ms_automl.driver.transfer.journal import TransferJournal
from ms_automl.driver.transfer.queue import TransferQueue
from ms_automl.driver.transfer.stored import TransferBackup, store_models, stored_lines
from ms_automl.driver.transfer.uptake import Uptake, plan
from ms_automl.errors import ConfigError
from ms_automl.samplers.base import DONE, WAIT
from ms_automl.storage.remote import Storage
from ms_automl.tuning.trouble import LOST

DIGESTS = {("dense", 0): "d0", ("meta", 0): "m0", ("dense", 1): "d1", ("meta", 1): "m1"}
METRIC = "val/bright/accuracy"


def test_the_plan_has_every_start_once_seed_by_seed_and_new_weights_never_jointly() -> None:
    uptakes = plan(DIGESTS, ["bright"], ["frozen", "joint"], [16, None], 2)
    assert len(uptakes) == len(set(uptakes)) == 2 * 2 * (2 * 4 + 2 * 2)  # seeds, draws, shots x starts
    assert [uptake.seed for uptake in uptakes] == sorted(uptake.seed for uptake in uptakes)
    assert {uptake.weights for uptake in uptakes if uptake.mode == "joint"} == {"trained"}
    assert {uptake.digest for uptake in uptakes if uptake.seed == 1 and uptake.arm == "meta"} == {"m1"}


def test_all_models_of_a_seed_get_the_same_draw_and_no_draw_comes_twice() -> None:
    uptakes = plan(DIGESTS, ["bright"], ["frozen"], [16], 3)
    drawn = {(uptake.seed, uptake.draw): uptake.fresh_seed for uptake in uptakes}
    assert all(uptake.fresh_seed == drawn[uptake.seed, uptake.draw] for uptake in uptakes)
    assert len(set(drawn.values())) == len(drawn) == 6


class Told:
    def __init__(self) -> None:
        self.lines: list[Any] = []

    def uptake_started(self, uptake: Uptake) -> None:
        self.lines.append(("started", uptake.name))

    def uptake_reported(self, uptake: Uptake, metrics: dict[str, float]) -> None:
        self.lines.append(("reported", metrics["step"]))

    def uptake_ended(self, uptake: Uptake, row: dict[str, Any]) -> None:
        self.lines.append(("ended", row["status"], row["passes"]))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def report(interval: int, done: bool = False, error: str | None = None, value: float = 0.5) -> Report:
    metrics = {} if error else {"step": 4.0 * (interval + 1), METRIC: value, "sparsity/layer/stem": 0.0}
    return Report(interval, metrics, {"train": 10.0, "forward": 2.0}, 3.0, 3.0, done, error)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock, told: Told) -> TransferQueue:
    uptakes = plan({("dense", 0): "d0", ("meta", 0): "m0"}, ["bright"], ["joint"], [16], 1)
    models = {("dense", 0): str(tmp_path), ("meta", 0): str(tmp_path)}
    return TransferQueue(uptakes, models, {"bright": "accuracy"}, 4, lambda uptake: 40.0, [told], clock=clock)


def test_it_hands_out_every_uptake_and_then_says_so(queue: TransferQueue, tmp_path: Path) -> None:
    first, second = queue.next("a"), queue.next("b")
    assert [config.suggestion.params["uptake"]["arm"] for config in (first, second)] == ["dense", "meta"]
    assert first.suggestion.params["model"] == str(tmp_path)
    assert queue.next("c") is WAIT
    for name in ("a", "b"):
        queue.report(name, report(0, done=True))
        queue.end(name, report(0, done=True))
    assert queue.next("c") is DONE


def test_one_whose_process_is_lost_begins_again_and_what_it_had_cost_is_lost(
    queue: TransferQueue, told: Told, clock: Clock, tmp_path: Path
) -> None:
    queue.retries = 1
    journal = TransferJournal(tmp_path, "run", {})
    queue.recorders = [told, journal]
    first = queue.next("a")
    queue.started("a")
    queue.report("a", report(0))
    queue.end("a", lost=LOST)
    assert queue.next("b") == first and ("ended", "FAILED", 22.0) not in told.lines
    queue.started("b")
    queue.report("b", report(0))
    queue.report("b", report(1, done=True))
    queue.end("b", report(1, done=True))
    assert told.lines[-1] == ("ended", "FINISHED", 24.0)
    for known in (journal, TransferJournal(tmp_path, "run", {})):
        (row,) = known._rows.values()
        assert row["lost_passes"] == 22.0 and len(row["curve"]) == 2


def test_after_too_many_losses_it_has_failed(queue: TransferQueue, told: Told) -> None:
    queue.retries = 1
    for name in ("a", "b"):
        queue.next(name)
        queue.started(name)
        queue.end(name, lost=LOST)
    assert told.lines[-1] == ("ended", "FAILED", 10.0) and queue.lost == {next(iter(queue.lost)): [10.0]}


def test_a_row_adds_up_its_reports_each_counted_once(queue: TransferQueue, told: Told) -> None:
    queue.next("a")
    queue.started("a"), queue.started("a")
    for index in (0, 1, 1):
        queue.report("a", report(index))
    queue.report("a", report(2, done=True, value=float("nan")))
    queue.end("a", report(2, done=True))
    assert told.lines == [
        ("started", "bright/dense-0/joint/16/0"),
        ("reported", 4.0), ("reported", 8.0), ("reported", 12.0), ("ended", "FINISHED", 36.0),
    ]  # fmt: skip


def test_one_that_fails_or_dies_is_a_row_with_what_it_cost(queue: TransferQueue, told: Told, clock: Clock) -> None:
    queue.next("a"), queue.next("b")
    queue.started("a"), queue.started("b")
    queue.report("a", report(0, done=True, error="no"))
    queue.report("b", report(0))
    clock.now = 7.0
    assert queue.silence("b") == 7.0 and queue.silence("a") == 0.0
    queue.end("b", lost=LOST)
    assert told.lines[-1] == ("ended", "FAILED", 12.0 + 40.0 / 4)
    assert ("ended", "FAILED", 12.0) in told.lines


def test_what_is_stopped_is_told_so(queue: TransferQueue, told: Told) -> None:
    queue.next("a")
    queue.stop("stopped by Ctrl-C")
    assert told.lines[-1][:2] == ("ended", "KILLED")
    assert not queue.running


UPTAKE = Uptake("meta", 0, "m0", "trained", "frozen", "bright", 16, 0)


def row(uptake: Uptake, status: str = "FINISHED") -> dict[str, Any]:
    return vars(uptake) | {"status": status, "error": None, "curve": [], "metrics": {}, "passes": 1.0}


def test_a_journal_knows_what_is_done_and_failures_run_again(tmp_path: Path) -> None:
    other = Uptake("meta", 0, "m0", "trained", "frozen", "bright", None, 0)
    killed = Uptake("meta", 0, "m0", "trained", "joint", "bright", None, 0)
    journal = TransferJournal(tmp_path, "run", {"steps": 4})
    journal.uptake_ended(UPTAKE, row(UPTAKE))
    journal.uptake_ended(other, row(other, "FAILED"))
    journal.uptake_ended(killed, row(killed, "KILLED"))
    with (tmp_path / "trials.jsonl").open("a") as file:
        file.write('{"arm": "me')  # the line being written when the driver died
    again = TransferJournal(tmp_path, "run", {"steps": 4})
    assert again.done() == {UPTAKE}
    again.uptake_ended(other, row(other))
    assert TransferJournal(tmp_path, "run", {"steps": 4}).done() == {UPTAKE, other}


def test_what_failed_attempts_had_cost_is_said_beside_what_counts(
    tmp_path: Path, tiny_data: MultiTaskData
) -> None:
    journal = TransferJournal(tmp_path, "run", {})
    for status, passes in (("FAILED", 3.0), ("KILLED", 2.0), ("FINISHED", 10.0)):
        journal.uptake_ended(UPTAKE, row(UPTAKE, status) | {"passes": passes})
    for known in (journal, TransferJournal(tmp_path, "run", {})):
        (one,) = known.content(tiny_data, {})["rows"]
        assert (one["status"], one["passes"], one["lost_passes"]) == ("FINISHED", 10.0, 5.0)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Of the stage, on three machines."""
    found = [tmp_path / name for name in ("here", "there", "again")]
    for folder in found:
        folder.mkdir()
    return found


def test_what_mlflow_holds_of_the_stage_counts_as_done(folders: list[Path], tiny_data: MultiTaskData) -> None:
    here, there, again = folders
    first = TransferJournal(here, "run", {"steps": 4})
    first.uptake_ended(UPTAKE, row(UPTAKE))
    recorded = first.content(tiny_data, {})
    second = TransferJournal(there, "run", {"steps": 4}, recorded)
    assert second.done() == {UPTAKE}
    assert second.content(tiny_data, {})["rows"] == recorded["rows"]
    with pytest.raises(ConfigError, match=r"records in MLflow holds uptakes with steps=4, and now it is 8"):
        TransferJournal(again, "run", {"steps": 8}, recorded)


def test_what_the_storage_holds_of_the_stage_counts_as_done_and_is_written_down(
    folders: list[Path], tmp_path: Path, tiny_data: MultiTaskData
) -> None:
    here, there, again = folders
    storage = Storage(str(tmp_path / "store"))
    first, backup = TransferJournal(here, "run", {"steps": 4}), TransferBackup(here, storage)
    other = Uptake("meta", 0, "m0", "trained", "frozen", "bright", None, 0)
    backup.begin()
    for uptake, status in ((UPTAKE, "FAILED"), (UPTAKE, "FINISHED"), (other, "KILLED")):
        for recorder in (first, backup):
            recorder.uptake_ended(uptake, row(uptake, status))
    backup.close()
    lines = stored_lines(storage, there, print)
    assert lines[0] == first.head and len(lines) == 4
    second = TransferJournal(there, "run", {"steps": 4}, stored=lines)
    second.uptake_ended(other, row(other))
    for _ in range(2):  # the storage's lines are its own now: nothing is counted twice
        second = TransferJournal(there, "run", {"steps": 4}, stored=lines)
        assert second.done() == {UPTAKE, other}
        lost = {one["shots"]: one["lost_passes"] for one in second.content(tiny_data, {})["rows"]}
        assert lost == {16: 1.0, None: 1.0}
    for digests in ((), ["m1", "d0"]):
        with pytest.raises(ConfigError, match=r"storage belongs to comparison run, this is another: name a new"):
            TransferJournal(again, "another", {"steps": 4}, stored=lines, digests=digests)
    known = TransferJournal(again, "another", {"steps": 4}, stored=lines, digests=["m0", "d0"])
    assert known.done() == {UPTAKE}


def test_models_are_stored_once_under_their_weights_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "best" / "meta-0"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_text("weights")
    storage, key = Storage(str(tmp_path / "store")), ("meta", 0)
    place = store_models(storage, {key: model}, {key: "0123"})[key]
    assert (Path(place) / "model.safetensors").read_text() == "weights"
    copied: list[str] = []
    monkeypatch.setattr(Storage, "copy", lambda self, folder, name: copied.append(name))
    assert store_models(storage, {key: model}, {key: "0123"}) == {key: place} and not copied
    store_models(storage, {key: model}, {key: "4567"})
    assert copied == ["meta-0-4567"]
    with pytest.raises(ConfigError, match=r"no models can be stored in /proc/nowhere/store"):
        store_models(Storage("/proc/nowhere/store"), {}, {})


def test_one_whose_process_never_came_up_has_cost_nothing(queue: TransferQueue, told: Told) -> None:
    queue.next("a")
    queue.give_up("a", "no process")
    assert told.lines[-1] == ("ended", "FAILED", 0.0)


def test_rows_of_a_model_that_was_replaced_are_left_out(tmp_path: Path, tiny_data: MultiTaskData) -> None:
    journal = TransferJournal(tmp_path, "run", {})
    new = Uptake("meta", 0, "m9", "trained", "frozen", "bright", 16, 0)
    for uptake in (UPTAKE, new):
        journal.uptake_ended(uptake, row(uptake))
    content = journal.content(tiny_data, {("meta", 0): "m9"})
    assert [one["digest"] for one in content["rows"]] == ["m9"]
    assert content["tasks"] == {"bright": {"metric": "accuracy", "direction": "max", "unit": "share of images"}}
    json.dumps(content, allow_nan=False)


@pytest.mark.parametrize(
    ("run_id", "settings", "problem"),
    [
        ("other", {"steps": 4}, "belongs to comparison run, this is other: name a new folder"),
        ("run", {"steps": 8}, "holds uptakes with steps=4, and now it is 8: give the same, or delete"),
    ],
)
def test_another_comparison_or_other_settings_are_refused(
    run_id: str, settings: dict[str, int], problem: str, tmp_path: Path
) -> None:
    TransferJournal(tmp_path, "run", {"steps": 4})
    with pytest.raises(ConfigError, match=problem):
        TransferJournal(tmp_path, run_id, settings)
