"""Which group a weight belongs to: from weights to groups and back.

A membership maps tensors shaped like the weights to a vector [G] over the groups and a vector [G] to tensors that
broadcast over the weights. It knows shapes, not what a group means. Blocks and members do the same for all layers
and memberships at once, for what passes over the weights again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Membership(Protocol):
    """One of the group memberships that every weight has."""

    def sum(self, tensors: Sequence[Tensor]) -> Tensor:
        """Σ over each group: tensors shaped like the weights to [G]."""
        ...

    def spread(self, values: Tensor, absent: float = 1.0) -> list[Tensor]:
        """A vector [G] as tensors that broadcast over the weights; ``absent`` for weights in no group."""
        ...


class AxisMembership:
    """A group is one index along an axis of one layer's weight [out, in, …], or [in, out, …] of a transposed one.

    Args:
        axes: by layer, that of its output or of its input channels.
        shapes: of the weights.
    """

    def __init__(self, axes: Sequence[int], shapes: Sequence[torch.Size]) -> None:
        self.axes = list(axes)
        ranges = [range(len(shape)) for shape in shapes]
        self.inside = [tuple(o for o in one if o != axis) for one, axis in zip(ranges, axes, strict=True)]
        self.shapes = [[-1 if o == axis else 1 for o in one] for one, axis in zip(ranges, axes, strict=True)]
        self.counts = [shape[axis] for shape, axis in zip(shapes, axes, strict=True)]

    def sum(self, tensors: Sequence[Tensor]) -> Tensor:
        """Σ over each group: tensors shaped like the weights to [G]."""
        return torch.cat([one.sum(inside) for one, inside in zip(tensors, self.inside, strict=True)])

    def spread(self, values: Tensor, absent: float = 1.0) -> list[Tensor]:
        """A vector [G] as views with the other axes of size 1; no weight is in no group."""
        parts = torch.split(values, self.counts)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]


class ElementMembership:
    """A group is a single weight; within a layer they stand in the order [out, …, in].

    That is how a channels-last weight lies in memory, so that reading and writing copies nothing.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.shapes = [w.movedim(1, -1).shape for w in weights]
        self.counts = [w.numel() for w in weights]

    def sum(self, tensors: Sequence[Tensor]) -> Tensor:
        """Tensors shaped like the weights to [G]."""
        return torch.cat([tensor.movedim(1, -1).reshape(-1) for tensor in tensors])

    def spread(self, values: Tensor, absent: float = 1.0) -> list[Tensor]:
        """A vector [G] as tensors of the weights' shapes; no weight is in no group."""
        parts = zip(torch.split(values, self.counts), self.shapes, strict=True)
        return [part.view(shape).movedim(-1, 1) for part, shape in parts]


class IndexedMembership:
    """As :class:`AxisMembership`, where several layers share a group.

    Args:
        axes: by layer, that of its output or of its input channels.
        shapes: of the weights.
        indices: by weight, the group of each index along the axis; -1 for none.
        groups: G.
    """

    def __init__(
        self, axes: Sequence[int], shapes: Sequence[torch.Size], indices: Sequence[Tensor], groups: int
    ) -> None:
        self.axis = AxisMembership(axes, shapes)
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


class Blocks:
    """All weights as one vector [N], those of one shape next to each other: few operations for many layers.

    A block is the part of it where the weights have one shape, as a tensor [n, out, …, in]: the order in
    which channels-last weights lie in memory.

    Args:
        shapes: of the weights.
    """

    def __init__(self, shapes: Sequence[torch.Size]) -> None:
        blocks: dict[torch.Size, list[int]] = {}
        for place, shape in enumerate(shapes):
            blocks.setdefault(shape, []).append(place)
        self.order = [place for places in blocks.values() for place in places]
        self.place = [self.order.index(place) for place in range(len(shapes))]
        self.shapes = [(len(p), shape[0], *shape[2:], shape[1]) for shape, p in blocks.items()]
        self.lengths = [len(places) * shape.numel() for shape, places in blocks.items()]

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """Tensors shaped like the weights as one vector [N]."""
        return torch.cat([tensors[place].movedim(1, -1).reshape(-1) for place in self.order])

    def views(self, vector: Tensor) -> list[Tensor]:
        """The blocks of vectors [..., N], as views [..., n, out, …, in]."""
        parts = zip(torch.split(vector, self.lengths, -1), self.shapes, strict=True)
        return [part.view(*part.shape[:-1], *shape) for part, shape in parts]

    def split(self, vector: Tensor) -> list[Tensor]:
        """Inverse of :meth:`join`: views shaped like the weights."""
        parts = [part.movedim(-1, 1) for block in self.views(vector) for part in block.unbind()]
        return [parts[place] for place in self.place]


class Members:
    """The blocks once for each membership: what differs between them is computed at once, on [memberships, N].

    Args:
        blocks: of the weights.
        memberships: theirs.
        groups: G.
        device: theirs.
    """

    def __init__(
        self, blocks: Blocks, memberships: Sequence[Membership], groups: int, device: torch.device
    ) -> None:
        self.blocks = blocks
        self.memberships = len(memberships)
        self.groups = groups
        # By member, its group for each weight, with axes of size 1 inside a group; G for weights in no group.
        numbers = torch.arange(groups, device=device)
        self.shapes: list[torch.Size] = []
        indices = []
        for spread in (membership.spread(numbers, absent=groups) for membership in memberships):
            places = iter(blocks.order)
            for count, *_ in blocks.shapes:
                block = torch.stack([spread[next(places)].movedim(1, -1) for _ in range(count)])
                self.shapes.append(block.shape)
                indices.append(block.flatten())
        self.lengths = [len(index) for index in indices]
        self.index = torch.cat(indices)
        self.inside = [
            tuple(axis - len(shape) for axis in range(1, len(shape)) if shape[axis] == 1) for shape in self.shapes
        ]
        of_a_block = [self.inside[i :: len(blocks.shapes)] for i in range(len(blocks.shapes))]
        self.shared = [tuple(set.intersection(*map(set, axes))) for axes in of_a_block]

    def views(self, matrix: Tensor) -> list[Tensor]:
        """The members of [..., memberships, N], as views [..., n, out, …, in]."""
        return [
            view
            for membership in range(self.memberships)
            for view in self.blocks.views(matrix.select(-2, membership))
        ]

    def spread(self, values: Tensor, absent: float = 1.0) -> list[Tensor]:
        """A vector [G] as tensors that broadcast over the members; ``absent`` for weights in no group."""
        taken = torch.cat([values, values.new_full((1,), absent)]).index_select(0, self.index)
        return [
            part.view(shape) for part, shape in zip(torch.split(taken, self.lengths), self.shapes, strict=True)
        ]

    def sum(self, members: Sequence[Tensor]) -> Tensor:
        """Σ over each group, K at once: [K, n, out, …, in] by member to [K, G]."""
        parts = [member.sum(axes).flatten(1) for member, axes in zip(members, self.inside, strict=True)]
        summands = torch.cat(parts, 1)
        return summands.new_zeros(len(summands), self.groups + 1).index_add(1, self.index, summands)[:, :-1]

    def sum_over_sides(self, vectors: Tensor) -> Tensor:
        """:meth:`sum` of what is the same on all memberships: [K, N] to [K, G]."""
        # What lies inside the groups of every membership is summed once for all of them.
        blocks = [
            block.sum(axes, keepdim=True) if axes else block
            for block, axes in zip(self.blocks.views(vectors), self.shared, strict=True)
        ]
        return self.sum(blocks * self.memberships)
