"""The transfer stage: every adaptation is run once, its row says what it cost, nothing that is done is lost."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ms_automl.comparison.events import FILE, TrialEvents
from ms_automl.comparison.run import Assignment, Callback, Report, Run, Trial
from ms_automl.config import load_config
from ms_automl.driver.transfer import earlier
from ms_automl.driver.transfer.experiment import Adaptation, TransferExperiment, adaptations
from ms_automl.driver.transfer.source import store_models
from ms_automl.driver.transfer.stage import Stage
from ms_automl.errors import ConfigError
from ms_automl.samplers.base import DONE, WAIT
from ms_automl.storage.remote import Storage
from ms_automl.tuning.run import LOST

DIGESTS = {("dense", 0): "d0", ("meta", 0): "m0", ("dense", 1): "d1", ("meta", 1): "m1"}
CONFIG = load_config("smoke", settings=["resources.retries=1"])
EXPERIMENT = TransferExperiment(CONFIG, settings=replace(CONFIG.training, steps=4, report_every=1))
DENSE, META = adaptations({("dense", 0): "d0", ("meta", 0): "m0"}, ["edges"], ["joint"], [16], 1)
INTERVAL = sum(EXPERIMENT.passes_of(DENSE).values()) / 4


def test_the_plan_has_every_start_once_seed_by_seed_and_new_weights_never_jointly() -> None:
    found = adaptations(DIGESTS, ["bright"], ["frozen", "joint"], [16, None], 2)
    assert len(found) == len(set(found)) == 2 * 2 * (2 * 4 + 2 * 2)  # seeds, draws, shots x starts
    assert [one.seed for one in found] == sorted(one.seed for one in found)
    assert {one.weights for one in found if one.mode == "joint"} == {"trained"}
    assert {one.digest for one in found if one.seed == 1 and one.arm == "meta"} == {"m1"}


def test_all_models_of_a_seed_get_the_same_draw_and_no_draw_comes_twice() -> None:
    found = adaptations(DIGESTS, ["bright"], ["frozen"], [16], 3)
    drawn = {(one.seed, one.draw): one.fresh_seed for one in found}
    assert all(one.fresh_seed == drawn[one.seed, one.draw] for one in found)
    assert len(set(drawn.values())) == len(drawn) == 6


class Told(Callback):
    def __init__(self) -> None:
        self.lines: list[Any] = []

    def trial_started(self, run: Run, trial: Trial) -> None:
        self.lines.append(("started", trial.shown_as))

    def trial_reported(self, run: Run, trial: Trial, metrics: dict[str, float]) -> None:
        self.lines.append(("reported", metrics["step"]))

    def trial_ended(self, run: Run, trial: Trial) -> None:
        self.lines.append(("ended", trial.status, trial.passes))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Driven:
    """A stage in a folder, whose trials are run by hand."""

    def __init__(self, folder: Path, asked: list[Adaptation], rows: list[dict[str, Any]] | None = None) -> None:
        self.clock, self.told, self.count = Clock(), Told(), 0
        log = earlier.log_of(folder, rows or ())
        self.stage = Stage(asked, EXPERIMENT, log, self.clock)
        self.scheduler = self.stage.scheduler
        self.stage.comparison.callbacks += [self.told, TrialEvents(log, self.stage.comparison)]

    def begin(self) -> str:
        """The next trial, in a process of its own."""
        self.count += 1
        answer = self.scheduler.next(name := f"process{self.count}")
        assert isinstance(answer, Assignment)
        self.scheduler.started(name)
        return name

    def finish(self, name: str, intervals: int = 4, **last: Any) -> None:
        for interval in range(intervals):
            one = report(interval, done=interval == intervals - 1, **(last if interval == intervals - 1 else {}))
            self.scheduler.report(name, one)
        self.scheduler.end(name, one)

    def all_of_it(self) -> "Driven":
        while self.stage.scheduler.next(name := f"process{self.count}") is not DONE:
            self.count += 1
            self.scheduler.started(name)
            self.finish(name)
        return self

    def rows(self, **present: str) -> list[dict[str, Any]]:
        return self.stage.rows({(arm, 0): digest for arm, digest in present.items()})


def report(interval: int, done: bool = False, error: str | None = None, value: float = 0.5) -> Report:
    metrics = {} if error else {"step": interval + 1.0, "val/edges/ods_f1": value, "sparsity/layer/stem": 0.0}
    return Report(interval, metrics, {"train": 10.0, "forward": 2.0}, 3.0, 3.0, done, error)


@pytest.fixture
def driven(tmp_path: Path) -> Driven:
    return Driven(tmp_path, [DENSE, META])


def test_it_hands_out_every_adaptation_and_then_says_so(driven: Driven) -> None:
    first, second = driven.scheduler.next("a"), driven.scheduler.next("b")
    assert isinstance(first, Assignment) and isinstance(second, Assignment)
    assert [one.suggestion.params["adaptation"]["arm"] for one in (first, second)] == ["dense", "meta"]
    assert driven.scheduler.next("c") is WAIT
    for name in ("a", "b"):
        driven.finish(name)
    assert driven.scheduler.next("c") is DONE
    assert not driven.stage.missing


def test_a_row_adds_up_its_reports_each_counted_once(driven: Driven) -> None:
    name = driven.begin()
    for index in (0, 1, 1, 2):
        driven.scheduler.report(name, report(index))
    last = report(3, done=True, value=math.nan)
    driven.scheduler.report(name, last)
    driven.scheduler.end(name, last)
    assert driven.told.lines == [
        ("started", "transfer/edges/dense-0/joint/16/0 d0"),
        *(("reported", float(step)) for step in (1, 2, 3, 4)),
        ("ended", "FINISHED", 48.0),
    ]
    (row,) = driven.rows()
    assert row["curve"] == [[1, 0.5], [2, 0.5], [3, 0.5], [4, None]]
    assert (row["passes"], row["lost_passes"], row["device_seconds"]) == (48.0, 0.0, 12.0)
    assert row["metrics"] == {"step": 4.0, "val/edges/ods_f1": None}
    json.dumps(row, allow_nan=False)


def test_one_whose_process_is_lost_begins_again_and_what_it_had_cost_is_lost(
    driven: Driven, tmp_path: Path
) -> None:
    name = driven.begin()
    driven.scheduler.report(name, report(0))
    driven.scheduler.end(name, lost=LOST)
    again = driven.begin()
    assert not [line for line in driven.told.lines if line[0] == "ended"]
    driven.finish(again)
    for one in (driven, Driven(tmp_path, [DENSE, META])):
        (row,) = one.rows()
        assert (row["passes"], row["lost_passes"]) == (48.0, 12.0) and len(row["curve"]) == 4


def test_after_too_many_losses_it_has_failed(driven: Driven) -> None:
    for _ in range(2):
        name = driven.begin()
        driven.scheduler.end(name, lost=LOST)
    assert driven.told.lines[-1] == ("ended", "FAILED", INTERVAL)
    assert driven.rows()[0]["lost_passes"] == INTERVAL


def test_one_that_fails_or_dies_is_a_row_with_what_it_cost(driven: Driven) -> None:
    first, second = driven.begin(), driven.begin()
    driven.finish(first, 1, error="no")
    driven.scheduler.report(second, report(0))
    driven.clock.now = 7.0
    assert driven.scheduler.silence(second) == 7.0 and driven.scheduler.silence(first) == 0.0
    driven.scheduler.give_up(second, "silent")
    failed = {row["arm"]: (row["status"], row["error"], row["passes"]) for row in driven.rows()}
    assert failed == {"dense": ("FAILED", "no", 12.0), "meta": ("FAILED", "silent", 12.0 + INTERVAL)}


def test_one_whose_process_never_came_up_has_cost_nothing(driven: Driven) -> None:
    driven.scheduler.next("a")
    driven.scheduler.give_up("a", "no process")
    assert driven.told.lines[-1] == ("ended", "FAILED", 0.0)


def test_what_failed_is_run_again_by_the_next_start_and_what_it_had_cost_is_said(
    driven: Driven, tmp_path: Path
) -> None:
    driven.finish(driven.begin(), 1, error="no")
    driven.all_of_it()
    assert driven.stage.missing == {DENSE}, "not by the same one"
    again = Driven(tmp_path, [DENSE, META])
    assert again.stage.pending == [DENSE]
    again.all_of_it()
    for one in (again, Driven(tmp_path, [DENSE, META])):
        assert {row["arm"]: row["lost_passes"] for row in one.rows()} == {"dense": 12.0, "meta": 0.0}
        assert {row["status"] for row in one.rows()} == {"FINISHED"}


def test_what_was_stopped_has_no_row_and_goes_on_first(driven: Driven, tmp_path: Path) -> None:
    driven.begin()
    other = driven.begin()
    driven.scheduler.report(other, report(0))
    driven.stage.comparison.stop("KILLED", "stopped by Ctrl-C")  # type: ignore[arg-type]
    assert driven.told.lines[-1][:2] == ("ended", "KILLED") and not driven.rows()
    with (tmp_path / FILE).open("a") as file:
        file.write('{"event": "cha')  # the line being written when the driver died
    third = replace(META, shots=None)
    again = Driven(tmp_path, [DENSE, META, third])
    assert again.stage.pending == [DENSE, META, third]
    again.all_of_it()
    lost = {(row["arm"], row["shots"]): row["lost_passes"] for row in again.rows()}
    assert lost == {("dense", 16): 0.0, ("meta", 16): 12.0 + INTERVAL / 2, ("meta", None): 0.0}


def test_what_was_stopped_and_is_not_asked_for_any_more_is_not_run(driven: Driven, tmp_path: Path) -> None:
    driven.begin(), driven.begin()
    again = Driven(tmp_path, [META])
    assert again.stage.pending == [META]
    assert len(again.all_of_it().rows()) == 1
    last = Driven(tmp_path, [DENSE, META])
    assert last.stage.pending == [DENSE]


def test_other_adaptations_are_added_to_what_is_there(driven: Driven, tmp_path: Path) -> None:
    driven.all_of_it()
    other = replace(META, mode="frozen")
    again = Driven(tmp_path, [other])
    assert again.stage.pending == [other]
    assert len(again.all_of_it().rows()) == 3


def test_rows_of_a_model_that_was_replaced_are_left_out(driven: Driven, tmp_path: Path) -> None:
    driven.all_of_it()
    again = Driven(tmp_path, [replace(META, digest="m9")]).all_of_it()
    assert {row["digest"] for row in again.rows(meta="m9")} == {"d0", "m9"}
    assert {row["digest"] for row in again.rows(meta="m0", dense="d1")} == {"m0"}


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


def test_what_records_tell_of_a_trial_is_what_adapted_to_what() -> None:
    one = replace(META, shots=None).suggestion
    assert one.title == "edges/meta-0/joint/all/0 m0"
    assert one.about | {"draw": "0"} == {
        "arm": "meta", "seed": "0", "weights": "trained", "mode": "joint", "task": "edges", "shots": "all",
        "draw": "0",
    }  # fmt: skip
    assert Adaptation.of(one.params["adaptation"]) == replace(META, shots=None)
    assert asdict(META)["digest"] == "m0"
