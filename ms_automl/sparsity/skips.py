"""Layers that the signal has a way around: they may lose every group."""

from __future__ import annotations

import torch
from torch import Tensor

from ms_automl.models import MultiTaskNet
from ms_automl.models.leaves import leaves
from ms_automl.sparsity.compact import randomised
from ms_automl.sparsity.equality import smaller
from ms_automl.sparsity.groups import Groups

SILENT = 1e-6
"""How little outputs of different images may differ, relative to their size, before they count as the same."""


@torch.no_grad()
def with_a_way_around(network: MultiTaskNet, groups: Groups, image_shape: tuple[int, int, int]) -> list[bool]:
    """By layer of the groups, whether all of it may go; of all that may, all at once.

    Layer after layer is zeroed in a copy of the trunk with random weights. One after which some output is the same
    for every image is put back. Of a trunk that does not run none may go: ``check_network`` refuses it.

    Args:
        network: it stays as it is.
        groups: of it.
        image_shape: (channels, H, W); smaller images serve, where the network takes them.
    """
    names = {id(value): name for name, value in network.named_parameters()}
    shape = smaller(network, image_shape)
    twin = randomised(network, zeros=False).cpu().float()
    parameters = dict(twin.named_parameters())
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    try:
        found = [_passes(twin, images)]
    except Exception:  # whatever a stranger's network does
        found = [False]
    if not found.pop():
        return [False] * len(groups.names)
    for layer in range(len(groups.names)):
        alive = (groups.layer != layer).to(groups.size.dtype)
        masks = {names[id(value)]: mask for value, mask in groups.masks(alive) if bool((mask == 0).any())}
        before = {name: parameters[name].clone() for name in masks}
        for name, mask in masks.items():
            parameters[name].mul_(mask.cpu())
        found.append(_passes(twin, images))
        if not found[-1]:
            for name, value in before.items():
                parameters[name].copy_(value)
    return found


def _passes(network: MultiTaskNet, images: Tensor) -> bool:
    """Whether every output of the trunk tells two images apart; NaN does not."""
    for output in leaves(network.trunk(images)):
        largest = float(output.abs().max())
        if not float((output[0] - output[1]).abs().max()) > SILENT * largest:
            return False
    return True
