"""What an adaptation's trial is built from: the selected network with a new head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.registry import METHODS
from ms_automl.comparison.run import Suggestion
from ms_automl.data import on_device
from ms_automl.driver.transfer.adaptation import Adaptation
from ms_automl.errors import DataError
from ms_automl.meta import Reference
from ms_automl.models import MultiTaskNet, check_network
from ms_automl.models.archive import Architecture, load, read_architecture
from ms_automl.models.factories import build_network
from ms_automl.models.heads import place
from ms_automl.sparsity import build_groups
from ms_automl.storage.remote import as_folder, shown
from ms_automl.tasks import Task
from ms_automl.training import Trainable, TrainingSettings


@dataclass(frozen=True)
class TransferExperiment(Experiment):
    """What trials of the stage are built from.

    Attributes:
        settings: length and optimiser of an adaptation.
        models: where each selected model lies, by arm and seed (a place, :mod:`ms_automl.storage.remote`).
    """

    settings: TrainingSettings = field(default_factory=TrainingSettings)
    models: Mapping[tuple[str, int], str] = field(default_factory=dict)

    def build(
        self,
        suggestion: Suggestion,
        seed: int,
        reference: Reference | None = None,
        training_seed: int | None = None,
    ) -> tuple[Trainable, MultiTaskNet]:
        """An adaptation, ready for its first step; its seeds are its own."""
        adaptation = Adaptation.of(suggestion.params["adaptation"])
        data = self.data(adaptation.seed)
        task = next(task for task in data.unseen_tasks if task.name == adaptation.task)
        random, grouping = adaptation.weights == "random", self.settings.grouping
        network = _with_new_head(
            self.models[adaptation.arm, adaptation.seed], task, random, grouping, adaptation.fresh_seed
        )
        device = self.config.resources.device
        method = METHODS["transfer"].build(
            on_device(data, device), network.to(device), self.settings, adaptation.fresh_seed,
            task=adaptation.task, mode=adaptation.mode, shots=adaptation.shots, remembers=adaptation.remembers,
        )  # fmt: skip
        return method, network

    def check(self, model: str, task: Task) -> None:
        """Build what would adapt to a task, before anything trains.

        Raises:
            MsAutomlError: where the network's factory cannot make a head for it, or makes another trunk.
        """
        network = _with_new_head(model, task, False, self.settings.grouping, 0)
        check_network(network, _loaded(model)[0].image_shape, [task])

    def passes_of(self, adaptation: Adaptation) -> dict[str, float]:
        """Passes of an adaptation, by kind, known before it starts; of all samples where their number is not."""
        data = self.data(adaptation.seed)
        samples = len(data.train) if adaptation.shots is None else adaptation.shots
        planned_cost = METHODS["transfer"].planned_cost
        cost = planned_cost(
            data, self.settings, mode=adaptation.mode, samples=samples, remembers=adaptation.remembers
        )
        return cost.by_kind()


def _with_new_head(model: str, task: Task, random: bool, grouping: str, seed: int) -> MultiTaskNet:
    """The selected network at a place with a new head; with ``random`` only its pattern of zeros is its own."""
    architecture, trained = _loaded(model)
    network = build_network(
        architecture.factory,
        architecture.args,
        image_shape=architecture.image_shape,
        heads={**architecture.heads, task.name: task.head},
        seed=seed,
    )
    if random:
        alive = build_groups(trained, grouping, architecture.image_shape).norms() > 0
        groups = build_groups(network, grouping, architecture.image_shape)
        groups.scale_(alive.to(groups.size.dtype))
        return network
    try:
        missing, unexpected = network.load_state_dict(trained.state_dict(), strict=False)
    except RuntimeError as error:  # of another shape
        raise _other_trunk(model, task) from error
    if unexpected or not all(name.startswith(f"heads.{place(task.name)}.") for name in missing):
        raise _other_trunk(model, task)
    return network


def _other_trunk(model: str, task: Task) -> DataError:
    return DataError(
        f"{shown(model)}: the network's factory builds another trunk once it has a head for '{task.name}'"
    )


@lru_cache(maxsize=32)  # all arms of a seed, which take turns
def _loaded(model: str) -> tuple[Architecture, MultiTaskNet]:
    with as_folder(model) as folder:
        return read_architecture(folder), load(folder)
