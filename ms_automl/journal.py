"""What a comparison needs to go on after it was stopped or killed: one line per trial that ended."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ms_automl.comparison import Comparison
from ms_automl.errors import DataError
from ms_automl.storage import remote
from ms_automl.trials import Stream, Trial

FILE = "trials.jsonl"


@dataclass(frozen=True)
class Ended:
    """A trial that has ended and whose model is kept.

    Attributes:
        trial: as it was; its id is that of the process that ran it.
        course: of a dense reference, its losses by step.
        elapsed: seconds from the start of the comparison to the trial's end.
    """

    trial: Trial
    course: dict[int, dict[str, float]]
    elapsed: float


class Journal:
    """Appends to ``trials.jsonl``: a recorder of :class:`~ms_automl.comparison.Comparison`.

    A line says how a trial ended, another where its model lies. A trial that finished counts as ended with the
    second one: without its model it could not be selected.

    Args:
        folder: of the comparison.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE
        self.comparison: Comparison | None = None

    def trial_started(self, stream: Stream, trial: Trial) -> None:
        """Nothing that must be known later."""

    def trial_reported(self, stream: Stream, trial: Trial, metrics: dict[str, float]) -> None:
        """Nothing, as above."""

    def trial_ended(self, stream: Stream, trial: Trial) -> None:
        """Keep all of it."""
        assert self.comparison is not None
        if trial.status == "KILLED":
            return  # by Ctrl-C: it begins anew
        course = self.comparison.courses.get(stream.seed, {}) if stream.arm == "dense" else {}
        entry = {"trial": asdict(trial) | {"checkpoint": None}, "course": list(course.items())}
        self._write(entry | {"elapsed": self.comparison.clock() - self.comparison.began})

    def trial_kept(self, stream: Stream, trial: Trial) -> None:
        """Keep where its model lies."""
        self._write({"name": trial.name, "attempt": trial.attempt, "checkpoint": self._relative(trial.checkpoint)})

    def _relative(self, place: str | None) -> str:
        assert place is not None
        if remote(place):
            return place
        inside = os.path.relpath(place, self.folder)
        return place if inside.startswith("..") else inside

    def _write(self, entry: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def ended(folder: Path) -> list[Ended]:
    """The trials of a comparison that have ended, in the order in which they did.

    Raises:
        DataError: where a line is not what :class:`Journal` writes.
    """
    found: dict[tuple[str, int], Ended] = {}
    for entry in entries(folder / FILE):
        try:
            if "name" in entry:
                key = entry["name"], entry["attempt"]
                if key in found:
                    place = entry["checkpoint"]
                    found[key].trial.checkpoint = place if remote(place) else str(folder / place)
                continue
            values = entry["trial"]
            values |= {name: tuple(values[name]) for name in ("warnings", "rungs")}
            values["at_rungs"] = {int(report): value for report, value in values["at_rungs"].items()}
            trial = Trial(**values)
            course = {int(step): losses for step, losses in entry["course"]}
            found[trial.name, trial.attempt] = Ended(trial, course, entry["elapsed"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{folder / FILE}: a line is not a trial ({error}): restore the file") from error
    return [one for one in found.values() if one.trial.status == "FAILED" or one.trial.checkpoint is not None]


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
    for line in content[:whole].splitlines():
        try:
            yield json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}: a line is damaged: restore the file from a copy") from error
