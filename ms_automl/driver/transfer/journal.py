"""What is kept of every uptake, so that the stage goes on where it was stopped: a line each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ms_automl.comparison.run import Status
from ms_automl.data import MultiTaskData
from ms_automl.driver.transfer.uptake import Uptake
from ms_automl.errors import ConfigError
from ms_automl.storage.files import append_lines, json_lines, mend_lines

FORMAT = 1
FILE = "trials.jsonl"


class TransferJournal:
    """Appends to ``trials.jsonl`` in the stage's folder; the first line says what all uptakes share.

    What the comparison's records in MLflow and the stage's storage hold of it already, from another folder or
    machine, counts too.

    Args:
        folder: of the stage.
        run_id: of the comparison.
        settings: of every uptake; the same each time the stage goes on.
        recorded: ``transfer.json`` as MLflow has it, or None.
        stored: lines of another ``trials.jsonl``, the head first; none where there is none.
        digests: of the comparison's models. Where MLflow had lost it and it got another run, they say that what is
            there is its own.

    Raises:
        ConfigError: where the folder is another comparison's, or earlier uptakes had other settings.
        DataError: where a line is damaged.
    """

    def __init__(
        self,
        folder: Path,
        run_id: str,
        settings: dict[str, Any],
        recorded: dict[str, Any] | None = None,
        stored: Sequence[dict[str, Any]] = (),
        digests: Collection[str] = (),
    ) -> None:
        self.path = folder / FILE
        self.head: dict[str, Any] = {"format": FORMAT, "comparison": run_id, "settings": settings}
        self._rows: dict[Uptake, dict[str, Any]] = {}
        mend_lines(self.path)
        head, *rows = list(json_lines(self.path)) or [self.head]
        for lines, where in (([head, *rows], str(folder)), (stored, "the stage's storage")):
            if lines:
                own = len(lines) > 1 and all(row.get("digest") in digests for row in lines[1:])
                self._check(lines[0] | ({"comparison": run_id} if own else {}), where)
        if recorded is not None:
            self._check(recorded, "the comparison's records in MLflow")
        for row in rows:
            self._keep(row)
        if not self.path.exists():
            self._write(self.head)
        self._take_over(stored[1:])
        self._take_over(recorded["rows"] if recorded is not None else [])

    def _take_over(self, rows: Sequence[dict[str, Any]]) -> None:
        """What was done elsewhere, of uptakes that were not done here."""
        own, done = set(self._rows), self.done()
        for row in rows:
            uptake = _uptake(row)
            if uptake not in own or (row["status"] == Status.FINISHED and uptake not in done):
                self.uptake_ended(uptake, row)

    def _check(self, head: dict[str, Any], where: str) -> None:
        for key in ("format", "comparison"):
            if head.get(key) != self.head[key]:
                other, this = head.get(key), self.head[key]
                raise ConfigError(
                    f"{where} belongs to {key} {other}, this is {this}: name a new folder with --out"
                )
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
        return {uptake for uptake, _ in self.finished()}

    def finished(self) -> list[tuple[Uptake, dict[str, Any]]]:
        """What need not be run again, each with its row."""
        return [(uptake, row) for uptake, row in self._rows.items() if row["status"] == Status.FINISHED]

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
            if row["status"] != Status.KILLED and present.get((one.arm, one.seed), one.digest) == one.digest
        ]
        return self.head | {"data": data.name, "tasks": tasks, "rows": rows}

    def _keep(self, row: dict[str, Any]) -> None:
        """The newest attempt is what counts; what earlier ones had cost is lost, and said."""
        uptake = _uptake(row)
        before = self._rows.get(uptake)
        lost = 0.0 if before is None else before["passes"] + before.get("lost_passes", 0.0)
        self._rows[uptake] = row | {"lost_passes": lost + row.get("lost_passes", 0.0)}

    def _write(self, entry: dict[str, Any]) -> None:
        append_lines(self.path, [entry])


def _uptake(row: dict[str, Any]) -> Uptake:
    return Uptake(**{field.name: row[field.name] for field in fields(Uptake)})
