"""Whether a network can be compacted, and how much of it, found out before it is trained.

Random halves of the groups of copies with random weights and statistics are zeroed, and the copies compacted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType

import torch

from ms_automl.errors import first_line
from ms_automl.models import MultiTaskNet, contract
from ms_automl.sparsity.compact import compact, leftovers, randomised
from ms_automl.sparsity.equality import smaller
from ms_automl.sparsity.groupings import build_groups

PATTERNS = 3
SECONDS = 5.0
"""Beyond these no other pattern is begun."""


def why_not(network: MultiTaskNet, grouping: str, image_shape: tuple[int, int, int]) -> str:
    """Why the network could not be compacted when half of its groups are zero; '' where nothing stands in the way.

    Args:
        network: it stays as it is.
        grouping: a key of ``GROUPINGS``; single weights leave nothing to compact.
        image_shape: (channels, H, W).
    """
    if grouping == "weight":
        return ""
    began = time.monotonic()
    try:
        for seed in range(PATTERNS):
            freed(network, grouping, image_shape, seed=seed)
            if time.monotonic() - began > SECONDS:
                break
    except Exception as error:  # whatever a stranger's network does
        return first_line(error)
    return ""


def freed(
    network: MultiTaskNet,
    grouping: str,
    image_shape: tuple[int, int, int],
    kept: Mapping[str, str] = MappingProxyType({}),
    seed: int = 0,
) -> float:
    """The share of a trunk's parameters that λ acts on, times that of their zeros that can be taken out.

    Args:
        network: it stays as it is.
        grouping: a key of ``GROUPINGS``.
        image_shape: (channels, H, W); smaller images serve, where the network takes them.
        kept: as of :func:`~ms_automl.sparsity.groupings.build_groups`.
        seed: of the weights and of the groups.

    Raises:
        Exception: where it cannot be compacted, or whatever a stranger's network raises.
    """
    image_shape = smaller(network, image_shape)
    half = randomised(network, seed, zeros=False).cpu().float()
    half.removable = half.removable or frozenset()
    groups = build_groups(half, grouping, image_shape, kept)
    drawn = torch.rand(len(groups.layer), generator=torch.Generator().manual_seed(seed))
    groups.scale_(((drawn < 0.5) | groups.strongest(drawn)).float())
    half = contract(half).eval()
    found = leftovers(half, compact(half, image_shape)[1]).values()
    zeros, stayed = sum(one.zeros for one in found), sum(one.stayed for one in found)
    # Where half of the groups leave no zero, one of them may be all that there is: then none can go.
    return groups.share * (1 - stayed / zeros if zeros else groups.most)
