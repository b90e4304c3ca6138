"""Coupled groups: one channel everywhere it is written and read, so that its removal leaves nothing behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from ms_automl.errors import NetworkError
from ms_automl.models import MultiTaskNet
from ms_automl.sparsity.coupling import ABSENT, INSTEAD, couple
from ms_automl.sparsity.groups import Groups, Layers
from ms_automl.sparsity.memberships import IndexedMembership


class CoupledGroups(Groups):
    """``coupled``: the rows that write a channel and the slices that read it, in all convolutions of the trunk.

    A layer is a stream: channels that residual additions make one, named after the convolution that writes it
    first. A weight stands in two groups, that of its output and that of its input, and is zero when either is.
    Where a group is zeroed, the biases and batch norm's γ and β of its channel are zeroed with it: the network
    computes what it would without the channel (in a residual stream also in front of the heads, whose weights
    are no part of a group). A stream that a head reads, or that something without a skip writes, keeps one.

    Structural groups as of DepGraph (Fang et al. 2023, arXiv 2301.12900, section 3).

    Args:
        network: its trunk is traced; it is referred to, not copied.
        image_shape: (channels, H, W) of the images it takes.
        layers: which of its layers are grouped; all ``penalised()`` ones where not given. Where each channel of
            one is written by something that is frozen, computed or kept, it is left out.
        kept: by name of a module or a parameter, why it is to be left alone: channels that pass it stay.

    Raises:
        NetworkError: where the trunk's channels cannot be coupled, or where none can go.
    """

    def __init__(
        self,
        network: MultiTaskNet,
        image_shape: tuple[int, int, int],
        layers: Layers | None = None,
        kept: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        layers = network.penalised() if layers is None else layers
        coupling = couple(network, image_shape, layers, kept)
        indices = {name: (coupling.outputs[name], coupling.inputs[name]) for name in coupling.outputs}
        indices = {name: both for name, both in indices.items() if bool((torch.cat(both) != ABSENT).any())}
        if not indices:
            whys = "; ".join(dict.fromkeys(coupling.whole.values()))
            whys = (
                whys or "something frozen or computed writes into all of them: a bias, a batch norm, a convolution"
            )
            raise NetworkError(f"no coupled channel of the trunk can go ({whys}); {INSTEAD}")
        weights: list[Tensor] = [network.trunk.get_parameter(name) for name in indices]
        device, count, shapes = weights[0].device, sum(coupling.counts), [weight.shape for weight in weights]
        memberships = [
            IndexedMembership(
                [one for one, name in zip(axes, coupling.outputs, strict=True) if name in indices],
                shapes,
                [both[side].to(device) for both in indices.values()],
                count,
            )
            for side, axes in enumerate(coupling.sides())
        ]
        super().__init__(coupling.streams, weights, coupling.counts, memberships, coupling.removable)
        self.left_out = {
            name: f"it ends in {why}" for name, why in coupling.whole.items() if f"{name}.weight" not in indices
        }
        parameters = dict(network.trunk.named_parameters())
        self.companions: list[Tensor] = [parameters[name] for name in coupling.companions]
        axes, numbers = zip(*coupling.companions.values(), strict=True) if coupling.companions else ((), ())
        self._shapes = [
            tuple(-1 if other == axis else 1 for other in range(parameter.ndim))
            for axis, parameter in zip(axes, self.companions, strict=True)
        ]
        self._lengths = [len(index) for index in numbers]
        index = torch.cat([*numbers, torch.empty(0, dtype=torch.int64)]).to(device)
        self._index = torch.where(index < 0, count, index)

    def masks(self, alive: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The parameters in which groups leave zeros, biases, γ and β too, each with what it is multiplied by."""
        return [*super().masks(alive), *zip(self.companions, self._living(alive != 0), strict=True)]

    def _living(self, alive: Tensor) -> list[Tensor]:
        """1 or 0 for each entry of the companions."""
        living = torch.cat([alive, alive.new_ones(1)]).index_select(0, self._index).to(self.size.dtype)
        parts = zip(torch.split(living, self._lengths), self._shapes, strict=True)
        return [part.view(shape) for part, shape in parts]

    @torch.no_grad()
    def multiply_(self, multipliers: Sequence[Tensor], alive: Tensor) -> None:
        """θ ← multiplier · θ, weight by weight; biases, γ and β of dead channels become 0."""
        super().multiply_(multipliers, alive)
        if self.companions:
            torch._foreach_mul_(self.companions, self._living(alive))

    def zeroed(self, order: Tensor) -> Tensor:
        """How many weights are zero once the first 1, 2, … groups of an order are: [G], as float64."""
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device)
        total = torch.zeros(len(order) + 1, dtype=torch.float64, device=order.device)
        # A weight is zero from the earlier of its two groups on; one with no group is never.
        firsts = [membership.spread(rank, absent=len(order)) for membership in self.memberships]
        for weight, written, read in zip(self.weights, *firsts, strict=True):
            first = torch.minimum(written, read).flatten()
            share = torch.full_like(first, weight.numel() // len(first), dtype=torch.float64)
            total.index_add_(0, first, share)
        return torch.cumsum(total[:-1], 0)
