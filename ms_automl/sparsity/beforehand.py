"""Whether a network can be compacted, found out before it is trained."""

from __future__ import annotations

import time

import torch

from ms_automl.errors import MsAutomlError
from ms_automl.models import MultiTaskNet, contract
from ms_automl.sparsity.compact import prove, randomised
from ms_automl.sparsity.equality import probes, smaller
from ms_automl.sparsity.groupings import build_groups

PATTERNS = 3
SECONDS = 5.0
"""Beyond these no other pattern is begun."""


def why_not(network: MultiTaskNet, grouping: str, image_shape: tuple[int, int, int]) -> str:
    """Why the network could not be compacted when half of its groups are zero; '' where nothing stands in the way.

    Random halves of the groups of copies with random weights and statistics are zeroed, the copies compacted, and
    outputs compared on images of two scales.

    Args:
        network: it stays as it is.
        grouping: a key of ``GROUPINGS``; single weights leave nothing to compact.
        image_shape: (channels, H, W); smaller images serve, where the network takes them.
    """
    if grouping == "weight":
        return ""
    began = time.monotonic()
    try:
        noise, _, _, strong, _ = probes(smaller(network, image_shape))
        for seed in range(PATTERNS):
            half = randomised(network, seed, zeros=False).cpu().float()
            half.removable = half.removable or frozenset()
            groups = build_groups(half, grouping, image_shape)
            drawn = torch.rand(len(groups.layer), generator=torch.Generator().manual_seed(seed))
            groups.scale_((drawn < 0.5).float())
            prove(contract(half).eval(), [noise, strong[:1]])
            if time.monotonic() - began > SECONDS:
                break
    except Exception as error:  # whatever a stranger's network does
        line = (str(error).splitlines() or [""])[0]
        return line if isinstance(error, MsAutomlError) else f"{type(error).__name__}: {line}"
    return ""
