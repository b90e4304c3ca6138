"""Which group a weight belongs to: from weights to groups and back.

A side maps tensors shaped like the weights to a vector [G] over the groups and a vector [G] to tensors that
broadcast over the weights. It knows shapes, not what a group means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Side(Protocol):
    """One of the group memberships that every weight has."""

    def sum(self, tensors: Sequence[Tensor]) -> Tensor:
        """Σ over each group: tensors shaped like the weights to [G]."""
        ...

    def spread(self, values: Tensor, absent: float = 1.0) -> list[Tensor]:
        """A vector [G] as tensors that broadcast over the weights; ``absent`` for weights in no group."""
        ...


class AxisSide:
    """A group is one index along an axis of one convolution's weight [out, in, kh, kw].

    Args:
        axis: 0 (output channels) or 1 (input channels).
        counts: size of that axis by layer.
    """

    def __init__(self, axis: int, counts: Sequence[int]) -> None:
        self.inside = tuple(other for other in range(4) if other != axis)
        self.shape = tuple(-1 if other == axis else 1 for other in range(4))
        self.counts = list(counts)

    def sum(self, tensors: Sequence[Tensor]) -> Tensor:
        """Σ over each group: tensors shaped like the weights to [G]."""
        return torch.cat([tensor.sum(self.inside) for tensor in tensors])

    def spread(self, values: Tensor, absent: float = 1.0) -> list[Tensor]:
        """A vector [G] as views with the other axes of size 1; no weight is in no group."""
        return [part.view(self.shape) for part in torch.split(values, self.counts)]


class ElementSide:
    """A group is a single weight; within a layer they stand in the order [out, kh, kw, in].

    That is how a channels-last weight lies in memory, so that reading and writing copies nothing.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.shapes = [(w.shape[0], w.shape[2], w.shape[3], w.shape[1]) for w in weights]
        self.counts = [w.numel() for w in weights]

    def sum(self, tensors: Sequence[Tensor]) -> Tensor:
        """Tensors shaped like the weights to [G]."""
        return torch.cat([tensor.permute(0, 2, 3, 1).reshape(-1) for tensor in tensors])

    def spread(self, values: Tensor, absent: float = 1.0) -> list[Tensor]:
        """A vector [G] as tensors of the weights' shapes; no weight is in no group."""
        parts = zip(torch.split(values, self.counts), self.shapes, strict=True)
        return [part.view(shape).permute(0, 3, 1, 2) for part, shape in parts]


class IndexedSide:
    """As :class:`AxisSide`, where several layers share a group.

    Args:
        axis: 0 (output channels) or 1 (input channels).
        indices: by weight, the group of each index along the axis; -1 for none.
        groups: G.
    """

    def __init__(self, axis: int, indices: Sequence[Tensor], groups: int) -> None:
        self.axis = AxisSide(axis, [len(index) for index in indices])
        index = torch.cat(list(indices))
        self.index = torch.where(index < 0, groups, index)
        self.groups = groups

    def sum(self, tensors: Sequence[Tensor]) -> Tensor:
        """Σ over each group: tensors shaped like the weights to [G]."""
        by_channel = self.axis.sum(tensors)
        return by_channel.new_zeros(self.groups + 1).index_add(0, self.index, by_channel)[:-1]

    def spread(self, values: Tensor, absent: float = 1.0) -> list[Tensor]:
        """A vector [G] as tensors that broadcast over the weights; ``absent`` for weights in no group."""
        return self.axis.spread(torch.cat([values, values.new_full((1,), absent)]).index_select(0, self.index))


class Stacks:
    """The weights of one shape as one tensor [n, out, kh, kw, in]: few operations for many equal layers.

    What differs between the sides is computed for all of them at once, on *members*: the stacks, once a side.

    Args:
        shapes: of the weights.
        sides: theirs.
        groups: G.
        device: theirs.
    """

    def __init__(
        self, shapes: Sequence[torch.Size], sides: Sequence[Side], groups: int, device: torch.device
    ) -> None:
        stacks: dict[torch.Size, list[int]] = {}
        for place, shape in enumerate(shapes):
            stacks.setdefault(shape, []).append(place)
        self.places = list(stacks.values())
        self.groups = groups
        self.sides = len(sides)
        # By member, its group for each weight, with axes of size 1 inside a group; G for weights in no group.
        numbers = torch.arange(groups, device=device)
        indices = [index for side in sides for index in self(side.spread(numbers, absent=groups))]
        self.shapes = [index.shape for index in indices]
        self.lengths = [index.numel() for index in indices]
        self.inside = [tuple(axis for axis in range(1, 5) if shape[axis] == 1) for shape in self.shapes]
        of_a_stack = [self.inside[i :: len(self.places)] for i in range(len(self.places))]
        self.shared = [tuple(set.intersection(*map(set, axes))) for axes in of_a_stack]
        self.index = torch.cat([index.flatten() for index in indices])

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Tensors shaped like the weights, or broadcasting over them, as stacks."""
        return [torch.stack([tensors[i].permute(0, 2, 3, 1) for i in places]) for places in self.places]

    def split(self, stacks: Sequence[Tensor]) -> list[Tensor]:
        """Inverse: views shaped like the weights."""
        parts = {
            place: part.permute(0, 3, 1, 2)
            for stack, places in zip(stacks, self.places, strict=True)
            for place, part in zip(places, stack.unbind(), strict=True)
        }
        return [parts[place] for place in range(len(parts))]

    def members(self, stacks: Sequence[Tensor]) -> list[Tensor]:
        """The stacks, once for each side."""
        return list(stacks) * self.sides

    def product(self, members: tuple[Tensor, ...]) -> list[Tensor]:
        """Stacks: the product of each one's members."""
        first, *others = (members[i : i + len(self.places)] for i in range(0, len(members), len(self.places)))
        for other in others:
            first = torch._foreach_mul(first, other)
        return list(first)

    def spread(self, values: Tensor, absent: float = 1.0) -> list[Tensor]:
        """A vector [G] as tensors that broadcast over the members; ``absent`` for weights in no group."""
        taken = torch.cat([values, values.new_full((1,), absent)]).index_select(0, self.index)
        return [
            part.view(shape) for part, shape in zip(torch.split(taken, self.lengths), self.shapes, strict=True)
        ]

    def inner(self, members: Sequence[Tensor]) -> Tensor:
        """Σ inside the groups, member by member: the summands that :meth:`total` adds up by group."""
        return torch.cat([part.sum(inside).flatten() for part, inside in zip(members, self.inside, strict=True)])

    def total(self, *inners: Tensor) -> Tensor:
        """Σ over each group of what :meth:`inner` has summed, K times: [K, G]."""
        summands = torch.stack(inners)
        return summands.new_zeros(len(inners), self.groups + 1).index_add(1, self.index, summands)[:, :-1]

    def sums(self, *several: Sequence[Tensor]) -> Tensor:
        """Σ over each group, on all sides: K lists of stacks to [K, G]."""
        # What lies inside the groups of every side is summed once for all of them.
        shared = [
            [stack.sum(axes, keepdim=True) for stack, axes in zip(stacks, self.shared, strict=True)]
            for stacks in several
        ]
        return self.total(*(self.inner(self.members(parts)) for parts in shared))
