"""ELPV: 2,624 real electroluminescence images of solar cells, from the package elpv-dataset.

Deitsch et al. 2021 (arXiv 1807.02894) cut them out of 44 modules and had experts say how likely each is defective.
The images are under CC BY-NC-SA 4.0: not for commercial use.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ms_automl.data.cache import Array, Arrays, cached
from ms_automl.data.contract import MultiTaskData, check_arguments
from ms_automl.data.splits import TensorSplit
from ms_automl.errors import ConfigError, DataError
from ms_automl.tasks import binary, classification, segmentation

LICENCE = """\
elpv-dataset: images under CC BY-NC-SA 4.0 (attribution, not for commercial use, share alike), (c) ZAE Bayern.
Cite Deitsch et al. 2021, 'Segmentation of photovoltaic module cells in uncalibrated electroluminescence
images'."""
GRADES = ("functional", "possibly defective", "likely defective", "defective")
TASKS = (classification("defect", len(GRADES)), segmentation("dark", 2))
"""The tasks that are trained."""
"""Defect probabilities 0, 1/3, 2/3 and 1."""

_WINDOW = 41  # pixels of the full image: more than a busbar is wide, less than busbars lie apart
_DARK = 0.85  # of the window's mean: from here down a pixel is darker than its surroundings
_TOTAL = 2624


def elpv(
    seed: int,
    data_dir: Path | None = None,
    *,
    train: int = 1836,
    val: int = 394,
    test: int = 394,
    size: int = 64,
) -> MultiTaskData:
    """Grey images [1, size, size] of solar cells, averaged down from 300 x 300.

    Trained: the defect grade that experts gave (:data:`GRADES`), and where the cell is darker than its
    surroundings: busbars, cracks, dislocations, rims. The second is derived from the full image: a pixel below
    0.85 of the mean of the 41 x 41 pixels around it, then the majority of each place of the small image. Held
    back: whether the cell is polycrystalline.

    The splits have each kind of cell and grade in proportion. Cells of one module may lie in different splits,
    because the data set does not say which module a cell is of.

    Args:
        seed: decides what lies in which split.
        data_dir: folder to keep the small images in; the user's cache folder if None.
        train: number of images to train on.
        val: number of images for validation.
        test: number of test images.
        size: side of the images, a multiple of 4 up to 300.

    Raises:
        ConfigError: for an argument outside its range, or where the package is not installed.
        DataError: where the cache folder cannot be written, or the package's files are not what they should be.
    """
    counts = {"train": train, "val": val, "test": test}
    check_arguments(seed, **counts)
    if sum(counts.values()) > _TOTAL:
        raise ConfigError(f"`train + val + test <= {_TOTAL}` must hold, but got {train} + {val} + {test}")
    if not (16 <= size <= 300 and size % 4 == 0):
        raise ConfigError(f"`size` must be a multiple of 4 from 16 to 300, but got size={size}")
    cells = cached("elpv", 1, {"size": size}, lambda: _shrunk(size), data_dir)
    parts = _divided(np.random.default_rng(seed), 2 * cells["grade"].astype(np.int64) + cells["poly"], counts)
    splits = {name: _split(cells, part) for name, part in parts.items()}
    return MultiTaskData(
        "elpv",
        splits["train"],
        splits["val"],
        splits["test"],
        tasks=TASKS,
        unseen_tasks=(binary("polycrystalline"),),
    )


def _shrunk(size: int) -> Arrays:
    try:
        from elpv_dataset.utils import load_dataset
    except ImportError as error:
        raise ConfigError(
            "the data set elpv needs the package elpv-dataset (91 MB): pip install elpv-dataset"
        ) from error
    print(LICENCE, file=sys.stderr)
    images, probability, kind = load_dataset()
    if images.shape != (_TOTAL, 300, 300):
        raise DataError(f"elpv-dataset gives images of shape {images.shape}, expected ({_TOTAL}, 300, 300)")
    small, darker = [], []
    for chunk in np.array_split(images, 16):
        full = torch.from_numpy(chunk.astype(np.float32))[:, None]
        dark = (full < _DARK * _around(full)).float()
        small.append(F.adaptive_avg_pool2d(full, size).round().to(torch.uint8).numpy())
        darker.append((F.adaptive_avg_pool2d(dark, size) >= 0.5)[:, 0].numpy())
    return {
        "image": np.concatenate(small),
        "dark": np.concatenate(darker),
        "grade": np.rint(3 * probability).astype(np.uint8),
        "poly": kind == "poly",
    }


def _around(images: torch.Tensor) -> torch.Tensor:
    """Means of the window around each pixel, of what lies within the image: as F.avg_pool2d, to the last bit.

    Windows overlap: differences of running sums take two additions a pixel and axis, not 41 * 41. Grey values are
    whole numbers, and here all of their sums are below 2^24, so float32 holds them exactly in any order.

    Args:
        images: [N, 1, H, W] whole numbers from 0 to 255, H and W at most 300.
    """
    ones = torch.ones_like(images[:1])
    return _summed(_summed(images, 2), 3) / _summed(_summed(ones, 2), 3)


def _summed(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Σ over the window along one axis."""
    half, size = _WINDOW // 2, values.shape[axis]
    ends = (half + 1, half)
    running = F.pad(values, (0, 0, *ends) if axis == 2 else ends).cumsum(axis)
    return running.narrow(axis, _WINDOW, size) - running.narrow(axis, 0, size)


def _divided(rng: np.random.Generator, strata: Array, counts: dict[str, int]) -> dict[str, Array]:
    """Indices of each split, every stratum in proportion: a random order in which the strata take turns evenly."""
    place = np.empty(len(strata))
    for stratum in np.unique(strata):
        own = rng.permutation(np.flatnonzero(strata == stratum))
        place[own] = (np.arange(len(own)) + rng.random()) / len(own)
    order = np.argsort(place, kind="stable")
    # Splits take turns along that order as well: each gets its share of every stretch of it.
    total = sum(counts.values())
    position = np.concatenate([(np.arange(count) + 0.5) / count for count in counts.values()])
    owner = np.repeat(np.arange(len(counts)), list(counts.values()))[np.argsort(position, kind="stable")]
    return {name: rng.permutation(order[:total][owner == index]) for index, name in enumerate(counts)}


def _split(cells: Arrays, part: Array) -> TensorSplit:
    image = torch.from_numpy(cells["image"][part].astype(np.float32) / 255)
    targets = {
        "defect": torch.from_numpy(cells["grade"][part].astype(np.int64)),
        "dark": torch.from_numpy(cells["dark"][part].astype(np.int64)),
        "polycrystalline": torch.from_numpy(cells["poly"][part].astype(np.float32)),
    }
    return TensorSplit((image - 0.6) / 0.16, targets)
