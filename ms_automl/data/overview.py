"""What a data set holds, in words and as an image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ms_automl.data.contract import MultiTaskData
from ms_automl.data.splits import Batch
from ms_automl.errors import DataError
from ms_automl.tasks import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SAMPLES = 10  # columns of the contact sheet
_CHUNK = 64  # samples looked at at a time: all of them may not fit the memory


class _Labels:
    """Counts of a task's labels, batch by batch."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.valid = self.all = 0
        self.sum, self.low, self.high = 0.0, float("inf"), float("-inf")
        self.classes = torch.zeros(task.classes or 0, dtype=torch.int64)

    def add(self, batch: Batch) -> None:
        target, valid = batch.targets[self.task.name], batch.valid[self.task.name]
        kept = (target.movedim(1, -1) if target.ndim > valid.ndim else target)[valid]
        self.valid += int(valid.sum())
        self.all += valid.numel()
        if self.task.classes is not None:
            self.classes += torch.bincount(kept, minlength=len(self.classes))
        elif kept.numel():
            self.sum += float(kept.double().mean()) * int(valid.sum())
            self.low, self.high = min(self.low, float(kept.min())), max(self.high, float(kept.max()))

    def __str__(self) -> str:
        if not self.valid:
            return "no valid label"
        share = f"{100 * self.valid / self.all:.1f} % valid"
        mean = self.sum / self.valid
        if self.task.classes is not None:
            shares = (f"{100 * int(count) / self.valid:.1f}" for count in self.classes)
            return f"{share}: classes {' '.join(shares)} %"
        if self.task.kind == "binary":
            return f"{share}: {100 * mean:.1f} % yes"
        return f"{share}: mean {mean:.2f}, from {self.low:.2f} to {self.high:.2f}"


def describe(data: MultiTaskData) -> Iterator[str]:
    """Lines about a dataset: its splits, and each task's labels over the training split."""
    yield f"{data.name}: images {'x'.join(map(str, data.image_shape))}"
    yield ", ".join(f"{name} {len(split)}" for name, split in data.splits.items())
    tasks = [(_Labels(task), use) for task, use in _tasks(data)]
    moments = torch.zeros(3, dtype=torch.float64)
    for chunk in torch.split(torch.arange(len(data.train)), _CHUNK):
        batch = data.train.batch(chunk)
        images = batch.images.double()
        moments += torch.stack([images.sum(), images.square().sum(), torch.tensor(float(images.numel()))])
        for labels, _ in tasks:
            labels.add(batch)
    mean = moments[0] / moments[2]
    yield f"image mean {mean:.3f}, deviation {(moments[1] / moments[2] - mean**2).sqrt():.3f}"
    for labels, use in tasks:
        yield f"{labels.task.name} ({use}), {labels}"


def _tasks(data: MultiTaskData) -> list[tuple[Task, str]]:
    return [(t, "trained") for t in data.tasks] + [(t, "held back") for t in data.unseen_tasks]


def contact_sheet(data: MultiTaskData, file: Path) -> None:
    """Draw the first training samples with every dense task's labels below; image-level ones are titles.

    Raises:
        DataError: where the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    batch = data.train.batch(torch.arange(min(_SAMPLES, len(data.train))))
    dense = [task for task, _ in _tasks(data) if task.head.dense]
    titles = [task for task, _ in _tasks(data) if not task.head.dense]
    columns, rows = len(batch.images), 1 + len(dense)
    width = 1.7 * columns
    tall = data.image_shape[1] / data.image_shape[2]
    figure = Figure(figsize=(width, (1.7 * tall + 0.1) * rows + 0.16 * (len(titles) + 1)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    low, high = batch.images.amin(), batch.images.amax()
    for column in range(columns):
        shown = ((batch.images[column] - low) / (high - low)).movedim(0, -1)
        if shown.shape[2] not in (1, 3):
            shown = shown.mean(2)  # no colours
        grid[0, column].imshow(shown.numpy(), cmap="gray")
        labels = [f"{task.name} {_shown(batch.targets[task.name][column])}" for task in titles]
        grid[0, column].set_title("\n".join(labels), fontsize=8)
        for axes, task in zip(grid[1:, column], dense, strict=True):
            _draw(axes, task, batch.targets[task.name][column], batch.valid[task.name][column])
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    for axes, name in zip(grid[:, 0], ["image", *(task.name for task in dense)], strict=True):
        axes.set_ylabel(name)
    try:
        figure.savefig(file, dpi=80)
    except (OSError, ValueError) as error:  # ValueError: an ending that names no image format
        raise DataError(f"cannot write the image {file}: {error}") from error


def _shown(target: Tensor) -> str:
    """The label of an image, or the first ones."""
    values = [f"{value:.3g}" for value in target.reshape(-1)[:4].tolist()]
    return " ".join(values) + (" …" if target.numel() > len(values) else "")


def _draw(axes: Axes, task: Task, target: Tensor, valid: Tensor) -> None:
    axes.set_facecolor("magenta")  # what is not valid
    if task.per_channel:  # all channels as one: maps of several points, say
        target = target.where(valid, -torch.inf).amax(0, keepdim=True)
        valid = valid.any(0)
    if task.kind == "classes":
        colours = "tab10" if task.head.channels <= 10 else "tab20" if task.head.channels <= 20 else "turbo"
        highest = {"tab10": 9, "tab20": 19}.get(colours, task.head.channels - 1)
        shown = target.where(valid, torch.nan).numpy()
        axes.imshow(shown, cmap=colours, vmin=0, vmax=highest, interpolation="nearest")
    elif len(target) == 3:
        colours_and_valid = torch.cat([(target.clamp(-1, 1) + 1) / 2, valid[None].float()])
        axes.imshow(colours_and_valid.movedim(0, -1).numpy(), interpolation="nearest")
    else:
        cmap = "gray" if task.kind == "binary" else "viridis"
        axes.imshow(target[0].where(valid, torch.nan).numpy(), cmap=cmap, interpolation="nearest")
