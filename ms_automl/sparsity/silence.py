"""Whether anybody feels a channel whose group is zero: cos(0) is 1, and what mixes tokens may add a bias."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ms_automl.errors import NetworkError
from ms_automl.models.leaves import leaves
from ms_automl.sparsity.trace import trace

if TYPE_CHECKING:
    from ms_automl.sparsity.coupling import Coupling


@torch.no_grad()
def felt(trunk: nn.Module, coupling: Coupling, images: Tensor) -> set[str]:
    """Names of streams whose channels still say something when their groups are zero.

    Every second group of a copy with random weights is zeroed; outputs are not to answer the weights that read
    them. Where they do, the trace tells which of these weights read something else than 0.

    Args:
        trunk: on the CPU, in evaluation mode; it stays as it is.
        coupling: of it.
        images: [B, channels, H, W].

    Raises:
        NetworkError: where outputs answer and no stream can be blamed, or where they are not finite.
    """
    generator = torch.Generator().manual_seed(1)
    some = copy.deepcopy(trunk).eval()
    for parameter in some.parameters():
        scale = max(1, parameter[0].numel() if parameter.ndim else 1) ** -0.5
        parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    start, found = copy.deepcopy(some.state_dict()), set()
    for parity in (0, 1):
        some.load_state_dict(start)
        gone = torch.arange(sum(coupling.counts) + 1) % 2 == parity
        gone[-1] = False
        coupling.zero_(some, gone, 1)
        before = leaves(some(images))
        if not all(bool(one.isfinite().all()) for one in before):
            raise NetworkError("the trunk gives NaN or infinity where the group of a channel is zero")
        coupling.zero_(some, gone, -2)
        pairs = zip(before, leaves(some(images)), strict=True)
        if all(torch.allclose(one, two, rtol=1e-3, atol=1e-4 * float(one.abs().max())) for one, two in pairs):
            continue
        if not (suspects := _suspects(some, coupling, gone, images)):
            raise NetworkError("in this trunk a channel whose group is zero is still felt by others")
        found |= suspects
    return found


def _suspects(trunk: nn.Module, coupling: Coupling, gone: Tensor, images: Tensor) -> set[str]:
    """The streams of groups that are zero, of which a weight reads something else."""
    values = trace(trunk, images).values
    loud = set()
    for name, index in coupling.inputs.items():
        read = torch.from_numpy(values.get(name, np.full(len(index), np.nan)) != 0)
        loud |= set(index[gone[index] & read].tolist())
    ends = np.cumsum(coupling.counts)
    return {coupling.streams[int(np.searchsorted(ends, group, "right"))] for group in loud}
