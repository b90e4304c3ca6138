"""Gradual group pruning by importance, without λ: the rival from the pruning field."""

from __future__ import annotations

import torch

from ms_automl.data import MultiTaskData
from ms_automl.errors import ConfigError, unknown_name
from ms_automl.meta.rule import Rule
from ms_automl.meta.step import TrainingStep
from ms_automl.models import MultiTaskNet
from ms_automl.models.cost import Cost
from ms_automl.sparsity import CRITERIA, Groups, Importance, cubic_ramp
from ms_automl.training import Metrics, State, TrainingLoop, TrainingSettings


class Ramp(Rule):
    """The cheapest groups go, for good, as many as a cubic ramp asks for.

    Args:
        groups: the groups.
        importance: what removing each of them costs.
        level: share of the weights to be gone when the ramp ends.
        every: steps between two removals.
    """

    def __init__(self, groups: Groups, importance: Importance, level: float, every: int) -> None:
        self.groups, self.importance, self.level, self.every = groups, importance, level, every
        self.alive = torch.ones_like(groups.size)

    def step(self, now: TrainingStep) -> None:
        """Remove what is due."""
        self.importance.observe(now.gradients())
        if now.index % self.every == 0 or now.phase >= 1:
            lowest = self.importance.lowest(cubic_ramp(self.level, now.phase), gone=self.alive == 0)
            self.alive[lowest] = 0
        self.groups.scale_(self.alive)

    def state_dict(self) -> State:
        """The costs, and which groups live."""
        return {"importance": self.importance.state_dict(), "alive": self.alive.clone()}

    def load_state_dict(self, state: State) -> None:
        """Restore :meth:`state_dict`."""
        self.importance.load_state_dict(state["importance"])
        self.alive.copy_(state["alive"])


class Pruned:
    """Multi-task training in which the cheapest groups go along a cubic ramp (arXiv 1710.01878), for good.

    Groups of all layers are ranked together, by what the removal of a group costs per weight removed: estimated
    from gradients (:class:`~ms_automl.sparsity.TaylorImportance`) or from the weights alone
    (:class:`~ms_automl.sparsity.MagnitudeImportance`); or each within its layer or its structure
    (:mod:`~ms_automl.sparsity.ranked`). The ramp and the debiasing phase are those of every
    other trainable, so that only the way of choosing differs.

    Args:
        data: what to train on.
        network: trained in place.
        settings: length, optimiser and phases.
        seed: of the data order.
        level: share of the trunk's penalised weights to remove, 0 to 1.
        criterion: a key of :data:`~ms_automl.sparsity.criteria.CRITERIA`.
        every: steps between two removals.

    Raises:
        ConfigError: for a level out of range or an unknown criterion.
    """

    def __init__(
        self,
        data: MultiTaskData,
        network: MultiTaskNet,
        settings: TrainingSettings,
        seed: int,
        *,
        level: float,
        criterion: str = "taylor",
        every: int = 10,
    ) -> None:
        if not 0 <= level < 1:
            raise ConfigError(f"`0 <= level < 1` must hold, but got level={level}")
        if criterion not in CRITERIA:
            raise unknown_name("criterion", criterion, list(CRITERIA))
        self.loop = TrainingLoop(data, network, settings, seed)
        self.cost = self.loop.cost
        groups = self.loop.sparsifier.groups
        self.loop.sparsifier.rule = Ramp(groups, CRITERIA[criterion](groups), level, every)

    @staticmethod
    def planned_cost(data: MultiTaskData, settings: TrainingSettings, *, criterion: str = "taylor") -> Cost:
        """What a whole run costs; arguments as of the constructor.

        Raises:
            ConfigError: for a criterion that says nothing of such groups.
        """
        if criterion == "fpgm" and settings.grouping not in ("input_channel", "output_channel"):
            raise ConfigError(
                "criterion 'fpgm' measures distances between the slices of one weight, but got "
                f"training.grouping={settings.grouping}: set training.grouping=input_channel"
            )
        return settings.cost(data)

    @property
    def done(self) -> bool:
        """Whether the last report was made."""
        return self.loop.done

    def step(self) -> Metrics:
        """Train one report interval and evaluate."""
        return self.loop.interval()

    def state_dict(self) -> State:
        """Everything that the rest of the run depends on."""
        return {"loop": self.loop.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Restore :meth:`state_dict`."""
        self.loop.load_state_dict(state["loop"], rule=state)
