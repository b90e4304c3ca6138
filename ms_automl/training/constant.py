"""The best constant prediction of each task: what a network that has learned nothing from the images reaches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ms_automl.data import Batch, MultiTaskData, Split
from ms_automl.tasks import Task
from ms_automl.tasks.labels import cleared
from ms_automl.training.evaluation import evaluate, task_losses

LABELS = 2**22
"""Labels of a task that its constant is fitted to, at the most."""
CHUNK = 2**17
"""Labels of a task that are looked at at a time: with a logit for each class they take some memory."""


NEGLIGIBLE = 0.01
"""Of the constant prediction's loss: what a perfect prediction's may be where it counts as 0."""
SURE = 30.0
"""A logit: its probability differs from 1 by 1e-13."""


class Constant(nn.Module):
    """Predicts the same whatever the image shows.

    Args:
        values: by task name, [C] what each output channel says.
        tasks: their heads.
    """

    def __init__(self, values: Mapping[str, Tensor], tasks: Sequence[Task]) -> None:
        super().__init__()
        self.values = dict(values)
        self.heads = {task.name: task.head for task in tasks}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """[B, channels, H, W] to [B, C, H, W] for dense tasks and [B, C] for the others, by name."""
        batch, _, height, width = images.shape
        return {name: self._spread(name, batch, height, width) for name in self.values}

    def _spread(self, name: str, batch: int, height: int, width: int) -> Tensor:
        shape = self.heads[name].shape(batch, height, width)
        view = self.values[name].view(1, -1, *[1] * (len(shape) - 2))
        return view.expand(shape).clone()  # a stranger's loss may work in place


def constant_losses(
    data: MultiTaskData, batch_size: int, splits: Sequence[str] = ("val", "test")
) -> dict[str, float]:
    """Losses of the best constant predictions, fitted to the training split.

    Args:
        data: the trained tasks' labels are read, once for each split.
        batch_size: of the evaluation; changes no result of a loss that is a mean over labels.
        splits: on which they are measured.

    Returns:
        ``<split>/<task>/constant``, as ``evaluate`` measures ``<split>/<task>/loss``.
    """
    batches = _sample(data.train, data.tasks)
    values = {task.name: best_constant(task, batches) for task in data.tasks}
    constant = Constant(values, data.tasks)
    found: dict[str, float] = {}
    for name in splits:
        metrics = evaluate(constant, data.splits[name], data.tasks, batch_size)
        found |= {f"{name}/{task.name}/constant": metrics[f"{task.name}/loss"] for task in data.tasks}
    return found


@dataclass(frozen=True)
class Extremes:
    """What a task's loss is at its ends, on the training split.

    Attributes:
        perfect: of a prediction that is the target.
        constant: of the best constant prediction that has a closed form: no less than that of the best of all.
    """

    perfect: float
    constant: float

    @property
    def has_zero(self) -> bool:
        """Whether a ratio of two losses means something: the perfect prediction's is 0, the constant one's above.

        So it is for cross-entropy, errors and distances; not for likelihoods of values or smoothed labels, which
        end at something else, below 0 perhaps, that moves with the unit of the target.
        """
        return self.constant > 0 and abs(self.perfect) <= NEGLIGIBLE * self.constant


def extremes(data: MultiTaskData) -> dict[str, Extremes]:
    """What the losses of the trained tasks are at their ends, by task, on a sample of the training split."""
    batches = _sample(data.train, data.tasks)
    found = {}
    for task in data.tasks:
        constant = _loss(task, _always(task, _closed_form(task, batches)), batches)
        perfect = _loss(task, partial(_perfect, task), batches)
        found[task.name] = Extremes(float(perfect), float(constant))
    return found


def best_constant(task: Task, batches: Sequence[Batch]) -> Tensor:
    """[C] the constant prediction of least loss, argmin_c Σ_b n_b L(c; b) / Σ_b n_b with n_b valid labels.

    It begins at a closed form, which is exact for cross-entropy, squared and absolute error and one minus cosine,
    and goes on by L-BFGS, which changes nothing there and serves losses of the user's own.

    Args:
        task: whose loss.
        batches: of the training split.
    """
    best = _closed_form(task, batches)
    values = best.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([values], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = _loss(task, _always(task, values), batches)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        else:  # no valid label, or a loss that does not look at the prediction
            values.grad = torch.zeros_like(values)
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    found = values.detach()
    return min((best, found), key=partial(_constant_loss, task, batches))


def _closed_form(task: Task, batches: Sequence[Batch]) -> Tensor:
    """[C] the best of: 0, log frequencies of classes, the logit of a share, the mean and the median of values."""
    return min(_candidates(task, batches), key=partial(_constant_loss, task, batches))


def _constant_loss(task: Task, batches: Sequence[Batch], values: Tensor) -> float:
    return float(_loss(task, _always(task, values), batches))


def _loss(task: Task, predict: Callable[[Batch], Tensor], batches: Sequence[Batch]) -> Tensor:
    """Σ_b n_b L_b / Σ_b n_b over the valid labels of some batches."""
    total, count = torch.zeros((), device=batches[0].images.device), 0.0
    for batch in batches:
        labels = float(batch.valid[task.name].sum())
        total = total + labels * task_losses([task], {task.name: predict(batch)}, batch)[task.name]
        count += labels
    return total / max(count, 1.0)


def _always(task: Task, values: Tensor) -> Callable[[Batch], Tensor]:
    constant = Constant({task.name: values}, [task])

    def predict(batch: Batch) -> Tensor:
        outputs: dict[str, Tensor] = constant(batch.images)
        return outputs[task.name]

    return predict


def _perfect(task: Task, batch: Batch) -> Tensor:
    """The prediction that is the target: [B, C, H, W] or [B, C]; logits that are sure of it."""
    target = cleared(batch.targets[task.name], batch.valid[task.name])
    shape = task.head.shape(len(batch.images), *batch.images.shape[2:])
    if task.kind == "classes":
        return torch.zeros(shape, device=target.device).scatter_(1, target.unsqueeze(1), SURE)
    if task.kind == "ordinal":
        return SURE * (2 * _above(task, target) - 1)
    if task.kind == "binary":
        return SURE * (2 * target.reshape(shape).float() - 1)
    return target.reshape(shape)


def _candidates(task: Task, batches: Sequence[Batch]) -> list[Tensor]:
    channels, device = task.head.channels, batches[0].images.device
    zeros = torch.zeros(channels, device=device)
    kept = [_valid(task, batch) for batch in batches]
    labels = torch.cat(kept)
    if not len(labels):
        return [zeros]
    if task.kind == "classes":
        counts = torch.bincount(labels, minlength=channels)[:channels].float()
        return [zeros, counts.clamp(min=0.5).log()]
    if task.kind == "ordinal":
        return [zeros, _logit(_above(task, labels).mean(0))]
    if task.per_channel:
        return [zeros, *_by_channel(task, batches)]
    if task.kind == "binary":
        return [zeros, _logit(labels.float().mean()).expand(channels).clone()]
    mean, median = labels.mean(0).float(), labels.median(0).values.float()
    fits = [value for value in (mean, median) if value.shape == zeros.shape]
    return [zeros, *fits]


def _by_channel(task: Task, batches: Sequence[Batch]) -> list[Tensor]:
    """Fits [C] where labels count channel by channel."""
    targets = torch.cat([batch.targets[task.name].movedim(1, -1).flatten(0, -2) for batch in batches])  # [N, C]
    valid = torch.cat([batch.valid[task.name].movedim(1, -1).flatten(0, -2) for batch in batches])
    kept = [column[known] for column, known in zip(targets.T, valid.T, strict=True)]
    kept = [column if len(column) else torch.zeros(1, device=column.device) for column in kept]
    mean = torch.stack([column.float().mean() for column in kept])
    if task.kind == "binary":
        return [_logit(mean)]
    return [mean, torch.stack([column.float().median() for column in kept])]


def _above(task: Task, levels: Tensor) -> Tensor:
    """[N, C] whether each of the levels [N] is above 0, …, C - 1."""
    return (levels[:, None] > torch.arange(task.head.channels, device=levels.device)).float()


def _logit(share: Tensor) -> Tensor:
    return torch.logit(share.clamp(1e-6, 1 - 1e-6))


def _valid(task: Task, batch: Batch) -> Tensor:
    """Valid labels of a batch: [N] classes or answers, [N, channels] values."""
    target, valid = batch.targets[task.name], batch.valid[task.name]
    if target.ndim > valid.ndim:
        target = target.movedim(1, -1)
    elif target.ndim == valid.ndim and task.kind == "binary":
        target = target.reshape(valid.shape)
    return target[valid]


def _sample(split: Split, tasks: Sequence[Task]) -> list[Batch]:
    """Batches of evenly spread samples with at most :data:`LABELS` labels of a task, and at least one sample."""
    first = split.batch(torch.zeros(1, dtype=torch.int64))
    most = max(int(first.valid[task.name].numel()) for task in tasks)
    count = min(len(split), max(1, LABELS // most))
    indices = torch.linspace(0, len(split) - 1, count).round().long()
    return [split.batch(part) for part in torch.split(indices, max(1, min(count, CHUNK // most)))]
