"""Gradual group pruning by importance, without λ: the rival from the pruning field."""

from __future__ import annotations

import torch

from ms_automl.data import MultiTaskData
from ms_automl.errors import ConfigError, unknown_name
from ms_automl.models import MultiTaskNet
from ms_automl.sparsity import CRITERIA, cubic_ramp
from ms_automl.training import Metrics, State, TrainingLoop, TrainingSettings


class Pruned:
    """Multi-task training in which the cheapest groups go along a cubic ramp (arXiv 1710.01878), for good.

    Groups of all layers are ranked together, by what the removal of a group costs per weight removed: estimated
    from gradients (:class:`~ms_automl.sparsity.TaylorImportance`) or from the weights alone
    (:class:`~ms_automl.sparsity.MagnitudeImportance`). The ramp and the debiasing phase are those of every
    other trainable, so that only the way of choosing differs.

    Args:
        data: what to train on.
        network: trained in place.
        settings: length, optimiser and phases.
        seed: of the data order.
        level: share of the trunk's penalised weights to remove, 0 to 1.
        criterion: a key of :data:`~ms_automl.sparsity.importance.CRITERIA`.
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
        self.importance = CRITERIA[criterion](self.loop.groups)
        self.alive = torch.ones_like(self.loop.groups.size)
        self.level = level
        self.every = every

    @property
    def done(self) -> bool:
        """Whether the last report was made."""
        return self.loop.done

    def step(self) -> Metrics:
        """Train one report interval and evaluate."""
        return self.loop.interval(self._sparsify)

    def _sparsify(self) -> None:
        loop = self.loop
        self.importance.observe(loop.groups.gradients())
        if loop.steps_done % self.every == 0 or loop.phase >= 1:
            lowest = self.importance.lowest(cubic_ramp(self.level, loop.phase), gone=self.alive == 0)
            self.alive[lowest] = 0
        loop.groups.scale_(self.alive)

    def state_dict(self) -> State:
        """Everything that the rest of the run depends on."""
        return {
            "loop": self.loop.state_dict(),
            "importance": self.importance.state_dict(),
            "alive": self.alive.clone(),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore :meth:`state_dict`."""
        self.loop.load_state_dict(state["loop"])
        self.importance.load_state_dict(state["importance"])
        self.alive.copy_(state["alive"])
