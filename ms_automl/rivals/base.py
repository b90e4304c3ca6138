"""What a sparsity method of the literature is made of here: a rule that may also act around the backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ms_automl.meta.rule import Rule
from ms_automl.sparsity.groups import Groups
from ms_automl.sparsity.importance import cheapest


@dataclass(frozen=True)
class RivalInputs:
    """What a rival is built from, besides its own knobs.

    Attributes:
        groups: of the network, the same as every other way of choosing has.
        steps: optimiser steps of the training.
        prox_steps: those of the sparsifying phase.
        level: share of the penalised weights to be zero in the end, at least; 0 leaves it to its own knob.
        seed: of what the method draws.
    """

    groups: Groups
    steps: int
    prox_steps: int
    level: float
    seed: int


class Rival(Rule):
    """A rule that is also called before the forward and after the backward of each step of the phase."""

    def prepare(self) -> None:
        """Before the forward pass of a training step."""

    def adjust(self) -> None:
        """After the backward pass, before the optimiser's step: gradients may be written to."""


class Latent(Rival):
    """The network computes with a function of the weights that the optimiser moves, the latent ones.

    Between steps the network has the weights that it is evaluated with; while the optimiser steps, the latent
    ones.

    Args:
        groups: whose weights (and biases, γ and β that go with them) are latent.
    """

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self.parameters = [parameter for parameter, _ in groups.masks(torch.ones_like(groups.size))]
        self.latent = [parameter.detach().clone() for parameter in self.parameters]

    @property
    def latent_weights(self) -> Sequence[Tensor]:
        """Those of the latent parameters that stand in groups, in their order."""
        return self.latent[: len(self.groups.weights)]

    @torch.no_grad()
    def adjust(self) -> None:
        """Let the optimiser step from the latent weights along the gradient where the network was."""
        torch._foreach_copy_(self.parameters, self.latent)

    @torch.no_grad()
    def take(self) -> None:
        """Note where the optimiser has brought the latent weights."""
        torch._foreach_copy_(self.latent, self.parameters)

    def state_dict(self) -> dict[str, Any]:
        """The latent weights."""
        return {"latent": [value.clone() for value in self.latent]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        for mine, kept in zip(self.latent, state["latent"], strict=True):  # which may lie on another device
            mine.copy_(kept)


def within_layer(groups: Groups, values: Tensor) -> Tensor:
    """[G] (max_l - v_g) / (max_l - min_l) over each layer: 1 for the layer's lowest value, 0 for its highest."""
    zeros = values.new_zeros(len(groups.names))
    high = torch.full_like(zeros, -torch.inf).scatter_reduce(0, groups.layer, values, "amax")[groups.layer]
    low = torch.full_like(zeros, torch.inf).scatter_reduce(0, groups.layer, values, "amin")[groups.layer]
    return (high - values) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)


def shortest(groups: Groups, share: float) -> Tensor:
    """[G] True for the groups of smallest norm, over the mean of their layer's, that hold a share of the weights.

    As Torch-Pruning ranks groups over all layers (DepGraph, arXiv 2301.12900, section 3.3).
    """
    norms = groups.norms()
    mean = groups.layer_sum(norms) / groups.layer_sum(torch.ones_like(norms))
    return cheapest(groups, norms / mean.clamp(min=torch.finfo(norms.dtype).tiny)[groups.layer], share)


def remove(groups: Groups, gone: Tensor) -> None:
    """θ_g ← 0 where a group is gone [G]."""
    groups.scale_((~gone).to(groups.size.dtype))
