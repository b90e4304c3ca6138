"""One selected model adapts to one unseen task: which adaptations a stage is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ms_automl.comparison.run import Suggestion
from ms_automl.storage.files import checksum

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


def digest_of(model: Path) -> str:
    """16 hex digits that stand for a model's weights."""
    return checksum(model / "model.safetensors")[:16]


def adaptations(
    digests: Mapping[tuple[str, int], str],
    tasks: Sequence[str],
    modes: Sequence[str],
    shots: Sequence[int | None],
    draws: int,
) -> list[Adaptation]:
    """All adaptations that are asked for, seed by seed.

    A new initialisation has no old task to be trained jointly with, so it takes part in the other modes alone.

    Args:
        digests: of the selected models, by arm and seed.
        tasks: unseen ones.
        modes: how they are learned.
        shots: labelled samples; None for all.
        draws: how often each.
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
