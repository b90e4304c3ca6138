"""Pruning criteria that compare a group with those of its own layer, or of its own structure, and no others.

Scores of different layers are of different scales. Where groups are ranked within classes, each class loses the
same share of its groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ms_automl.errors import ConfigError
from ms_automl.sparsity.groups import Groups
from ms_automl.sparsity.importance import TaylorImportance, cheapest
from ms_automl.sparsity.memberships import AxisMembership


class Score(Protocol):
    """What orders the groups of a class."""

    def __call__(self, alive: Tensor) -> Tensor:
        """[G] scores, of which the lowest go first; of groups that are not ``alive`` [G] any."""
        ...


class RankedImportance:
    """c_g = r_g / G_k with r_g = 0, 1, … the place of a group's score in its class k of G_k groups.

    Args:
        groups: the groups.
        score: what orders them.
        classes: [G] the number of each group's class, from 0 on.
        taylor: what the score is made of, where it observes gradients.
    """

    def __init__(
        self, groups: Groups, score: Score, classes: Tensor, taylor: TaylorImportance | None = None
    ) -> None:
        self.groups, self.score, self.classes, self.taylor = groups, score, classes, taylor
        self.counts = torch.bincount(classes)

    def observe(self, gradients: Sequence[Tensor]) -> None:
        """Take in one batch's gradients, where the score is made of them."""
        if self.taylor is not None:
            self.taylor.observe(gradients)

    def cost(self) -> Tensor:
        """[G] c_g, of all groups."""
        return self._places(torch.zeros_like(self.classes, dtype=torch.bool))

    def lowest(self, share: float, gone: Tensor | None = None) -> Tensor:
        """[G] True for the cheapest groups, as :func:`~ms_automl.sparsity.importance.cheapest` picks them."""
        none = torch.zeros_like(self.classes, dtype=torch.bool)
        return cheapest(self.groups, self._places(none if gone is None else gone), share, gone)

    def _places(self, gone: Tensor) -> Tensor:
        """c_g, those that are gone first in their class."""
        scores = torch.where(gone, -torch.inf, self.score(~gone))
        order = torch.argsort(scores, stable=True)
        order = order[torch.argsort(self.classes[order], stable=True)]
        starts = torch.cumsum(self.counts, 0) - self.counts
        places = torch.empty_like(scores)
        numbers = torch.arange(len(order), device=order.device) - starts[self.classes[order]]
        places[order] = numbers.to(places.dtype)
        return places / self.counts[self.classes]

    def state_dict(self) -> dict[str, object]:
        """What was observed."""
        return {} if self.taylor is None else self.taylor.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore what was observed."""
        if self.taylor is not None:
            self.taylor.load_state_dict(state)


def l2(groups: Groups) -> RankedImportance:
    """||θ_g|| / sqrt(n_g) within a layer (Li et al. 2017, arXiv 1608.08710, section 3.1, there with L1 norms)."""
    return RankedImportance(groups, lambda alive: groups.norms() / groups.size.sqrt(), groups.layer)


def fpgm(groups: Groups) -> RankedImportance:
    """Σ_h ||θ_g - θ_h|| over the living groups h of the layer: the nearest to all others can be done without.

    Filter pruning via geometric median (He et al. 2019, arXiv 1811.00250, eq. 4 to 6).

    Raises:
        ConfigError: for groups that are not slices of one weight.
    """
    axes = _axes(groups)
    if axes is None:
        raise ConfigError(
            "criterion 'fpgm' measures distances between the slices of one weight, and groups are none"
        )

    def score(alive: Tensor) -> Tensor:
        found = []
        for weight, axis, living in zip(groups.weights, axes, torch.split(alive, groups.counts), strict=True):
            slices = weight.detach().transpose(0, axis).flatten(1)
            found.append(torch.cdist(slices, slices[living]).sum(1))
        return torch.cat(found)

    return RankedImportance(groups, score, groups.layer)


def isomorphic(groups: Groups) -> RankedImportance:
    """Taylor scores, ranked among the groups of equal structure (Fang et al. 2024, arXiv 2407.04616, section 3.2).

    Two layers are of one structure where their groups have the same shape: of slices of weights that of a slice,
    of coupled channels as many weights in each group.
    """
    keys: dict[object, int] = {}
    classes, axes = [], _axes(groups)
    for index, (start, count) in enumerate(zip(groups.starts.tolist(), groups.counts, strict=True)):
        key: object = float(groups.size[start : start + count].median())
        if axes is not None:
            shape = list(groups.weights[index].shape)
            del shape[axes[index]]
            key = tuple(shape)
        classes += [keys.setdefault(key, len(keys))] * count
    taylor = TaylorImportance(groups)
    numbers = torch.tensor(classes, device=groups.layer.device)
    return RankedImportance(groups, lambda alive: taylor.cost(), numbers, taylor)


def _axes(groups: Groups) -> list[int] | None:
    """By layer the axis along which groups are slices of its weight; None where they are something else."""
    membership, *more = groups.memberships
    return membership.axes if isinstance(membership, AxisMembership) and not more else None
