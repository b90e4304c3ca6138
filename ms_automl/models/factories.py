"""Networks by name or by ``pkg.module:function``: the presets' and the user's own, through one door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ms_automl.data.factories import called, resolve
from ms_automl.models import NETWORKS, MultiTaskNet
from ms_automl.tasks import HeadSpec


def build_network(
    name: str,
    args: Mapping[str, Any],
    *,
    image_shape: tuple[int, int, int],
    heads: Mapping[str, HeadSpec],
    seed: int | None = None,
) -> MultiTaskNet:
    """Call a network factory as ``factory(image_shape, heads, **args)``, with torch seeded by ``seed``."""
    factory = resolve("network", name, NETWORKS)
    if seed is not None:
        torch.manual_seed(seed)
    network: MultiTaskNet = called("network", name, factory, (image_shape, heads), args)
    return network
