"""Whether two networks compute the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ms_automl.errors import NetworkError
from ms_automl.models import MultiTaskNet, contract
from ms_automl.sparsity.tracer import leaves

TOLERANCE = 1e-5
"""Largest difference of an output to the masked network's, relative to the largest value of that output."""

FAINT = 1e-3
"""Where an output's largest value is below this share of that on other images, it is compared with the share."""

SCALES = ((0.1, 0.0), (1.0, 3.0), (10.0, 0.0), (60.0, -20.0))
"""(contrast, mean) of the random images, besides (1, 0)."""


SIDES = (64, 128)
"""Sides, in pixels, of images that are tried instead of larger ones."""


def probes(image_shape: tuple[int, int, int], images: Tensor | None = None) -> list[Tensor]:
    """Two random images, and single ones of other contrasts and means; so of the first of those given.

    Args:
        image_shape: (channels, H, W).
        images: [B, channels, H, W] real ones.
    """
    noise = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
    found = [noise, *(noise[:1] * contrast + mean for contrast, mean in SCALES)]
    if images is not None:
        found += [images[:1].float() * contrast + mean for contrast, mean in SCALES[::2]]
    return found


def smaller(network: MultiTaskNet, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """The smallest shape of images that the network takes and that is worth trying."""
    channels, height, width = image_shape
    twin = contract(network).cpu().eval()
    for side in SIDES:
        shape = (channels, min(height, side), min(width, side))
        try:
            with torch.no_grad():
                twin(torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)))
        except Exception:  # sizes that are written in the code
            continue
        return shape
    return image_shape


@torch.no_grad()
def check_equal(masked: nn.Module, result: nn.Module, images: Tensor | Sequence[Tensor]) -> float:
    """The largest relative difference between the outputs of two networks in evaluation mode.

    Args:
        masked: what is right.
        result: what is compared with it.
        images: [B, channels, H, W], or several of them.

    Raises:
        NetworkError: where it is above `TOLERANCE`, where one is finite and the other is not, or where none is.
    """
    batches = [images] if isinstance(images, Tensor) else images
    pairs = [_outputs(masked(batch), result(batch)) for batch in batches]
    largest = {name: max(_size(pair[name][0]) for pair in pairs) for name in pairs[0]}
    for name in largest:
        if not any(bool(pair[name][0].isfinite().any()) for pair in pairs):
            raise NetworkError(
                f"the output '{name}' is NaN or infinite on every image: there is nothing to compare"
            )
    worst = 0.0
    for pair in pairs:
        for name, (expected, found) in pair.items():
            off = _difference(expected, found, FAINT * largest[name])
            if not off <= TOLERANCE:
                raise NetworkError(
                    f"compaction changed the output '{name}' by {off:.1e} of its largest value: the network does "
                    "something to its channels that the trace does not show"
                )
            worst = max(worst, off)
    return worst


def _outputs(expected: object, found: object) -> dict[str, tuple[Tensor, Tensor]]:
    """By name, the tensors of two results, which may be nested."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping) and expected.keys() == found.keys():
        parts = {str(key): (leaves(expected[key]), leaves(found[key])) for key in expected}
    else:
        parts = {"output": (leaves(expected), leaves(found))}
    pairs = {}
    for name, (one, other) in parts.items():
        if [tensor.shape for tensor in one] != [tensor.shape for tensor in other]:
            raise NetworkError(f"compaction changed the shape of the output '{name}'")
        for index, pair in enumerate(zip(one, other, strict=True)):
            pairs[name if len(one) == 1 else f"{name}.{index}"] = pair
    return pairs


def _size(value: Tensor) -> float:
    finite = value[value.isfinite()]
    return float(finite.abs().max()) if len(finite) else 0.0


def _difference(expected: Tensor, found: Tensor, least: float) -> float:
    """The largest difference, relative to the largest value, which counts as no less than `least`."""
    known = expected.isfinite()
    if not torch.equal(known, found.isfinite()):
        return float("inf")
    if not bool(known.any()):
        return 0.0
    expected, found = expected[known].double(), found[known].double()
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=max(least, 1e-6)))
