"""Pruning-aware training: one budget over all layers, hard thresholds on latent weights (torchao's prototype)."""

from __future__ import annotations

import torch

from ms_automl.meta.step import TrainingStep
from ms_automl.rivals.base import Latent, RivalInputs, remove
from ms_automl.sparsity.groups import Groups
from ms_automl.sparsity.importance import cheapest, cubic_ramp


class Pat(Latent):
    """θ = u with the groups of lowest ||u_g||/sqrt(n_g) at zero, over all layers; u ← u - η ∇L(θ).

    As many as a cubic ramp asks for, which reaches the level at the phase's last step; a group that has grown
    comes back. torchao's ``GlobalMinSparsityConstraint`` with ``score_type=rms``, which ignores λ and γ = Σ η
    (they belong to its soft maps); there the budget is one of groups, here of weights.

    Args:
        groups: the groups.
        level: share of the weights to be zero in the end.
    """

    def __init__(self, groups: Groups, level: float) -> None:
        super().__init__(groups)
        self.level = level

    @torch.no_grad()
    def step(self, now: TrainingStep) -> None:
        """Note the latent weights, and mask."""
        self.take()
        scores = self.groups.norms() / self.groups.size.sqrt()
        remove(self.groups, cheapest(self.groups, scores, cubic_ramp(self.level, now.phase, end=1.0)))


def pat(given: RivalInputs) -> Pat:
    """Without a knob of its own."""
    return Pat(given.groups, given.level)
