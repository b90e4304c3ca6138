"""A comparison that has ended, as the stage finds it: its selected models, and where trials read them from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ms_automl.callbacks.mlflow.artifacts import selected_model
from ms_automl.environment.arguments import among
from ms_automl.errors import ConfigError, DataError
from ms_automl.samplers.arms import REFERENCE
from ms_automl.storage.files import checksum
from ms_automl.storage.remote import Storage, shown, storage_of

MODELS = "models"
LIST = "models.json"
"""Names of the models that a storage has whole."""


@dataclass(frozen=True)
class Source:
    """A comparison that has ended, as its records tell of it.

    Attributes:
        folder: None where it is known from MLflow alone.
        store: address of its MLflow store.
        rows: of its arms and seeds, as in ``comparison.json``.
        recorded: ``transfer.json`` as MLflow has it; None where it has none.
        models: folder of each selected model that adapts, by arm and seed.
    """

    run_id: str
    folder: Path | None
    store: str
    rows: Sequence[Mapping[str, Any]]
    recorded: dict[str, Any] | None = None
    models: Mapping[tuple[str, int], Path] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        """The comparison's seeds, the lowest first."""
        return sorted({int(row["seed"]) for row in self.rows})

    @property
    def seconds_per_pass(self) -> float:
        """Seconds that a pass took in the comparison."""
        spent = [sum(row[name] for row in self.rows) for name in ("device_seconds", "passes")]
        return float(spent[0] / spent[1])

    def default_folder(self) -> Path:
        """The folder of the stage where none is named."""
        return Path(f"transfer-{self.run_id}") if self.folder is None else self.folder / "transfer"

    def storage(self, uri: str | None, folder: Path) -> Storage | None:
        """The stage's storage, below a place and the comparison's name; None where it is the stage's folder."""
        if uri is None:
            return None
        storage = storage_of(uri, folder)
        if self.folder is not None and folder == self.default_folder().absolute():
            storage = storage_of(uri, self.folder.absolute()).below(folder.name)
        return None if storage.address == str(folder) else storage

    def arms(self, names: Sequence[str] | None) -> list[str]:
        """The arms that are asked for, of those that have a model in some seed, the reference first."""
        known = list(dict.fromkeys(arm for arm, _ in self._valid))
        return [REFERENCE, *(arm for arm in among("arm", names, known) if arm != REFERENCE)]

    def with_models(self, arms: Sequence[str], into: Path) -> tuple[Source, list[str]]:
        """The comparison with its arms' models, those from MLflow put ``into`` a folder, and who is left out.

        Left out is what has no valid result or no dense reference; DataError where nothing is left.
        """
        wanted = [(arm, seed) for seed in self.seeds for arm in arms]
        kept = [(arm, seed) for arm, seed in wanted if {(arm, seed), (REFERENCE, seed)} <= set(self._valid)]
        if not kept:
            raise DataError("no seed of the comparison has a dense reference: nothing can be held against it")
        models = {}
        for arm, seed in kept:
            name = f"{arm}-{seed}"
            found = selected_model(self.run_id, self.folder, name, into / name, self.store)
            models[arm, seed] = found.absolute()
        return replace(self, models=models), [f"{arm}-{seed}" for arm, seed in wanted if (arm, seed) not in models]

    @cached_property
    def digests(self) -> dict[tuple[str, int], str]:
        """Digests of the models' weights, and of the others at hand: they may have been replaced since."""
        found = [] if self.folder is None else self.folder.glob("best/*/model.safetensors")
        names = {file.parent: file.parent.name.rpartition("-") for file in found}
        others = {(arm, int(seed)): model for model, (arm, _, seed) in names.items()}
        return {
            key: checksum(model / "model.safetensors")[:16] for key, model in (others | dict(self.models)).items()
        }

    @property
    def _valid(self) -> list[tuple[str, int]]:
        return [(str(row["arm"]), int(row["seed"])) for row in self.rows if row["status"] != "failed"]


def store_models(
    storage: Storage, models: Mapping[tuple[str, int], Path], digests: Mapping[tuple[str, int], str]
) -> dict[tuple[str, int], str]:
    """Put models where every host can fetch them, but for those that are there; their places."""
    names = {key: f"{key[0]}-{key[1]}-{digests[key]}" for key in models}
    try:
        stored = set(json.loads(storage.read(LIST) or "[]"))
        storage.write(LIST, json.dumps(sorted(stored)).encode())  # can it be written at all?
        for key, name in names.items():
            if name not in stored:
                storage.below(MODELS).copy(models[key], name)
                stored.add(name)
                storage.write(LIST, json.dumps(sorted(stored)).encode())
    except (OSError, ValueError) as error:
        raise ConfigError(f"no models can be stored in {shown(storage.address)}: {error}") from error
    return {key: storage.below(MODELS).below(name).address for key, name in names.items()}
