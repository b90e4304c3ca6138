"""Penalty groups: weights that go to zero together, all layers of the trunk in one flat vector.

Every quantity per group is a vector [G] over all layers, so that a proximal step is a handful of fused
operations and not a loop of small ones. How weights map to groups is the only thing the kinds differ in: each
weight stands in one group (or, where channels are coupled, in two), and a
:class:`~ms_automl.sparsity.memberships.Membership` says in which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType

import torch
from torch import Tensor

from ms_automl.models import Layer, MultiTaskNet
from ms_automl.models.weights import is_transposed
from ms_automl.sparsity.memberships import AxisMembership, Blocks, ElementMembership, Members, Membership

Layers = Mapping[str, Layer]
"""Layers of a trunk by name."""


class Groups:
    """The groups of a network's trunk: the contract of every kind in ``GROUPINGS``.

    Groups of a *layer* lie next to each other. A layer is what has its own λ: a convolution, or with coupled
    channels a stream of them.

    Args:
        names: L layer names.
        weights: the penalised weight tensors [out, in, kh, kw], the live parameters. One per layer, but for
            coupled channels, where a weight is read in one stream and written in another.
        counts: L numbers of groups.
        memberships: of a weight. With more than one it is zero as soon as one of its groups is.
        removable: by layer, whether every one of its groups may go.

    Attributes:
        layer: [G] index of each group's layer.
        size: [G] n_g, the weights in each group (float).
        total: N, the number of penalised weights; Σ_g n_g where groups do not overlap.
        removable: [L] True where every group of the layer may go.
        single: whether every group is a single weight.
        share: of the trunk's parameters, those that are penalised; 1 where nobody has looked.
        left_out: by name, why an ungrouped convolution of the trunk is not penalised.
    """

    share: float = 1.0
    left_out: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        names: Sequence[str],
        weights: Sequence[Tensor],
        counts: Sequence[int],
        memberships: Sequence[Membership],
        removable: Sequence[bool],
    ) -> None:
        self.names = tuple(names)
        self.weights: list[Tensor] = list(weights)
        self.counts = list(counts)
        self.memberships = tuple(memberships)
        device = self.weights[0].device
        numbers = torch.tensor(self.counts, device=device)
        self.layer = torch.arange(len(numbers), device=device).repeat_interleave(numbers, output_size=sum(counts))
        self.starts = torch.cumsum(numbers, 0) - numbers
        self.let_go(removable)
        ones = [torch.ones_like(weight.detach()) for weight in self.weights]
        self.size = self.inner(ones, ones)
        self.total = float(sum(weight.numel() for weight in self.weights))
        self.single = len(self.layer) == self.total

    def let_go(self, removable: Sequence[bool]) -> None:
        """Say which layers may lose every group."""
        places = zip(self.starts.tolist(), self.counts, removable, strict=True)
        self._kept = [slice(start, start + count) for start, count, free in places if not free]
        self.removable = torch.tensor(list(removable), device=self.starts.device)

    def masks(self, alive: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The parameters in which groups leave zeros, each with what it is multiplied by.

        Args:
            alive: [G] 1 where a group lives, else 0.
        """
        return list(zip(self.weights, self.per_weight(alive), strict=True))

    @property
    def most(self) -> float:
        """Share of the penalised weights that can be zero: all but the smallest group of layers that keep one."""
        alive = torch.zeros_like(self.size)
        for layer in self._kept:
            alive[layer.start + int(self.size[layer].argmin())] = 1
        masks = zip(self.per_weight(alive), self.weights, strict=True)
        return sum(float((mask == 0).double().mean()) * weight.numel() for mask, weight in masks) / self.total

    def inner(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """Σ over each group of a · b: two lists of tensors shaped like the weights to [G]."""
        return self.sum(torch._foreach_mul(list(a), list(b)))

    def sum(self, tensors: Sequence[Tensor]) -> Tensor:
        """Σ over each group: tensors shaped like the weights to [G]."""
        first, *others = (membership.sum(tensors) for membership in self.memberships)
        for other in others:
            first = first + other
        return first

    @cached_property
    def blocks(self) -> Blocks:
        """The weights as one vector, for what passes over them again and again."""
        return Blocks([weight.shape for weight in self.weights])

    @cached_property
    def members(self) -> Members:
        """The blocks once for each group that their weights stand in."""
        return Members(self.blocks, self.memberships, len(self.layer), self.layer.device)

    def gradients(self) -> list[Tensor]:
        """What the last backward left in ``grad``, tensor by tensor; 0 where no task reads the layer."""
        return [torch.zeros_like(w) if w.grad is None else w.grad for w in self.weights]

    @torch.no_grad()
    def norms(self) -> Tensor:
        """[G] Euclidean norms ||θ_g||."""
        return self.inner(self.weights, self.weights).sqrt_()

    @torch.no_grad()
    def scale_(self, factors: Tensor) -> None:
        """θ_g ← factor_g · θ_g; a factor of exactly 0 gives exact zeros.

        Args:
            factors: [G].
        """
        self.multiply_(self.per_weight(factors), factors != 0)

    @torch.no_grad()
    def multiply_(self, multipliers: Sequence[Tensor], alive: Tensor) -> None:
        """θ ← multiplier · θ, weight by weight.

        Args:
            multipliers: tensors that broadcast over the weights.
            alive: [G] False for groups that the step zeroes; for kinds that zero more than weights then.
        """
        torch._foreach_mul_(self.weights, list(multipliers))

    def per_weight(self, values: Tensor) -> list[Tensor]:
        """A vector [G] as tensors that broadcast over the weights; a weight of two groups gets the product."""
        first, *others = (membership.spread(values) for membership in self.memberships)
        for other in others:
            first = list(torch._foreach_mul(first, other))
        return first

    def layer_sum(self, values: Tensor) -> Tensor:
        """Sum a vector [G] within each layer: [L]."""
        zeros = torch.zeros(len(self.names), dtype=values.dtype, device=values.device)
        return zeros.index_add_(0, self.layer, values)

    def strongest(self, values: Tensor) -> Tensor:
        """[G] True for the largest value of each layer that must keep one group; the first of equal ones."""
        chosen = torch.zeros_like(self.layer, dtype=torch.bool)
        for part, marks in ((values[layer], chosen[layer]) for layer in self._kept):
            marks.scatter_(0, part.argmax(0, keepdim=True), True)
        return chosen

    def zeroed(self, order: Tensor) -> Tensor:
        """How many weights are zero once the first 1, 2, … groups of an order are: [G], as float64.

        Args:
            order: [G] a permutation of the groups.
        """
        return torch.cumsum(self.size[order].to(torch.float64), 0)


class ChannelGroups(Groups):
    """``input_channel``: g = W_l[:, c, :, :], n_g = out_channels · kernel.

    A channel that no reader uses goes away ('Less is More', arXiv 2308.12114, section 3).

    Args:
        network: it is referred to, not copied.
        layers: which of its layers are grouped; all ``penalised()`` ones where not given.
    """

    def __init__(self, network: MultiTaskNet, layers: Layers | None = None) -> None:
        names, weights, removable = _layers(network, layers)
        membership = AxisMembership(axes_of(network, names, 1), [weight.shape for weight in weights])
        super().__init__(names, weights, membership.counts, [membership], removable)


class FilterGroups(Groups):
    """``output_channel``: g = W_l[c, :, :, :], n_g = in_channels · kernel.

    Behind a batch norm a zero filter still emits the constant β: only ``coupled`` groups leave nothing behind.

    Args:
        network: it is referred to, not copied.
        layers: which of its layers are grouped; all ``penalised()`` ones where not given.
    """

    def __init__(self, network: MultiTaskNet, layers: Layers | None = None) -> None:
        names, weights, removable = _layers(network, layers)
        membership = AxisMembership(axes_of(network, names, 0), [weight.shape for weight in weights])
        super().__init__(names, weights, membership.counts, [membership], removable)


class WeightGroups(Groups):
    """``weight``: every weight on its own, n_g = 1; the penalty is λ ||W_l||_1 (unstructured sparsity).

    Args:
        network: it is referred to, not copied.
        layers: of which of its layers; of all ``penalised()`` ones where not given.
    """

    def __init__(self, network: MultiTaskNet, layers: Layers | None = None) -> None:
        names, weights, removable = _layers(network, layers)
        membership = ElementMembership(weights)
        super().__init__(names, weights, membership.counts, [membership], removable)


def _layers(network: MultiTaskNet, layers: Layers | None) -> tuple[list[str], list[Tensor], list[bool]]:
    layers = network.penalised() if layers is None else layers
    weights: list[Tensor] = [layer.weight for layer in layers.values()]
    return list(layers), weights, [_may_go(network, weight) for weight in weights]


def axes_of(network: MultiTaskNet, names: Iterable[str], axis: int) -> list[int]:
    """By layer, where the axis of its weight [out, in, …] lies."""
    return [1 - axis if is_transposed(network.trunk.get_submodule(name)) else axis for name in names]


def _may_go(network: MultiTaskNet, weight: Tensor) -> bool:
    """Whether all that use a weight may lose every group of it."""
    users = (name for name, module in network.named_modules() if module._parameters.get("weight") is weight)
    return all(name.removeprefix("trunk.") in (network.removable or ()) for name in users)
