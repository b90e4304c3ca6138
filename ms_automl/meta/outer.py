"""The outer batch: whose loss, over which tasks, and with what scale the λ gradient is taken."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ms_automl.data import Batch
from ms_automl.meta.reference import Reference
from ms_automl.models import MultiTaskNet, frozen_buffers
from ms_automl.tasks import Task


def episode(tasks: int, generator: torch.Generator) -> list[int]:
    """A uniformly drawn non-empty subset of the tasks, by index (episodes of arXiv 2501.12115)."""
    code = int(torch.randint(1, 2**tasks, (1,), generator=generator))
    return [index for index in range(tasks) if code >> index & 1]


def outer_gradient(
    network: MultiTaskNet,
    parameters: Sequence[Tensor],
    batch: Batch,
    tasks: Sequence[Task],
    reference: Reference,
    parts: Sequence[Batch] = (),
) -> list[Tensor]:
    """Gradient of the relative loss (1/|S|) Σ_{t in S} R_t, such as L_t^val / L_t^ref, in the parameters given.

    The mean over a uniformly drawn subset S is, on average, the mean over all tasks. Leaves ``grad`` fields
    and batch-norm buffers as they are.

    Args:
        network: in training mode.
        parameters: what the gradient is taken in: the penalised weights, or all that trains.
        batch: an outer batch.
        tasks: S.
        reference: the dense one, on the validation split.
        parts: of the batch, whose gradients are added up one by one, L_t^val of a part times its share of the
            batch's valid labels; none is the whole batch at once. Batch norm sees a part at a time.
    """
    sums: list[Tensor] | None = None
    for part in parts or (batch,):
        with frozen_buffers(network):
            outputs = network(part.images)
        terms = []
        for task in tasks:
            loss = task.loss(outputs[task.name], part.targets[task.name], part.valid[task.name])
            share = part.label_share(batch, task.name) if len(parts) > 1 else 1.0
            terms.append(reference.term(task.name, share * loss))
        total = torch.stack(terms).mean()
        # A head may read an early feature: layers that S does not use have a gradient of 0.
        found = torch.autograd.grad(total, list(parameters), allow_unused=True, materialize_grads=True)
        sums = list(found) if sums is None else [one + other for one, other in zip(sums, found, strict=True)]
    assert sums is not None
    return sums
