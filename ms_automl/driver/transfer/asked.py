"""What is asked of a comparison that has ended: which of its models adapt to which tasks, from how many labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ms_automl.callbacks.mlflow.selected import selected_model
from ms_automl.data import labelled
from ms_automl.driver.transfer.adaptation import Adaptation, digest_of
from ms_automl.driver.transfer.experiment import TransferExperiment
from ms_automl.errors import ConfigError, DataError, unknown_name
from ms_automl.samplers.arms import REFERENCE
from ms_automl.storage.remote import Storage, storage_of

USUAL = (16, 64, 256, None)
"""Labelled samples where nothing is asked for, None for all."""


@dataclass(frozen=True)
class Source:
    """A comparison that has ended, as its records tell of it.

    Attributes:
        run_id: in MLflow.
        folder: None where it is known from MLflow alone.
        store: address of its MLflow store.
        rows: of its arms and seeds, as in ``comparison.json``.
        recorded: ``transfer.json`` as MLflow has it; None where it has none.
    """

    run_id: str
    folder: Path | None
    store: str
    rows: Sequence[Mapping[str, Any]]
    recorded: dict[str, Any] | None = None

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
        known = list(dict.fromkeys(str(row["arm"]) for row in self._valid))
        return [REFERENCE, *(arm for arm in chosen("arm", names, known) if arm != REFERENCE)]

    def models(self, arms: Sequence[str], into: Path) -> tuple[dict[tuple[str, int], Path], list[str]]:
        """Folders of selected models by arm and seed, and the names of those that are left out.

        Left out is what has no valid result or no dense reference.

        Args:
            arms: whose.
            into: folder for what has to be fetched from MLflow.

        Raises:
            DataError: where nothing is left.
        """
        valid = {(str(row["arm"]), int(row["seed"])) for row in self._valid}
        wanted = [(arm, seed) for seed in self.seeds for arm in arms]
        kept = [(arm, seed) for arm, seed in wanted if {(arm, seed), (REFERENCE, seed)} <= valid]
        if not kept:
            raise DataError("no seed of the comparison has a dense reference: nothing can be held against it")
        models = {}
        for arm, seed in kept:
            name = f"{arm}-{seed}"
            found = selected_model(self.run_id, self.folder, name, into / name, self.store)
            models[arm, seed] = found.absolute()
        return models, [f"{arm}-{seed}" for arm, seed in wanted if (arm, seed) not in models]

    def digests(self, models: Mapping[tuple[str, int], Path]) -> dict[tuple[str, int], str]:
        """Digests of the weights of models, and of the others at hand: they may have been replaced since."""
        found = (
            [] if self.folder is None else [path.parent for path in self.folder.glob("best/*/model.safetensors")]
        )
        others = {(path.name.rpartition("-")[0], int(path.name.rpartition("-")[2])): path for path in found}
        return {key: digest_of(model) for key, model in (others | dict(models)).items()}

    @property
    def _valid(self) -> list[Mapping[str, Any]]:
        return [row for row in self.rows if row["status"] != "failed"]


@dataclass(frozen=True)
class Asked:
    """What the stage is to do.

    Attributes:
        source: the comparison.
        models: folder of each selected model that is asked for, by arm and seed.
        digests: of the weights of all models at hand, by arm and seed.
        adaptations: all that is wanted, done already or not.
    """

    source: Source
    models: Mapping[tuple[str, int], Path]
    digests: Mapping[tuple[str, int], str]
    adaptations: Sequence[Adaptation]


def chosen(kind: str, names: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """The names that were given, in their usual order; all where none were.

    Raises:
        ConfigError: for one that is not known.
    """
    for name in names or ():
        if name not in known:
            raise unknown_name(kind, name, list(known))
    return [name for name in known if names is None or name in names]


def possible_shots(
    experiment: TransferExperiment, seeds: Sequence[int], tasks: Sequence[str], shots: Sequence[int | None] | None
) -> list[int | None]:
    """The numbers of labels: those asked for, or of the usual ones those that every seed and task has.

    Raises:
        ConfigError: where more are asked for than there are, or too few to learn from.
    """
    for count in shots or ():
        if count is not None and count < 2:
            raise ConfigError(f"--shots takes numbers of at least 2, and 'all', but got '{count}'")
    asked = sorted(set(USUAL if shots is None else shots), key=lambda count: (count is None, count or 0))
    for seed in seeds:
        data = experiment.data(seed)
        for task in (task for task in data.unseen_tasks if task.name in tasks):
            most = len(labelled(data.train, task, None, seed))
            if shots is None:
                asked = [count for count in asked if count is None or count < most]
            if too_many := [count for count in asked if count is not None and count > most]:
                raise ConfigError(
                    f"--shots {too_many[0]} is more than the {most} labels of '{task.name}' in the train split"
                )
    return asked
