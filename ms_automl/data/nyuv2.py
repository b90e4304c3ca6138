"""NYU Depth v2 (Silberman et al. 2012): 1,449 real images of rooms; classes, depth, surface normals, edges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ms_automl.data.augmentation import Augmentation, View
from ms_automl.data.contract import MultiTaskData, check_arguments
from ms_automl.data.images import empty_images, normalise
from ms_automl.data.nyuv2_layouts import IGNORED, LAYOUTS
from ms_automl.data.prepare import Source, opened
from ms_automl.data.prepared import Prepared, PreparedSplit
from ms_automl.data.splits import Batch
from ms_automl.errors import ConfigError, DataError, unknown_name
from ms_automl.tasks import Task, depth, edges, normals, segmentation

NAME = "nyuv2"
TASKS: Mapping[str, Callable[[int], Task]] = {
    "segmentation": lambda classes: segmentation("segmentation", classes),
    "depth": lambda classes: depth(),
    "normals": lambda classes: normals(full=True),
    "edges": lambda classes: edges(),
}


def source(folder: Path, asked: Mapping[str, Any]) -> Source:
    """The published form of NYU-v2 that a folder holds.

    Args:
        folder: with one of the forms of :mod:`~ms_automl.data.nyuv2_layouts`.
        asked: ``classes`` (13 or 40; None is what the form has, 13 where it has both), ``height``, ``width``.

    Raises:
        ConfigError: for an argument outside its range.
        DataError: where there is none of them, or what describes it is missing.
    """
    check_sizes(asked)
    for layout in LAYOUTS:
        if layout.found_in(folder):
            defaults = {"classes": layout.classes_by_default, "height": 288, "width": 384}
            wanted = defaults | {key: value for key, value in asked.items() if value is not None}
            return layout(folder, **wanted)
    raise DataError(
        f"{folder} holds no form of NYU-v2 known here: nyu_depth_v2_labeled.mat with splits.mat and class maps, "
        "train/ and val/ with image, label, depth, normal as .npy (MTAN, LibMTL), or gt_sets/ with images, "
        "segmentation, depth, normals, edge (NYUD_MT)"
    )


def check_sizes(asked: Mapping[str, Any]) -> None:
    """Check what a preparation is asked for; None is the default.

    Raises:
        ConfigError: with the condition and the value.
    """
    if asked.get("classes") not in (None, 13, 40):
        raise ConfigError(f"`classes` must be 13 or 40, but got classes={asked['classes']}")
    for name in ("height", "width"):
        if (side := asked.get(name)) is not None and (side < 16 or side % 8):
            raise ConfigError(f"`{name}` must be a multiple of 8 from 16 on, but got {name}={side}")


def nyuv2(
    seed: int,
    data_dir: Path | None = None,
    *,
    train: int | None = None,
    val: int | None = None,
    test: int | None = None,
    classes: int | None = None,
    height: int | None = None,
    width: int | None = None,
    unseen: Sequence[str] = ("edges",),
    scales: Sequence[float] = (1.0, 1.2, 1.5),
    flip: bool = True,
    threads: int = 1,
) -> MultiTaskData:
    """Images [3, height, width] and the tasks segmentation, depth, normals, edges.

    The official test set is the test split. The official training set gives the validation split and, of what is
    left, the training split; the papers train on all of it and choose on the test set.

    Images are normalised by ImageNet's mean and deviation. Depth is in metres, normals are unit vectors.
    Training samples are flipped (which negates a normal's x) and scaled (a window enlarged by z; depth is divided
    by z, as LibMTL does).

    Args:
        seed: decides what of the official training set is the validation split, and which samples a size below the
            whole takes.
        data_dir: a prepared folder, or one of the published forms, which is then prepared in the cache folder.
        train: number of samples to train on; None for all that are left.
        val: number of samples for validation; None for a fifth of the official training set.
        test: number of test samples; None for all.
        classes: 13 or 40.
        height: of the images, a multiple of 8.
        width: of the images, a multiple of 8.
        unseen: the tasks that are held back.
        scales: one is drawn with equal chances for each training sample.
        flip: whether half of the training samples are flipped.
        threads: that read samples.

    Raises:
        ConfigError: for an argument outside its range, or without ``data_dir``.
        DataError: where files are missing or damaged.
    """
    asked = {"classes": classes, "height": height, "width": width}
    counts = {"train": train, "val": val, "test": test, "threads": threads}
    check_arguments(seed, **{name: count for name, count in counts.items() if count is not None})
    check_sizes(asked)
    for name in unseen:
        if name not in TASKS:
            raise unknown_name("task in unseen", name, list(TASKS))
    if len(set(unseen)) == len(TASKS):
        raise ConfigError("`unseen` names every task: leave at least one to train")
    prepared = opened(NAME, data_dir, asked, source)
    parts = _parts(np.random.default_rng(seed), prepared, train, val, test)
    augmentation = Augmentation(tuple(scales), flip)
    tasks = {name: make(prepared.arguments["classes"]) for name, make in TASKS.items()}
    return MultiTaskData(
        NAME,
        PreparedSplit(prepared, "train", parts["train"], Decoder(), augmentation, threads),
        PreparedSplit(prepared, "train", parts["val"], Decoder(), None, threads),
        PreparedSplit(prepared, "test", parts["test"], Decoder(), None, threads),
        tasks=[task for name, task in tasks.items() if name not in unseen],
        unseen_tasks=[task for name, task in tasks.items() if name in unseen],
    )


def _parts(
    rng: np.random.Generator, prepared: Prepared, train: int | None, val: int | None, test: int | None
) -> dict[str, Any]:
    official = {part: prepared.count(part) for part in ("train", "test")}
    val = max(1, official["train"] // 5) if val is None else val
    train = official["train"] - val if train is None else train
    test = official["test"] if test is None else test
    for asked, count, what in ((train + val, official["train"], "train + val"), (test, official["test"], "test")):
        if asked > count or train < 1:
            raise ConfigError(f"`{what} <= {count}` must hold for these files, but got {asked}")
    order = rng.permutation(official["train"])
    return {
        "val": np.sort(order[:val]),
        "train": np.sort(order[val : val + train]),
        "test": np.sort(rng.permutation(official["test"])[:test]),
    }


@cache
def _mirrored(width: int, device: torch.device) -> Tensor:
    """What a row of normals is multiplied by in a mirror image: whole rows are quicker than every third number."""
    return torch.tensor([-1.0, 1.0, 1.0], device=device).repeat(width)


class Decoder:
    """Turns what is stored (:mod:`~ms_automl.data.nyuv2_layouts`) into batches."""

    def empty(self, count: int, shapes: Mapping[str, Sequence[int]], device: torch.device) -> Batch:
        """A batch that is not filled."""
        height, width = shapes["image"][:2]
        maps = (count, height, width)
        targets = {
            "segmentation": torch.empty(maps, dtype=torch.long, device=device),
            "depth": torch.empty(maps, device=device)[:, None],
            "normals": torch.empty(*maps, 3, device=device).movedim(3, 1),
            "edges": torch.empty(maps, device=device)[:, None],
        }
        valid = {name: torch.empty(maps, dtype=torch.bool, device=device) for name in targets}
        valid["edges"].fill_(True)
        return Batch(empty_images(count, height, width, device), targets, valid)

    def decode(self, rows: Mapping[str, Tensor], views: Sequence[View], out: Batch) -> None:
        """Fill a batch: a view that is enlarged z times divides depth (metres) by z, a mirror image negates x."""
        normalise(rows["image"], out.images)
        metres, directions = out.targets["depth"][:, 0], out.targets["normals"].movedim(1, 3)
        metres.copy_(rows["depth"])
        directions.copy_(rows["normals"])
        mirrored = _mirrored(directions.shape[2], directions.device)
        for index, view in enumerate(views):
            metres[index].mul_(1 / (1000 * view.scale))
            if view.flipped:
                directions[index].view(-1, len(mirrored)).mul_(mirrored)
        out.targets["segmentation"].copy_(rows["segmentation"])
        out.targets["edges"][:, 0].copy_(rows["edges"].view(torch.uint8))  # of booleans it is slow
        # A comparison whose result has another type than its operands takes ten times as long.
        torch.ne(rows["segmentation"], IGNORED, out=out.valid["segmentation"].view(torch.uint8))
        out.valid["depth"].copy_(rows["depth"])  # 0 where it is not known
        torch.ne(rows["normals"][..., 2], 0, out=out.valid["normals"])
