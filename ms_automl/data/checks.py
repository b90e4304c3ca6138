"""What every sample must be: images and labels of the shapes, types and values that the tasks state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ms_automl.data.contract import MultiTaskData
from ms_automl.data.splits import Batch
from ms_automl.data.streaming import fetched
from ms_automl.errors import DataError
from ms_automl.tasks import Task
from ms_automl.tasks.labels import cleared

_SHOWN = 6  # values that are named


def check_data(data: MultiTaskData) -> None:
    """Check data by the first two samples of each split, which takes no time; ``inspect`` looks at all of them.

    Raises:
        DataError: naming the split, the task, what was found and what was expected.
    """
    if not isinstance(data, MultiTaskData):
        raise DataError(f"the data factory must return a MultiTaskData, but returned {type(data).__name__}")
    for name, group in (("tasks", data.tasks), ("unseen_tasks", data.unseen_tasks)):
        if not isinstance(group, Sequence) or not all(isinstance(task, Task) for task in group):
            raise DataError(f"`{name}` must be a list of Task, but is a {type(group).__name__}")
    if not data.tasks:
        raise DataError("`tasks` is empty: give at least one task to train")
    tasks = (*data.tasks, *data.unseen_tasks)
    names = [task.name for task in tasks]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"task names must differ, but {', '.join(repeated)} stands more than once")
    shape: tuple[int, ...] | None = None
    for name, split in data.splits.items():
        if len(split) == 0:
            raise DataError(f"split '{name}' is empty: give it at least one sample")
        samples = range(min(2, len(split)))
        shape = check_batch(name, fetched(split, name, samples), tasks, samples, shape)


def check_batch(
    split: str, batch: Batch, tasks: Sequence[Task], samples: range, shape: tuple[int, ...] | None
) -> tuple[int, ...]:
    """Check some samples of a split.

    Args:
        split: its name.
        batch: the samples.
        tasks: whose labels are checked.
        samples: the numbers that were asked for.
        shape: (channels, H, W) of the training split's images; None for whatever these are.

    Returns:
        (channels, H, W).

    Raises:
        DataError: naming the split, the task, the first sample that is wrong, and what it holds.
    """
    shape = _check_images(split, batch.images, samples, shape)
    for task in tasks:
        _check_task(split, task, batch, samples.start)
    return shape


def _check_images(split: str, images: Tensor, samples: range, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    where = f"{split}{_from(samples.start)}"
    if not isinstance(images, Tensor):
        raise DataError(f"{where}: images are a {type(images).__name__}, expected a tensor")
    if images.ndim != 4:
        raise DataError(f"{where}: images must be [N, channels, H, W], but have shape {tuple(images.shape)}")
    if not all(images.shape[1:]):
        raise DataError(f"{where}: images have shape {tuple(images.shape[1:])}, in which there is no pixel")
    if len(images) != len(samples):
        raise DataError(f"{where}: {len(images)} images came where {len(samples)} were asked for")
    if images.dtype != torch.float32:
        raise DataError(f"{where}: images must be float32, but are {images.dtype}")
    if shape is not None and images.shape[1:] != shape:
        raise DataError(f"{where}: images have shape {tuple(images.shape[1:])}, those of train have {shape}")
    finite = torch.isfinite(images)
    if not finite.all():
        first = _first(samples.start, ~finite, images)
        raise DataError(f"{split}: images hold NaN or infinite values, {first}: replace them before training")
    return tuple(images.shape[1:])


def _check_task(split: str, task: Task, batch: Batch, start: int) -> None:
    where = f"{split}, task '{task.name}'"
    count, _, height, width = batch.images.shape
    target, valid = _labels(f"{where}{_from(start)}", task, batch, (count, height, width))
    labels = cleared(target, valid)
    if task.classes is not None:
        _check_classes(where, task.classes, labels, start)
        return
    finite = torch.isfinite(labels)
    if not finite.all():
        first = _first(start, ~finite, labels)
        raise DataError(f"{where}: valid targets hold NaN or infinite values, {first}: mark them as not valid")
    if task.kind == "binary":
        outside = (labels < 0) | (labels > 1)
        if outside.any():
            raise DataError(
                f"{where}: the values {_values(target, valid)} were found, {_first(start, outside, labels)}; yes "
                "is 1 and no is 0, or a probability between: convert them, or mark them as not valid"
            )


def _labels(where: str, task: Task, batch: Batch, sizes: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Target and validity of a task, of the shapes and types that they must have."""
    if task.name not in batch.targets:
        raise DataError(f"{where}: no target of that name; the split has {', '.join(batch.targets) or 'none'}")
    target, valid = batch.targets[task.name], batch.valid.get(task.name)
    if valid is None:
        raise DataError(f"{where}: the split gives no validity mask; give a bool tensor, all True if all count")
    for what, given in (("target", target), ("valid", valid)):
        if not isinstance(given, Tensor):
            raise DataError(f"{where}: {what} is a {type(given).__name__}, expected a tensor")
    expected = task.target_shape(*sizes)
    if tuple(target.shape) != expected:
        raise DataError(f"{where}: target has shape {tuple(target.shape)}, expected {expected}")
    expected = task.valid_shape(*sizes)
    if tuple(valid.shape) != expected or valid.dtype != torch.bool:
        raise DataError(
            f"{where}: valid is {valid.dtype} of shape {tuple(valid.shape)}, expected torch.bool of {expected}"
        )
    if task.classes is not None and target.dtype != torch.int64:
        raise DataError(f"{where}: target is {target.dtype}, expected torch.int64 class numbers")
    if task.classes is None and not target.is_floating_point():
        raise DataError(f"{where}: target is {target.dtype}, expected a floating-point type")
    return target, valid


def _check_classes(where: str, classes: int, labels: Tensor, start: int) -> None:
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        found = labels[outside]
        raise DataError(
            f"{where}: class numbers {int(found.min())} to {int(found.max())} found, expected 0 to "
            f"{classes - 1}, {_first(start, outside, labels)}: mark the others as not valid (-1 in a torch "
            "Dataset)"
        )


def _from(start: int) -> str:
    return f", from sample {start} on" if start else ""


def _first(start: int, wrong: Tensor, values: Tensor) -> str:
    """The first sample of a batch [B, ...] that is wrong somewhere, and what it holds there."""
    index = int(wrong.reshape(len(wrong), -1).any(1).nonzero()[0])
    return f"first in sample {start + index} ({values[index][wrong[index]][0].item():g})"


def _values(target: Tensor, valid: Tensor) -> str:
    """Different values of the labels that count."""
    kept = sorted(set((target.movedim(1, -1) if target.ndim > valid.ndim else target)[valid].reshape(-1).tolist()))
    shown = [f"{value:g}" for value in (kept if len(kept) <= _SHOWN else [*kept[: _SHOWN - 1], kept[-1]])]
    return ", ".join(shown) if len(kept) <= _SHOWN else f"{', '.join(shown[:-1])}, …, {shown[-1]}"
