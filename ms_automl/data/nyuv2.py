"""NYU Depth v2 (Silberman et al. 2012): 1,449 real images of rooms; classes, depth, surface normals, edges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ms_automl.data.augmentation import Augmentation, View, scales_of
from ms_automl.data.contract import Batch, MultiTaskData, check_arguments
from ms_automl.data.images import normalised
from ms_automl.data.nyuv2_layouts import IGNORED, LAYOUTS
from ms_automl.data.prepare import Source, opened
from ms_automl.data.prepared import Prepared, PreparedSplit
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
        PreparedSplit(prepared, "train", parts["train"], decode, augmentation, threads),
        PreparedSplit(prepared, "train", parts["val"], decode, None, threads),
        PreparedSplit(prepared, "test", parts["test"], decode, None, threads),
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


def decode(rows: Mapping[str, Tensor], views: Sequence[View]) -> Batch:
    """What is stored, as a batch; depth and normals follow the views."""
    metres = rows["depth"].float() / (1000 * scales_of(views).to(rows["depth"].device)[:, None, None])
    known = metres > 0
    directions = rows["normals"].float()
    for index, view in enumerate(views):
        if view.flipped:
            directions[index, ..., 0].neg_()
    targets = {
        "segmentation": rows["segmentation"].long(),
        "depth": metres[:, None],
        "normals": directions.movedim(3, 1),
        "edges": rows["edges"].float()[:, None],
    }
    valid = {
        "segmentation": rows["segmentation"] != IGNORED,
        "depth": known,
        "normals": rows["normals"][..., 2] != 0,
        "edges": torch.ones_like(known),
    }
    return Batch(normalised(rows["image"]), targets, valid)
