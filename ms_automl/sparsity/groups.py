"""Penalty groups: the input channels of every trunk convolution, all layers in one flat vector.

Group g = (layer l, input channel c) holds the n_g = out_channels · kernel weights W_l[:, c, :, :]. A channel
that no reader uses goes away ('Less is More', arXiv 2308.12114, section 3). Quantities per group are vectors
[G] over all layers, so that a proximal step is a handful of fused operations and not a loop of small ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ms_automl.models import MultiTaskNet

_IN_GROUP = (0, 2, 3)  # axes of a conv weight [out, in, kh, kw] that lie inside an input-channel group


class ChannelGroups:
    """The groups of a network's trunk.

    Args:
        network: its ``penalised()`` convolutions are grouped; it is referred to, not copied.

    Attributes:
        names: L layer names.
        weights: L weight tensors [out, in, kh, kw], the live parameters.
        layer: [G] index of each group's layer.
        size: [G] n_g, the weights in each group (float).
        total: N = Σ_g n_g.
        removable: [L] True where every group of the layer may go.
    """

    def __init__(self, network: MultiTaskNet) -> None:
        convs = network.penalised()
        self.names = tuple(convs)
        self.weights: list[Tensor] = [conv.weight for conv in convs.values()]
        device = self.weights[0].device
        self.counts = [weight.shape[1] for weight in self.weights]
        counts = torch.tensor(self.counts, device=device)
        self.layer = torch.repeat_interleave(torch.arange(len(counts), device=device), counts)
        per_group = [weight.numel() / weight.shape[1] for weight in self.weights]
        self.size = torch.tensor(per_group, device=device, dtype=self.weights[0].dtype)[self.layer]
        self.total = float(sum(weight.numel() for weight in self.weights))
        self.removable = torch.tensor([name in network.removable for name in self.names], device=device)

    def inner(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """Σ over each group of a · b: two lists of L tensors shaped like the weights to [G]."""
        return torch.cat([product.sum(_IN_GROUP) for product in torch._foreach_mul(list(a), list(b))])

    def gradients(self) -> list[Tensor]:
        """L tensors: what the last backward left in ``grad``, 0 where no task reads the layer."""
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
        torch._foreach_mul_(self.weights, self.per_weight(factors))

    def per_weight(self, values: Tensor) -> list[Tensor]:
        """A vector [G] as L tensors [1, in, 1, 1] that broadcast over the weights."""
        return [part.view(1, -1, 1, 1) for part in torch.split(values, self.counts)]

    def layer_sum(self, values: Tensor) -> Tensor:
        """Sum a vector [G] within each layer: [L]."""
        zeros = torch.zeros(len(self.names), dtype=values.dtype, device=values.device)
        return zeros.index_add_(0, self.layer, values)

    def strongest(self, values: Tensor) -> Tensor:
        """[G] True for the largest value of each layer that must keep one group; the first of equal ones."""
        low = torch.full((len(self.names),), -torch.inf, dtype=values.dtype, device=values.device)
        top = low.scatter_reduce(0, self.layer, values, "amax")
        place = torch.arange(len(values), device=values.device)
        tied = torch.where(values == top[self.layer], place, len(values))
        first = torch.full_like(low, len(values), dtype=place.dtype).scatter_reduce(0, self.layer, tied, "amin")
        return (place == first[self.layer]) & ~self.removable[self.layer]
