"""What the stage leaves in ``--storage``: models, for hosts that share no folder, and a copy of its journal."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ms_automl.callbacks.backup import Backup
from ms_automl.callbacks.restore import copied, wait_for_its_driver
from ms_automl.driver.transfer.journal import FILE
from ms_automl.driver.transfer.uptake import Uptake
from ms_automl.errors import ConfigError
from ms_automl.storage.files import decoded_lines
from ms_automl.storage.remote import Storage, shown

MODELS = "models"
LIST = "models.json"
"""Names of the models that are there whole."""


class TransferBackup(Backup):
    """Copies the stage's journal to its storage as it grows: a recorder, told after the journal.

    Args:
        folder: of the stage.
        storage: of the stage, outside of that folder.
    """

    def __init__(self, folder: Path, storage: Storage) -> None:
        super().__init__(folder, storage, [FILE], [])

    def uptake_started(self, uptake: Uptake) -> None:
        """Nothing new to copy."""

    def uptake_reported(self, uptake: Uptake, metrics: dict[str, float]) -> None:
        """Nothing, as above."""

    def uptake_ended(self, uptake: Uptake, row: dict[str, Any]) -> None:
        """Have it copied."""
        self._have_copied()


def stored_lines(storage: Storage, out: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """The lines of the journal's copy, the head first; none where there is no copy.

    Args:
        storage: of the stage.
        out: folder of the stage; without a journal of its own another driver may be at work.
        say: told what takes time.

    Raises:
        ConfigError: where nothing can be read, or that driver is at work.
        DataError: where the copy is damaged.
    """
    if not (out / FILE).exists():
        wait_for_its_driver(storage, say)
    content = (copied(storage, [FILE]) or {}).get(FILE, b"")
    return list(decoded_lines(content, f"the copy in {shown(storage.address)}"))


def store_models(
    storage: Storage, models: Mapping[tuple[str, int], Path], digests: Mapping[tuple[str, int], str]
) -> dict[tuple[str, int], str]:
    """Put models where every host can fetch them, but for those that are there; their places.

    Args:
        storage: of the stage.
        models: folders, by arm and seed.
        digests: of their weights, by arm and seed.

    Raises:
        ConfigError: where nothing can be stored.
    """
    names = {key: f"{key[0]}-{key[1]}-{digests[key]}" for key in models}
    try:
        there = set(json.loads(storage.read(LIST) or "[]"))
        storage.write(LIST, json.dumps(sorted(there)).encode())  # can it be written at all?
        for key, name in names.items():
            if name not in there:
                storage.below(MODELS).copy(models[key], name)
                there.add(name)
                storage.write(LIST, json.dumps(sorted(there)).encode())
    except (OSError, ValueError) as error:
        raise ConfigError(f"no models can be stored in {shown(storage.address)}: {error}") from error
    return {key: storage.below(MODELS).below(name).address for key, name in names.items()}
