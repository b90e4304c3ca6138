"""Batch norm by the statistics of the batch, without a trace of the batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen_buffers(network: nn.Module) -> Iterator[None]:
    """Batch norm normalises by the batch, as in training, but its running averages stay as they are."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    flags = [module.track_running_stats for module in norms]
    buffers = [(module.running_mean, module.running_var) for module in norms]
    for module in norms:
        module.track_running_stats = False
        module.running_mean = module.running_var = None
    try:
        yield
    finally:
        for module, flag, (mean, var) in zip(norms, flags, buffers, strict=True):
            module.track_running_stats = flag
            module.running_mean, module.running_var = mean, var
