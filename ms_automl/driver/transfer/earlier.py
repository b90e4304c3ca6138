"""What is known of a stage already: in its folder, storage and MLflow, from this version or earlier ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ms_automl.callbacks.restore import check_own, copied, wait_for_its_driver
from ms_automl.comparison.events import FILE, EventLog, Replay, event_of, replay
from ms_automl.comparison.ledger import INTERRUPTED, Charge
from ms_automl.comparison.run import Status, Trial
from ms_automl.config import upgraded
from ms_automl.driver.transfer.adaptation import Adaptation
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
    """Take the stage's files out of its storage where its folder has none; where it has, they must be the newest.

    Args:
        out: folder of the stage.
        storage: of the stage.
        say: told what takes time.

    Raises:
        ConfigError: where nothing can be read, its driver is at work, or it went on elsewhere.
        DataError: where the copy is damaged.
    """
    if any((out / name).exists() for name in (FILE, EARLIER)):
        record = head_of(out)
        if "drivers" in record:  # earlier versions kept none
            check_own(
                storage, record, "stage", f"Move {out.name} away, and the same command goes on from the copy"
            )
        return
    wait_for_its_driver(storage, say)
    for name, part in (copied(storage, (*FILES, EARLIER)) or {}).items():
        write_whole(out / name, part)


def head_of(out: Path) -> dict[str, Any]:
    """What all adaptations of the stage in a folder share; empty where it has none.

    Raises:
        DataError: where it is damaged.
    """
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
    """Refuse to go on with what is another comparison's, or had other settings.

    Args:
        head: of the stage now: ``format``, ``comparison`` and ``settings``.
        recorded: the head as it was found; empty where nothing was found.
        adapted: digests of the models that have adapted there.
        digests: of the comparison's models. Where MLflow had lost it and it got another run, they say that what is
            there is its own.
        where: it was found.

    Raises:
        ConfigError: where something differs.
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
    if not (out / FILE).exists():
        return {str(row["digest"]) for row in rows_in(out)}
    return {adaptation_of(trial).digest for trial in _trials(replay(out, models=False))}


def _trials(replayed: Replay) -> list[Trial]:
    return [entry.trial for entry in (*replayed.ended, *replayed.pending.values())]


def log_of(out: Path, recorded: Sequence[Mapping[str, Any]] = ()) -> EventLog:
    """The log of the stage, with what it lacks of the folder's earlier journal and of what is recorded elsewhere.

    The journal has a row for each attempt; a recorded row says what all attempts at an adaptation had cost.

    Args:
        out: folder of the stage.
        recorded: rows of ``transfer.json``.
    """
    path = out / FILE
    trials = _trials(replay(out, models=False)) if path.exists() else []
    events: list[dict[str, Any]] = []
    index = len(trials)
    done, logged = finished(trials), {adaptation_of(trial) for trial in trials}
    for rows, attempts in ((rows_in(out), True), (recorded, False)):
        for row in rows:
            adaptation, ended = Adaptation.of(row), row["status"] == Status.FINISHED
            if adaptation in done or (adaptation in logged and not attempts and not ended):
                continue
            events += _events(_trial(adaptation, row, index), row)
            index += 1
            logged.add(adaptation)
            if ended:
                done.add(adaptation)
    if not path.exists():  # whole or not at all: from here on nobody looks for the journal
        write_whole(path, "".join(json.dumps(event) + "\n" for event in events).encode())
        return EventLog(out)
    log = EventLog(out)
    log.append(*events)
    return log


def _trial(adaptation: Adaptation, row: Mapping[str, Any], index: int) -> Trial:
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
    return trial


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _events(trial: Trial, row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    paid = Charge(trial.payer, trial.name, 0, 0, "train", trial.passes, trial.device_seconds)
    lost = Charge(trial.payer, trial.name, 0, 0, INTERRUPTED, row.get("lost_passes", 0.0))
    yield from ({"event": "charge", **asdict(charge)} for charge in (paid, lost) if charge.passes)
    yield event_of(trial, 0.0)
