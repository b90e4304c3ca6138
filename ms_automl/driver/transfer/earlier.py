"""What is known of a stage already: in its folder, storage and MLflow, from this version or earlier ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ms_automl.callbacks.backup import check_own, copied, wait_for_its_driver
from ms_automl.comparison.events import FILE, EventLog, event_of, replay
from ms_automl.comparison.ledger import INTERRUPTED, Charge
from ms_automl.comparison.run import Status, Trial
from ms_automl.config import upgraded
from ms_automl.driver.transfer.experiment import Adaptation
from ms_automl.driver.transfer.stage import NAME, adaptation_of, finished
from ms_automl.errors import ConfigError, DataError
from ms_automl.storage.files import json_lines, mend_lines, write_whole
from ms_automl.storage.remote import Storage
from ms_automl.training import TrainingSettings

FORMAT = 1
RECORD = "transfer.json"
EARLIER = "trials.jsonl"
"""Where earlier versions kept the head of the record, and a row for each adaptation that ended."""
FILES = (RECORD, FILE)
"""What a stage goes on from."""


def fetch(out: Path, storage: Storage, say: Callable[[str], None]) -> None:
    """Take the stage's files out of its storage where its folder has none; those it has must be the newest."""
    if any((out / name).exists() for name in (FILE, EARLIER)):
        if "drivers" in (record := head_of(out)):  # earlier versions kept none
            how = f"Move {out.name} away, and the same command goes on from the copy"
            check_own(storage, record, "stage", how)
        return
    wait_for_its_driver(storage, say)
    for name, part in (copied(storage, (*FILES, EARLIER)) or {}).items():
        write_whole(out / name, part)


def head_of(out: Path) -> dict[str, Any]:
    """What all adaptations of the stage in a folder share, {} where it has none; DataError where it is damaged."""
    if not (out / RECORD).exists():
        return next(json_lines(out / EARLIER), {})
    try:
        return dict(json.loads((out / RECORD).read_bytes()))
    except (TypeError, ValueError) as error:
        raise DataError(f"{out / RECORD} is damaged ({error}): delete it, the log beside it has all") from error


def check_head(
    head: Mapping[str, Any],
    recorded: Mapping[str, Any],
    adapted: Collection[str],
    digests: Collection[str],
    where: str,
) -> None:
    """Raise ConfigError where the head that was ``recorded`` is another comparison's, or had other settings.

    Where MLflow had lost the comparison and it got another run, the ``digests`` of its models say that what they
    have ``adapted`` is its own.
    """
    if not recorded:
        return
    own = bool(adapted) and set(adapted) <= set(digests)
    for key in ("format", "comparison"):
        if recorded.get(key) != head[key] and not (own and key == "comparison"):
            raise ConfigError(
                f"{where} belongs to {key} {recorded.get(key)}, this is {head[key]}: name a new folder with --out"
            )
    # As they are called now, and with those that an earlier version did not have.
    before = asdict(TrainingSettings()) | upgraded({"training": recorded["settings"]})["training"]
    for key, now in head["settings"].items():
        was = before.get(key)
        if was != now:
            raise ConfigError(
                f"{where} holds adaptations with {key}={was}, and now it is {now}: give the same, or delete the "
                "run 'transfer' in MLflow and the stage's folder to begin anew"
            )


def rows_in(out: Path) -> list[dict[str, Any]]:
    """The rows that an earlier version has left in a folder, where no log is there yet."""
    if (out / FILE).exists():
        return []
    mend_lines(out / EARLIER)
    return list(json_lines(out / EARLIER))[1:]


def digests_in(out: Path) -> set[str]:
    """Digests of the models that the stage in a folder has adapted."""
    return {str(row["digest"]) for row in rows_in(out)} | {adaptation_of(trial).digest for trial in _trials(out)}


def _trials(out: Path) -> list[Trial]:
    """The trials in the log of a stage; none where it has no log yet."""
    if not (out / FILE).exists():
        return []
    replayed = replay(out, models=False)
    return [entry.trial for entry in (*replayed.ended, *replayed.pending.values())]


def log_of(out: Path, recorded: Sequence[Mapping[str, Any]] = ()) -> EventLog:
    """The log of the stage, with what it lacks of the folder's earlier journal and of recorded rows.

    The journal has a row for each attempt; a recorded row says what all attempts at an adaptation had cost.
    """
    path, trials = out / FILE, _trials(out)
    events: list[dict[str, Any]] = []
    index = len(trials)
    done, logged = finished(trials), {adaptation_of(trial) for trial in trials}
    for rows, attempts in ((rows_in(out), True), (recorded, False)):
        for row in rows:
            adaptation, ended = Adaptation.of(row), row["status"] == Status.FINISHED
            if adaptation in done or (adaptation in logged and not attempts and not ended):
                continue
            events += _events(adaptation, row, index)
            index += 1
            logged.add(adaptation)
            if ended:
                done.add(adaptation)
    if path.exists():
        EventLog(out).append(*events)
    else:  # whole or not at all: from here on nobody looks for the journal
        write_whole(path, "".join(json.dumps(event) + "\n" for event in events).encode())
    return EventLog(out)


def _events(adaptation: Adaptation, row: Mapping[str, Any], index: int) -> Iterator[dict[str, Any]]:
    suggestion = adaptation.suggestion
    trial = Trial(f"earlier/{index}", NAME, index, suggestion.method, suggestion.values, suggestion.params)
    trial.title, trial.about = suggestion.title, suggestion.about
    trial.status, trial.error = Status(row["status"]), row["error"]
    trial.passes, trial.seconds = row["passes"], row.get("wall_seconds", 0.0)
    trial.device_seconds = row.get("device_seconds", 0.0)
    trial.metrics = {key: _number(value) for key, value in row["metrics"].items()}
    costs = {"passes": trial.passes, "device_seconds": trial.device_seconds}
    trial.metrics |= {f"cost/{key}": value for key, value in costs.items()}
    trial.course = {int(step): {"": _number(value)} for step, value in row["curve"]}
    trial.reports = len(trial.course)
    paid = Charge(trial.payer, trial.name, 0, 0, "train", trial.passes, trial.device_seconds)
    lost = Charge(trial.payer, trial.name, 0, 0, INTERRUPTED, row.get("lost_passes", 0.0))
    yield from ({"event": "charge", **asdict(charge)} for charge in (paid, lost) if charge.passes)
    yield event_of(trial, 0.0)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
