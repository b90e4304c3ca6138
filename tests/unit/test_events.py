"""The log of a comparison: what is written is read again, whatever moment its writer died at."""

import json
from dataclasses import replace

import pytest

from ms_automl.comparison.events import EARLIER, FILE, EventLog, TrialEvents, replay
from ms_automl.comparison.ledger import Charge
from ms_automl.comparison.run import Role, Run, Status, Trial
from ms_automl.errors import DataError

CHARGES = [Charge("random-0", f"random-0/0{n}", 0, interval, "train", 10.0) for n in (0, 1) for interval in (0, 1)]


class Clocked:
    """What a comparison is to who writes its events."""

    def __init__(self):
        self.began, self.now = 0.0, 0.0

    def clock(self):
        self.now += 1.0
        return self.now


def trial(run="random-0", index=0, **changes):
    return replace(Trial(f"id{index}", run, index, "fixed_lambda", {"lambda": 0.1}, {}, rungs=(2,)), **changes)


def written(folder):
    """A reference and a trial that have ended, one without its model, and one that runs."""
    log = EventLog(folder)
    events = TrialEvents(log, Clocked())
    dense, random = Run("dense", 0, "s", 1.0, (), 1, Role.REFERENCE), Run("random", 0, "s", 1.0, (), 3)
    log.charged(*CHARGES)
    for run, one in (
        (dense, trial("dense-0", course={10: {"d": 1.0}})),
        (random, trial()),
        (random, trial(index=1)),
        (random, trial(index=2)),
    ):
        events.trial_suggested(run, one)
        if one.index == 2:
            one.states = (str(folder / "tune" / "state"), "s3://bucket/state")
            events.trial_stored(run, one)
            continue
        one.status, one.at_rungs, one.warnings = Status.FINISHED, {2: 1.5}, ("so",)
        events.trial_ended(run, one)
        if one.index == 0:
            one.checkpoint = str(folder / "tune" / one.name)
            events.trial_stored(run, one)
    return log


def test_what_is_written_is_read_again(tmp_path):
    written(tmp_path)
    found = replay(tmp_path)
    assert found.charges == CHARGES
    assert [one.trial.name for one in found.ended] == ["dense-0/00", "random-0/00"]
    assert set(found.pending) == {"random-0/01", "random-0/02"}  # of the first nobody has the model
    ended = found.ended[1].trial
    assert (ended.status, ended.at_rungs, ended.warnings, ended.rungs) == (
        Status.FINISHED,
        {2: 1.5},
        ("so",),
        (2,),
    )
    assert found.ended[0].trial.course == {10: {"d": 1.0}} and ended.course == {}
    assert ended.checkpoint == str(tmp_path / "tune" / "random-0/00")
    assert found.pending["random-0/02"].trial.states == (str(tmp_path / "tune" / "state"), "s3://bucket/state")
    assert found.pending["random-0/01"].trial.status == Status.RUNNING


def test_what_lies_in_the_folder_is_found_where_the_folder_has_been_moved(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    written(before)
    before.rename(after)
    found = replay(after)
    assert found.ended[1].trial.checkpoint == str(after / "tune" / "random-0/00")


def test_an_empty_folder_has_done_nothing_and_reading_makes_no_file(tmp_path):
    assert replay(tmp_path).charges == replay(tmp_path).ended == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("left", [1, 10, -2, -1], ids=["a byte", "some", "almost all", "all but the line's end"])
def test_an_event_cut_off_by_a_crash_is_lost_alone(tmp_path, left):
    log = EventLog(tmp_path)
    log.charged(CHARGES[0])
    whole = log.path.read_text()
    log.charged(CHARGES[1])
    log.path.write_text(whole + log.path.read_text()[len(whole) :][:left])
    assert replay(tmp_path).charges == CHARGES[:1]
    for charge in CHARGES[2:]:  # each by a process of its own, after the crash
        EventLog(tmp_path).charged(charge)
    assert replay(tmp_path).charges == [CHARGES[0], *CHARGES[2:]]


@pytest.mark.parametrize("line", ["{", json.dumps({"run": "s"}), "[1, 2]", "", '{"event": "charge", "run": "s"}'])
def test_a_damaged_line_in_the_middle_is_named(tmp_path, line):
    log = EventLog(tmp_path)
    log.charged(CHARGES[0])
    log.path.write_text(f"{log.path.read_text()}{line}\n{log.path.read_text()}")
    with pytest.raises(DataError, match=r"events\.jsonl: line 2 is .*: restore the file from a copy"):
        replay(tmp_path)


def test_what_an_earlier_version_kept_in_two_files_is_taken_over_once_and_stays(tmp_path):
    new, old = tmp_path / "new", tmp_path / "old"
    new.mkdir(), old.mkdir()
    lines = lines_of(written(new).path)
    ledger, trials = [], []
    for line in lines:
        kind = line.pop("event")
        if kind == "charge":
            ledger.append({"stream" if key == "run" else key: value for key, value in line.items()})
        elif kind == "model":
            trials.append({"name": line["trial"], "checkpoint": line["place"]})
        else:
            names = {"run": "stream", "known": "told", "last_seen": "heard"}
            trials.append(line | {"trial": {names.get(key, key): value for key, value in line["trial"].items()}})
    for name, entries in zip(EARLIER, (ledger, trials), strict=True):
        (old / name).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    before = {path.name: path.read_text() for path in old.iterdir()}
    assert "stream" in before[EARLIER[0]] and '"told"' in before[EARLIER[1]]
    assert not (old / FILE).exists()
    first, log = replay(old), EventLog(old)  # read as it is, then made anew
    assert lines_of(log.path) == lines_of(new / FILE)
    for found in (first, replay(old)):
        assert found.charges == CHARGES
        assert [one.trial.name for one in found.ended] == ["dense-0/00", "random-0/00"]
        assert found.ended[1].trial.checkpoint == str(old / "tune" / "random-0/00")
        assert set(found.pending) == {"random-0/01", "random-0/02"}
    assert {name: (old / name).read_text() for name in EARLIER} == before


def test_a_log_in_which_a_trials_last_sign_of_life_has_its_earlier_name_is_read(tmp_path):
    log = EventLog(tmp_path)
    TrialEvents(log, Clocked()).trial_suggested(Run("random", 0, "s", 1.0, (), 3), trial(last_seen=7.0))
    log.path.write_text(log.path.read_text().replace('"last_seen"', '"heard"'))
    assert '"heard": 7.0' in log.path.read_text()
    assert replay(tmp_path).pending["random-0/00"].trial.last_seen == 7.0


def lines_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]
