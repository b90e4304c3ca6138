"""One selected model adapts to one unseen task: which adaptations a stage is made of, and what runs one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from typing import Any

from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.registry import METHODS
from ms_automl.comparison.run import Suggestion
from ms_automl.data import labelled, on_device
from ms_automl.errors import ConfigError, DataError
from ms_automl.meta import Reference
from ms_automl.models import MultiTaskNet, check_network
from ms_automl.models.archive import Architecture, load, read_architecture
from ms_automl.models.factories import build_network
from ms_automl.models.heads import place
from ms_automl.sparsity import build_groups
from ms_automl.storage.remote import as_folder, shown
from ms_automl.tasks import Task
from ms_automl.training import Trainable, TrainingSettings

USUAL = (16, 64, 256, None)
"""Labelled samples where nothing is asked for, None for all."""
FRESH = 2_000_000
"""Seeds of heads, samples and data order begin here: neither a comparison nor its retrainings number theirs so."""


@dataclass(frozen=True)
class Adaptation:
    """One selected model, or its pattern alone, adapts to one task.

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

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Adaptation:
        """The adaptation that a trial's parameters or a row describe."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    @property
    def name(self) -> str:
        """The name that records and the screen show; another model of the same arm and seed has another one."""
        pattern = "" if self.weights == "trained" else "-random"
        shots = "all" if self.shots is None else self.shots
        return f"{self.task}/{self.arm}-{self.seed}{pattern}/{self.mode}/{shots}/{self.draw} {self.digest[:6]}"

    @property
    def fresh_seed(self) -> int:
        """The seed of samples, head and data order."""
        return FRESH + 1000 * self.seed + self.draw

    @property
    def remembers(self) -> bool:
        """Whether there is anything to forget: a frozen trunk keeps what it knows, a new one knows nothing."""
        return self.weights == "trained" and self.mode != "frozen"

    @property
    def suggestion(self) -> Suggestion:
        """The trial that runs the adaptation."""
        about = {name: str(value) for name, value in asdict(self).items() if name != "digest"}
        about["shots"] = str(self.shots or "all")
        return Suggestion("transfer", {"adaptation": asdict(self)}, {}, title=self.name, about=about)


def adaptations(
    digests: Mapping[tuple[str, int], str],
    tasks: Sequence[str],
    modes: Sequence[str],
    shots: Sequence[int | None],
    draws: int,
) -> list[Adaptation]:
    """All adaptations that are asked for, seed by seed.

    A new initialisation has no old task to be trained jointly with, so it takes part in the other modes alone.
    ``digests`` are those of the selected models, by arm and seed; ``draws`` says how often each is done.
    """
    return [
        Adaptation(arm, seed, digest, weights, mode, task, count, draw)
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
        model, random = self.models[adaptation.arm, adaptation.seed], adaptation.weights == "random"
        network = _with_new_head(model, task, random, self.settings.grouping, adaptation.fresh_seed)
        device = self.config.resources.device
        method = METHODS["transfer"].build(
            on_device(data, device), network.to(device), self.settings, adaptation.fresh_seed,
            task=adaptation.task, mode=adaptation.mode, shots=adaptation.shots, remembers=adaptation.remembers,
        )  # fmt: skip
        return method, network

    def check(self, model: str, task: Task) -> None:
        """Raise MsAutomlError where the network's factory makes no head for a task, or another trunk."""
        network = _with_new_head(model, task, False, self.settings.grouping, 0)
        check_network(network, _loaded(model)[0].image_shape, [task])

    def passes_of(self, adaptation: Adaptation) -> dict[str, float]:
        """Passes of an adaptation, by kind, known before it starts; of all samples where their number is not."""
        data = self.data(adaptation.seed)
        samples = len(data.train) if adaptation.shots is None else adaptation.shots
        cost = METHODS["transfer"].planned_cost(
            data, self.settings, mode=adaptation.mode, samples=samples, remembers=adaptation.remembers
        )
        return cost.by_kind()

    def possible_shots(
        self, seeds: Sequence[int], tasks: Sequence[str], shots: Sequence[int | None] | None
    ) -> list[int | None]:
        """The numbers of labels, none too large: those asked for, or the usual ones that all tasks have."""
        counts = sorted(set(USUAL if shots is None else shots), key=lambda count: (count is None, count or 0))
        for seed in seeds:
            data = self.data(seed)
            for task in (task for task in data.unseen_tasks if task.name in tasks):
                most = len(labelled(data.train, task, None, seed))
                if shots is None:
                    counts = [count for count in counts if count is None or count < most]
                if too_many := [count for count in counts if count is not None and count > most]:
                    raise ConfigError(
                        f"--shots {too_many[0]} is more than the {most} labels of '{task.name}' in the train split"
                    )
        return counts


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
    other_trunk = f"the network's factory builds another trunk once it has a head for '{task.name}'"
    try:
        missing, unexpected = network.load_state_dict(trained.state_dict(), strict=False)
    except RuntimeError as error:  # of another shape
        raise DataError(f"{shown(model)}: {other_trunk}") from error
    if unexpected or not all(name.startswith(f"heads.{place(task.name)}.") for name in missing):
        raise DataError(f"{shown(model)}: {other_trunk}")
    return network


@lru_cache(maxsize=32)  # all arms of a seed, which take turns
def _loaded(model: str) -> tuple[Architecture, MultiTaskNet]:
    with as_folder(model) as folder:
        return read_architecture(folder), load(folder)
