"""What is kept of every uptake, so that the stage goes on where it was stopped: a line each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ms_automl.data import MultiTaskData
from ms_automl.errors import ConfigError
from ms_automl.journal import entries
from ms_automl.transfer.uptake import Uptake

FORMAT = 1
FILE = "trials.jsonl"


class TransferJournal:
    """Appends to ``trials.jsonl`` in the stage's folder; the first line says what all uptakes share.

    Args:
        folder: of the stage; must exist.
        run_id: of the comparison.
        settings: of every uptake; the same each time the stage goes on.

    Raises:
        ConfigError: where the folder is another comparison's, or its uptakes had other settings.
        DataError: where a line is damaged.
    """

    def __init__(self, folder: Path, run_id: str, settings: dict[str, Any]) -> None:
        self.path = folder / FILE
        self.head: dict[str, Any] = {"format": FORMAT, "comparison": run_id, "settings": settings}
        self._rows: dict[Uptake, dict[str, Any]] = {}
        known = list(entries(self.path))
        if not known:
            self._write(self.head)
            return
        self._check(known[0], folder)
        for row in known[1:]:
            self._keep(row)

    def _check(self, head: dict[str, Any], folder: Path) -> None:
        for key in ("format", "comparison"):
            if head.get(key) != self.head[key]:
                raise ConfigError(
                    f"{folder} belongs to {key} {head.get(key)}, this is {self.head[key]}: name a new folder with "
                    "--out"
                )
        for key, now in self.head["settings"].items():
            was = head["settings"].get(key)
            if was != now:
                raise ConfigError(
                    f"{folder} holds uptakes with {key}={was}, and now it is {now}: give the same, or a new "
                    "folder with --out"
                )

    def uptake_started(self, uptake: Uptake) -> None:
        """Nothing that must be known later."""

    def uptake_reported(self, uptake: Uptake, metrics: dict[str, float]) -> None:
        """Nothing, as above."""

    def uptake_ended(self, uptake: Uptake, row: dict[str, Any]) -> None:
        """Keep all of it; what Ctrl-C stopped begins anew."""
        if row["status"] != "KILLED":
            self._write(row)
            self._keep(row)

    def done(self) -> set[Uptake]:
        """What need not be run again: all but failures."""
        return {uptake for uptake, row in self._rows.items() if row["status"] == "FINISHED"}

    def content(self, data: MultiTaskData, asked: Sequence[Uptake]) -> dict[str, Any]:
        """What ``transfer.json`` holds: every row but those of models that have been replaced since.

        Args:
            data: says what each task is measured by.
            asked: of the present models.
        """
        present = {(uptake.arm, uptake.seed): uptake.digest for uptake in asked}
        tasks = {}
        for task in data.unseen_tasks:
            name, metric = next(iter(task.metrics.items()))
            tasks[task.name] = {"metric": name, "direction": metric.direction, "unit": metric.unit}
        rows = [
            row for one, row in self._rows.items() if present.get((one.arm, one.seed), one.digest) == one.digest
        ]
        return self.head | {"data": data.name, "tasks": tasks, "rows": rows}

    def _keep(self, row: dict[str, Any]) -> None:
        self._rows[Uptake(**{field.name: row[field.name] for field in fields(Uptake)})] = row

    def _write(self, entry: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
