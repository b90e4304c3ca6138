"""Floating-point operations of a network, counted and not estimated."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from ms_automl.models.copying import copied
from ms_automl.models.leaves import leaves
from ms_automl.models.network import MultiTaskNet


def flops_of_a_sample(network: MultiTaskNet, image_shape: tuple[int, int, int]) -> tuple[float, float]:
    """(forward and backward, forward alone) for one sample, a multiplication and an addition counted as two.

    Convolutions, matrix products and what is made of them, as ``torch.utils.flop_counter`` counts them;
    normalisation, activations and losses are left out. The count follows from shapes, so nothing is computed,
    unless the network looks at values on its way.

    Args:
        network: it is copied.
        image_shape: (channels, H, W).
    """
    try:
        return _count(network, image_shape, "meta")
    except Exception:  # whatever a network does that tensors without values cannot
        return _count(network, image_shape, "cpu")


def _count(network: MultiTaskNet, image_shape: tuple[int, int, int], device: str) -> tuple[float, float]:
    network = copied(network).train().to(device)
    images = torch.zeros(2, *image_shape, device=device)  # batch norm has no statistics of a single image
    with FlopCounterMode(display=False) as counter:
        outputs = network(images)
    forward = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        learning = [leaf.sum() for leaf in leaves(outputs) if leaf.requires_grad]
        if learning:  # nothing does in a trunk that is frozen
            torch.autograd.backward(learning)
    return (forward + counter.get_total_flops()) / 2, forward / 2
