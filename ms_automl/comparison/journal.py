"""What a comparison needs to go on after it was stopped or killed: what was suggested, left a state, or ended."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ms_automl.comparison.ledger import renamed
from ms_automl.comparison.run import Callback, Run, Status, Trial
from ms_automl.comparison.state import Comparison
from ms_automl.errors import DataError
from ms_automl.storage.remote import remote

FILE = "trials.jsonl"


@dataclass(frozen=True)
class Entry:
    """A trial that has ended and whose model is kept, or one that was to run.

    Attributes:
        trial: as it was; its id is that of the process that ran it.
        course: of a dense reference, its losses by step.
        elapsed: seconds from the start of the comparison to this.
    """

    trial: Trial
    course: dict[int, dict[str, float]]
    elapsed: float


class Journal(Callback):
    """Appends to ``trials.jsonl``.

    A line says how a trial ended, another where its model lies. A trial that finished counts as ended with the
    second one: without its model it could not be selected. A trial that runs has a line for its suggestion and one
    for each state it leaves.

    Args:
        folder: of the comparison.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE
        self.comparison: Comparison | None = None

    def trial_suggested(self, run: Run, trial: Trial) -> None:
        """Keep what is to be run: of several at a time, a later one may end first."""
        self._keep(run, trial)

    def trial_ended(self, run: Run, trial: Trial) -> None:
        """Keep all of it."""
        if trial.status != Status.KILLED:  # by Ctrl-C: it goes on from its last state, or begins anew
            self._keep(run, trial)

    def trial_stored(self, run: Run, trial: Trial) -> None:
        """Keep where its model lies, or how far it was when it left a state."""
        if trial.checkpoint is None:
            self._keep(run, trial)
        elif trial.status != Status.KILLED:
            self._write({"name": trial.name, "checkpoint": self._relative(trial.checkpoint)})

    def _keep(self, run: Run, trial: Trial) -> None:
        assert self.comparison is not None
        course = self.comparison.courses.get(run.seed, {}) if run.is_reference else {}
        kept = asdict(trial) | {"checkpoint": None, "states": [self._relative(place) for place in trial.states]}
        elapsed = self.comparison.clock() - self.comparison.began
        self._write({"trial": kept, "course": list(course.items()), "elapsed": elapsed})

    def _relative(self, place: str) -> str:
        if remote(place):
            return place
        inside = os.path.relpath(place, self.folder)
        return place if inside.startswith("..") else inside

    def _write(self, entry: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def read(folder: Path) -> tuple[list[Entry], dict[str, Entry]]:
    """What a comparison has done: the trials that ended, in that order, and by name those that have not.

    A trial that ended, but whose model nobody has kept, has not: it is as it was at its last state, and comes to
    its end again.

    Raises:
        DataError: where a line is not what :class:`Journal` writes.
    """

    def seen(place: str) -> str:
        return place if remote(place) else str(folder / place)

    found: dict[str, Entry] = {}
    left: dict[str, Entry] = {}
    for entry in entries(folder / FILE):
        try:
            if "name" in entry:
                if entry["name"] in found:
                    found[entry["name"]].trial.checkpoint = seen(entry["checkpoint"])
                continue
            values = renamed(entry["trial"])
            values |= {name: tuple(values[name]) for name in ("warnings", "rungs")}
            values["states"] = tuple(seen(place) for place in values.get("states", ()))
            values["at_rungs"] = {int(report): value for report, value in values["at_rungs"].items()}
            values["status"] = Status(values["status"])
            trial = Trial(**values)
            course = {int(step): losses for step, losses in entry["course"]}
            one = Entry(trial, course, entry["elapsed"])
            if trial.status == Status.RUNNING:
                left[trial.name] = one
            else:
                found.pop(trial.name, None)  # the order is that of the ends
                found[trial.name] = one
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{folder / FILE}: a line is not a trial ({error}): restore the file") from error
    ended = [
        one for one in found.values() if one.trial.status == Status.FAILED or one.trial.checkpoint is not None
    ]
    over = {one.trial.name for one in ended}
    return ended, {name: one for name, one in left.items() if name not in over}


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of JSON, without a last one that was not written whole; none where there is no file.

    Raises:
        DataError: where a line is damaged.
    """
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):  # the line being written when the driver died
        os.truncate(path, whole)
    yield from decoded(content[:whole], str(path))


def decoded(content: bytes, where: str) -> Iterator[dict[str, Any]]:
    """Lines of JSON.

    Raises:
        DataError: where one is damaged; names ``where`` they come from.
    """
    for line in content.splitlines():
        try:
            yield json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: a line is damaged: restore the file from a copy") from error
