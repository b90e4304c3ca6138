"""``python -m ms_automl.data info NAME [--png FILE]``: what a dataset holds, in words and as a picture."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ms_automl.data import DATASETS, MultiTaskData, check_data
from ms_automl.errors import DataError, MsAutomlError, unknown_name
from ms_automl.tasks import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SAMPLES = 10  # columns of the contact sheet


def describe(data: MultiTaskData) -> Iterator[str]:
    """Lines about a dataset: its splits, and each task's labels over the training split."""
    yield f"{data.name}: images {'x'.join(map(str, data.image_shape))}"
    yield ", ".join(f"{name} {len(split)}" for name, split in data.splits.items())
    batch = data.train.batch(torch.arange(len(data.train)))
    yield f"image mean {batch.images.mean():.3f}, deviation {batch.images.std():.3f}"
    for task, use in _tasks(data):
        valid = batch.valid[task.name]
        share = f"{100 * valid.float().mean():.1f} % valid"
        yield f"{task.name} ({use}), {share}: {_labels(task, batch.targets[task.name], valid)}"


def _tasks(data: MultiTaskData) -> list[tuple[Task, str]]:
    return [(t, "trained") for t in data.tasks] + [(t, "held back") for t in data.unseen_tasks]


def _labels(task: Task, target: Tensor, valid: Tensor) -> str:
    if target.ndim > valid.ndim:
        target = target.movedim(1, -1)
    kept = target[valid]
    if task.kind == "classes":
        shares = torch.bincount(kept, minlength=task.head.channels) / max(1, kept.numel())
        return "classes " + " ".join(f"{100 * share:.1f}" for share in shares.tolist()) + " %"
    if task.kind == "binary":
        return f"{100 * kept.mean():.1f} % yes"
    return f"mean {kept.mean():.2f}, from {kept.min():.2f} to {kept.max():.2f}"


def contact_sheet(data: MultiTaskData, file: Path) -> None:
    """Draw the first training samples with every dense task's labels below; image-level ones are titles."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    batch = data.train.batch(torch.arange(min(_SAMPLES, len(data.train))))
    dense = [task for task, _ in _tasks(data) if task.head.dense]
    titles = [task for task, _ in _tasks(data) if not task.head.dense]
    columns, rows = len(batch.images), 1 + len(dense)
    figure = Figure(figsize=(1.7 * columns, 1.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    low, high = batch.images.amin(), batch.images.amax()
    for column in range(columns):
        picture = ((batch.images[column] - low) / (high - low)).movedim(0, -1)
        grid[0, column].imshow(picture.numpy(), cmap="gray")
        labels = [f"{task.name} {batch.targets[task.name][column]:g}" for task in titles]
        grid[0, column].set_title("\n".join(labels), fontsize=8)
        for axes, task in zip(grid[1:, column], dense, strict=True):
            _draw(axes, task, batch.targets[task.name][column], batch.valid[task.name][column])
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    for axes, name in zip(grid[:, 0], ["image", *(task.name for task in dense)], strict=True):
        axes.set_ylabel(name)
    try:
        figure.savefig(file, dpi=80)
    except (OSError, ValueError) as error:  # ValueError: an ending that names no picture format
        raise DataError(f"cannot write the picture {file}: {error}") from error


def _draw(axes: Axes, task: Task, target: Tensor, valid: Tensor) -> None:
    axes.set_facecolor("magenta")  # what is not valid
    if task.kind == "classes":
        shown = target.where(valid, torch.nan).numpy()
        axes.imshow(shown, cmap="tab10", vmin=0, vmax=9, interpolation="nearest")
    elif len(target) == 3:
        colours = torch.cat([(target.clamp(-1, 1) + 1) / 2, valid[None].float()])
        axes.imshow(colours.movedim(0, -1).numpy(), interpolation="nearest")
    else:
        cmap = "gray" if task.kind == "binary" else "viridis"
        axes.imshow(target[0].where(valid, torch.nan).numpy(), cmap=cmap, interpolation="nearest")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, or 2 after one line on stderr about what is wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m ms_automl.data", description=__doc__)
    info = parser.add_subparsers(dest="command", required=True).add_parser("info", help="describe a dataset")
    info.add_argument("name", help=f"one of {', '.join(DATASETS)}")
    info.add_argument("--seed", type=int, default=0)
    info.add_argument("--data-dir", type=Path, help="where the data lies or is kept")
    info.add_argument("--png", type=Path, help="draw a contact sheet into this file")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.name not in DATASETS:
            raise unknown_name("dataset", chosen.name, list(DATASETS))
        data = DATASETS[chosen.name](chosen.seed, chosen.data_dir)
        check_data(data)
        print("\n".join(describe(data)))
        if chosen.png:
            contact_sheet(data, chosen.png)
    except MsAutomlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
