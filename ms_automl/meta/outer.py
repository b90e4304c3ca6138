"""The outer batch: whose loss, over which tasks, and with what scale the λ gradient is taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ms_automl.data import Batch
from ms_automl.meta.objective import REFERENCE_FLOOR
from ms_automl.models import MultiTaskNet
from ms_automl.tasks import Task


def episode(tasks: int, generator: torch.Generator) -> list[int]:
    """A uniformly drawn non-empty subset of the tasks, by index (episodes of arXiv 2501.12115)."""
    code = int(torch.randint(1, 2**tasks, (1,), generator=generator))
    return [index for index in range(tasks) if code >> index & 1]


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


def outer_gradient(
    network: MultiTaskNet,
    parameters: Sequence[Tensor],
    batch: Batch,
    tasks: Sequence[Task],
    references: Mapping[str, float],
) -> list[Tensor]:
    """Gradient of (1/|S|) Σ_{t in S} L_t^val / L_t^ref in the parameters given.

    The mean over a uniformly drawn subset S is, on average, the mean over all tasks. Leaves ``grad`` fields
    and batch-norm buffers as they are.

    Args:
        network: in training mode.
        parameters: what the gradient is taken in: the penalised weights, or all that trains.
        batch: an outer batch.
        tasks: S.
        references: L_t^ref by task.
    """
    with frozen_buffers(network):
        outputs = network(batch.images)
    terms = [
        task.loss(outputs[task.name], batch.targets[task.name], batch.valid[task.name])
        / max(references[task.name], REFERENCE_FLOOR)
        for task in tasks
    ]
    total = torch.stack(terms).mean()
    # A head may read an early feature: layers that S does not use have a gradient of 0.
    return list(torch.autograd.grad(total, list(parameters), allow_unused=True, materialize_grads=True))
