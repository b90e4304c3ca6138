"""The log of a comparison, ``events.jsonl``: its ledger, its trials and its rows are replayed from it.

A line of JSON for each event, of three kinds:

- ``charge``: what a report interval of a trial cost (:class:`~ms_automl.comparison.ledger.Charge`);
- ``trial``: a trial as it was when it was suggested, when it left a state, or when it ended;
- ``model``: where the model of a trial lies that has ended. A trial that finished counts as ended with this one:
  without its model it could not be selected.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ms_automl.comparison.ledger import Charge
from ms_automl.comparison.run import Callback, Run, Status, Trial
from ms_automl.comparison.state import Comparison
from ms_automl.errors import DataError
from ms_automl.storage.files import append_lines, from_here, json_lines, mend_lines, write_whole
from ms_automl.storage.remote import remote

FILE = "events.jsonl"
EARLIER = ("ledger.jsonl", "trials.jsonl")
"""Where earlier versions kept charges and trials."""
NAMES = {"stream": "run", "told": "known", "heard": "last_seen"}
"""What earlier versions called an entry of a charge or a trial, and what it is called now."""


@dataclass(frozen=True)
class Entry:
    """A trial that has ended and whose model is kept, or one that was to run."""

    trial: Trial  # its id is that of the process that ran it
    elapsed: float  # seconds from the start of the comparison to this


@dataclass(frozen=True)
class Replay:
    """What a log says, in the order of what happened.

    A trial that ended, but whose model nobody has kept, is pending: as it was at its last state, and comes to its
    end again.
    """

    charges: list[Charge] = field(default_factory=list)
    ended: list[Entry] = field(default_factory=list)
    pending: dict[str, Entry] = field(default_factory=dict)  # by name of the trial


class EventLog:
    """Appends events to the log in the folder of a comparison. A crash loses at most the event in flight.

    Of a comparison that an earlier version has kept in other files the log is made of these, which stay.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE
        if not self.path.exists() and any((folder / name).exists() for name in EARLIER):
            write_whole(self.path, "".join(json.dumps(event) + "\n" for event in _events(folder)).encode())
        mend_lines(self.path)

    def append(self, *events: Mapping[str, Any]) -> None:
        """Write events, on disk when this returns."""
        append_lines(self.path, events)

    def charged(self, *charges: Charge) -> None:
        """Write charges."""
        self.append(*({"event": "charge", **vars(charge)} for charge in charges))


class TrialEvents(Callback):
    """Writes what becomes of the trials of a comparison to its log."""

    def __init__(self, log: EventLog, comparison: Comparison) -> None:
        self.log = log
        self.comparison = comparison

    def trial_suggested(self, run: Run, trial: Trial) -> None:
        """Keep a trial that is to be run: of several at a time, a later one may end first."""
        self._keep(trial)

    def trial_ended(self, run: Run, trial: Trial) -> None:
        """Keep how a trial has ended."""
        if trial.status != Status.KILLED:  # by Ctrl-C: it goes on from its last state, or begins anew
            self._keep(trial)

    def trial_stored(self, run: Run, trial: Trial) -> None:
        """Keep where a trial's model lies, or how far it was when it left a state."""
        if trial.checkpoint is None:
            self._keep(trial)
        elif trial.status != Status.KILLED:
            self.log.append({"event": "model", "trial": trial.name, "place": self._relative(trial.checkpoint)})

    def _keep(self, trial: Trial) -> None:
        states = tuple(self._relative(place) for place in trial.states)
        elapsed = self.comparison.clock() - self.comparison.began
        self.log.append(event_of(replace(trial, checkpoint=None, states=states), elapsed))

    def _relative(self, place: str) -> str:
        if remote(place):
            return place
        inside = os.path.relpath(place, self.log.folder)
        return place if inside.startswith("..") else inside


def event_of(trial: Trial, elapsed: float) -> dict[str, Any]:
    """A trial as it is, as an event."""
    kept = dict(vars(trial))  # asdict copies all that is below, and there are many events
    course = list(kept.pop("course").items())  # JSON has no numbers for keys
    return {"event": "trial", "trial": kept, "course": course, "elapsed": elapsed}


def replay(folder: Path, models: bool = True) -> Replay:
    """What the comparison in a folder has done; nothing is written.

    With ``models`` trials store their models, and one without has not come to its end.

    Raises:
        DataError: where a line is not what is written here.
    """
    charges: list[Charge] = []
    ended: dict[str, Entry] = {}
    pending: dict[str, Entry] = {}
    for number, event in enumerate(_events(folder), 1):
        try:
            kind = event.pop("event")
            if kind == "charge":
                charges.append(Charge(**event))
            elif kind == "model":
                if event["trial"] in ended:
                    ended[event["trial"]].trial.checkpoint = _seen(event["place"], folder)
            else:
                entry = _entry(event, folder)
                if entry.trial.status == Status.RUNNING:
                    pending[entry.trial.name] = entry
                else:
                    ended.pop(entry.trial.name, None)  # the order is that of the ends
                    ended[entry.trial.name] = entry
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{from_here(folder / FILE)}: line {number} is no event ({error!r}): restore the file from a copy"
            ) from error
    over = {
        name: entry
        for name, entry in ended.items()
        if not models or entry.trial.status == Status.FAILED or entry.trial.checkpoint is not None
    }
    rest = {name: entry for name, entry in pending.items() if name not in over}
    return Replay(charges, list(over.values()), rest)


def _entry(event: dict[str, Any], folder: Path) -> Entry:
    values = _renamed(event["trial"])
    values |= {name: tuple(values[name]) for name in ("warnings", "rungs")}
    values["states"] = tuple(_seen(place, folder) for place in values["states"])
    values["at_rungs"] = {int(report): value for report, value in values["at_rungs"].items()}
    values["status"] = Status(values["status"])
    course = {int(step): losses for step, losses in event["course"]}
    return Entry(Trial(**values, course=course), event["elapsed"])


def _seen(place: str, folder: Path) -> str:
    return place if remote(place) else str(folder / place)


def _events(folder: Path) -> Iterator[dict[str, Any]]:
    if (folder / FILE).exists():
        yield from json_lines(folder / FILE)
        return
    ledger, trials = (folder / name for name in EARLIER)
    yield from ({"event": "charge", **_renamed(entry)} for entry in json_lines(ledger))
    yield from map(_event, json_lines(trials))


def _event(entry: dict[str, Any]) -> dict[str, Any]:
    if "name" in entry:
        return {"event": "model", "trial": entry["name"], "place": entry["checkpoint"]}
    return {"event": "trial", **entry, "trial": {"states": (), **_renamed(entry["trial"])}}


def _renamed(entry: dict[str, Any]) -> dict[str, Any]:
    return {NAMES.get(name, name): value for name, value in entry.items()}
