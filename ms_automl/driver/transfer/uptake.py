"""What an uptake is, one selected model taking up one unseen task, and what its trial is built from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.run import Suggestion
from ms_automl.data import on_device
from ms_automl.environment.siblings import ours
from ms_automl.errors import DataError
from ms_automl.meta import Reference
from ms_automl.models import MultiTaskNet, check_network
from ms_automl.models.archive import Architecture, load, read_architecture
from ms_automl.models.factories import build_network
from ms_automl.models.heads import place
from ms_automl.sparsity import build_groups
from ms_automl.storage.files import checksum
from ms_automl.storage.remote import as_folder, shown
from ms_automl.tasks import Task
from ms_automl.training import TrainingSettings

with ours():
    from trainables import Transfer

FRESH = 2_000_000
"""Seeds of heads, samples and data order begin here: neither a comparison nor its retrainings number theirs so."""


@dataclass(frozen=True)
class Uptake:
    """One selected model, or its pattern alone, takes up one task.

    Attributes:
        arm: whose selected model.
        seed: of the comparison: it fixes the split.
        digest: of the model's weights, so that another model under the same name is not taken for this one.
        weights: ``trained``; or ``random``: a new initialisation with the model's pattern of zeros.
        mode: of :data:`trainables.transfer.MODES`.
        task: name of the unseen task.
        shots: labelled samples; None for all.
        draw: which choice of samples, of the head's initialisation and of the data order; the same for all models.
    """

    arm: str
    seed: int
    digest: str
    weights: str
    mode: str
    task: str
    shots: int | None
    draw: int

    @property
    def name(self) -> str:
        """As records and the screen show it."""
        pattern = "" if self.weights == "trained" else "-random"
        shots = "all" if self.shots is None else self.shots
        return f"{self.task}/{self.arm}-{self.seed}{pattern}/{self.mode}/{shots}/{self.draw}"

    @property
    def fresh_seed(self) -> int:
        """Of samples, head and data order."""
        return FRESH + 1000 * self.seed + self.draw

    @property
    def remembers(self) -> bool:
        """Whether there is anything to forget: a frozen trunk keeps what it knows, a new one knows nothing."""
        return self.weights == "trained" and self.mode != "frozen"


def digest_of(model: Path) -> str:
    """16 hex digits that stand for a model's weights."""
    return checksum(model / "model.safetensors")[:16]


def plan(
    digests: Mapping[tuple[str, int], str],
    tasks: Sequence[str],
    modes: Sequence[str],
    shots: Sequence[int | None],
    draws: int,
) -> list[Uptake]:
    """Every uptake that is asked for, seed by seed.

    A new initialisation has no old task to be trained jointly with, so it takes part in the other modes alone.

    Args:
        digests: of the selected models, by arm and seed.
        tasks: unseen ones.
        modes: how they are taken up.
        shots: labelled samples; None for all.
        draws: how often each.
    """
    return [
        Uptake(arm, seed, digest, weights, mode, task, count, draw)
        for seed in dict.fromkeys(seed for _, seed in digests)
        for draw in range(draws)
        for task in tasks
        for mode in modes
        for count in shots
        for (arm, own), digest in digests.items()
        if own == seed
        for weights in (("trained",) if mode == "joint" else ("trained", "random"))
    ]


@dataclass(frozen=True)
class TransferExperiment(Experiment):
    """What trials of the stage are built from.

    Attributes:
        settings: length and optimiser of an uptake.
    """

    settings: TrainingSettings = field(default_factory=TrainingSettings)

    def build(
        self,
        suggestion: Suggestion,
        seed: int,
        reference: Reference | None = None,
        training_seed: int | None = None,
    ) -> tuple[Transfer, MultiTaskNet]:
        """An uptake, ready for its first step."""
        uptake, data = Uptake(**suggestion.params["uptake"]), self.data(seed)
        task = next(task for task in data.unseen_tasks if task.name == uptake.task)
        network = _taking_up(
            suggestion.params["model"], task, uptake.weights == "random", self.settings.grouping,
            uptake.fresh_seed,
        )  # fmt: skip
        device = self.config.resources.device
        method = Transfer(
            on_device(data, device), network.to(device), self.settings, uptake.fresh_seed,
            task=uptake.task, mode=uptake.mode, shots=uptake.shots, remembers=uptake.remembers,
        )  # fmt: skip
        return method, network

    def check(self, model: Path, task: Task) -> None:
        """Build what would take up a task, before anything trains.

        Raises:
            MsAutomlError: where the network's factory cannot make a head for it, or makes another trunk.
        """
        network = _taking_up(str(model), task, False, self.settings.grouping, 0)
        check_network(network, read_architecture(model).image_shape, [task])

    def passes(self, uptake: Uptake) -> float:
        """What an uptake costs, known before it starts; with all samples where their number is not."""
        data = self.data(uptake.seed)
        samples = len(data.train) if uptake.shots is None else uptake.shots
        return Transfer.planned_cost(
            data, self.settings, mode=uptake.mode, samples=samples, remembers=uptake.remembers
        ).passes


def _taking_up(model: str, task: Task, random: bool, grouping: str, seed: int) -> MultiTaskNet:
    """The selected network at a place with a new head; with ``random`` only its pattern of zeros is its own."""
    known, trained = _loaded(model)
    network = build_network(
        known.factory,
        known.args,
        image_shape=known.image_shape,
        heads={**known.heads, task.name: task.head},
        seed=seed,
    )
    if random:
        alive = build_groups(trained, grouping, known.image_shape).norms() > 0
        groups = build_groups(network, grouping, known.image_shape)
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
