"""What is kept of every uptake, so that the stage goes on where it was stopped: a line each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ms_automl.data import MultiTaskData
from ms_automl.errors import ConfigError, DataError
from ms_automl.journal import entries
from ms_automl.transfer.uptake import Uptake

FORMAT = 1
FILE = "trials.jsonl"


class TransferJournal:
    """Appends to ``trials.jsonl`` in the stage's folder; the first line says what all uptakes share.

    What the comparison's records in MLflow hold of the stage already, from another folder or machine, counts too.

    Args:
        folder: of the stage; is made.
        run_id: of the comparison.
        settings: of every uptake; the same each time the stage goes on.
        recorded: ``transfer.json`` as MLflow has it, or None.

    Raises:
        ConfigError: where the folder is another comparison's, or earlier uptakes had other settings.
        DataError: where a line is damaged, or the folder cannot be written.
    """

    def __init__(
        self, folder: Path, run_id: str, settings: dict[str, Any], recorded: dict[str, Any] | None = None
    ) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot make the folder {folder} ({error.strerror}): give another --out") from error
        self.path = folder / FILE
        self.head: dict[str, Any] = {"format": FORMAT, "comparison": run_id, "settings": settings}
        self._rows: dict[Uptake, dict[str, Any]] = {}
        head, *rows = list(entries(self.path)) or [self.head]
        self._check(head, str(folder), ": name a new folder with --out")
        if recorded is not None:
            self._check(recorded, "the comparison's records in MLflow", "")
        for row in rows:
            self._keep(row)
        for row in recorded["rows"] if recorded is not None else []:
            self._rows.setdefault(_uptake(row), row)
        if not self.path.exists():
            self._write(self.head)

    def _check(self, head: dict[str, Any], where: str, instead: str) -> None:
        for key in ("format", "comparison"):
            if head.get(key) != self.head[key]:
                raise ConfigError(f"{where} belongs to {key} {head.get(key)}, this is {self.head[key]}{instead}")
        for key, now in self.head["settings"].items():
            was = head["settings"].get(key)
            if was != now:
                raise ConfigError(
                    f"{where} holds uptakes with {key}={was}, and now it is {now}: give the same, or delete the "
                    "run 'transfer' in MLflow and the stage's folder to begin anew"
                )

    def uptake_started(self, uptake: Uptake) -> None:
        """Nothing that must be known later."""

    def uptake_reported(self, uptake: Uptake, metrics: dict[str, float]) -> None:
        """Nothing, as above."""

    def uptake_ended(self, uptake: Uptake, row: dict[str, Any]) -> None:
        """Keep all of it."""
        self._write(row)
        self._keep(row)

    def done(self) -> set[Uptake]:
        """What need not be run again: all but what failed or was stopped."""
        return {uptake for uptake, row in self._rows.items() if row["status"] == "FINISHED"}

    def content(self, data: MultiTaskData, present: Mapping[tuple[str, int], str]) -> dict[str, Any]:
        """What ``transfer.json`` holds: every row but those of models that have been replaced since.

        Args:
            data: says what each task is measured by.
            present: digests of the models, by arm and seed.
        """
        tasks = {}
        for task in data.unseen_tasks:
            name, metric = next(iter(task.metrics.items()))
            tasks[task.name] = {"metric": name, "direction": metric.direction, "unit": metric.unit}
        rows = [
            row
            for one, row in self._rows.items()
            if row["status"] != "KILLED" and present.get((one.arm, one.seed), one.digest) == one.digest
        ]
        return self.head | {"data": data.name, "tasks": tasks, "rows": rows}

    def _keep(self, row: dict[str, Any]) -> None:
        """The newest attempt is what counts; what earlier ones had cost is lost, and said."""
        uptake = _uptake(row)
        before = self._rows.get(uptake)
        lost = 0.0 if before is None else before["passes"] + before.get("lost_passes", 0.0)
        self._rows[uptake] = row | {"lost_passes": lost + row.get("lost_passes", 0.0)}

    def _write(self, entry: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def _uptake(row: dict[str, Any]) -> Uptake:
    return Uptake(**{field.name: row[field.name] for field in fields(Uptake)})
