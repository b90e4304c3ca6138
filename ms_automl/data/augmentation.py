"""Random views of a sample: a scaled window and a flipped image, the same for the image and all its labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ms_automl.data.cache import Array
from ms_automl.errors import ConfigError


@dataclass(frozen=True)
class View:
    """A window of a sample, enlarged to the sample's size, then flipped left to right or not.

    Attributes:
        scale: by how much it is enlarged, at least 1.
        top: first row of the window, as a share of the rows it leaves out.
        left: first column of the window, as a share of the columns it leaves out.
        flipped: whether left and right change places.
    """

    scale: float = 1.0
    top: float = 0.0
    left: float = 0.0
    flipped: bool = False

    @property
    def whole(self) -> bool:
        """Whether it shows the sample as it is."""
        return self.scale == 1 and not self.flipped

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(top, left, rows, columns) in pixels of a sample of ``height`` x ``width``."""
        rows, columns = max(1, int(height / self.scale)), max(1, int(width / self.scale))
        return round(self.top * (height - rows)), round(self.left * (width - columns)), rows, columns

    def image(self, image: Array) -> Array:
        """The view of an image [H, W, channels], enlarged bilinearly."""
        if self.whole:
            return image
        height, width = image.shape[:2]
        top, left, rows, columns = self.window(height, width)
        # A copy: what is mapped from a file cannot be written to, which torch does not know of.
        planes = torch.from_numpy(image[top : top + rows, left : left + columns].copy()).movedim(2, 0)
        if self.scale != 1:
            from torchvision.transforms.v2 import functional  # here: it takes a second to import

            planes = functional.resize(planes, [height, width], antialias=False)
        if self.flipped:
            planes = planes.flip(2)
        return np.asarray(planes.movedim(0, 2))

    def labels(self, labels: Array) -> Array:
        """The view of labels [H, W, …]: each pixel's are those of the nearest pixel, never a mixture."""
        if self.whole:
            return labels
        height, width = labels.shape[:2]
        top, left, rows, columns = self.window(height, width)
        row = top + ((np.arange(height) + 0.5) * rows / height).astype(np.intp)
        column = left + ((np.arange(width) + 0.5) * columns / width).astype(np.intp)
        if self.flipped:
            column = column[::-1]
        # Columns first, on the rows of the window only; whole rows are copied quickly. What a pixel has several
        # numbers of is taken number by number: axes of a few numbers are slow.
        each = math.prod(labels.shape[2:])
        numbers = (column[:, None] * each + np.arange(each)).ravel()
        narrow = labels[top : top + rows].reshape(rows, -1).take(numbers, 1)
        if self.scale != 1:
            narrow = narrow.take(row - top, 0)
        return np.asarray(narrow.reshape(labels.shape))


@dataclass(frozen=True)
class Augmentation:
    """Which views are drawn.

    Attributes:
        scales: one of them is drawn with equal chances; LibMTL's for NYU-v2 are 1, 1.2 and 1.5.
        flip: whether half of the samples are flipped.
    """

    scales: Sequence[float] = (1.0,)
    flip: bool = True

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) < 1:
            raise ConfigError(f"`scales` must be numbers of at least 1, but got {list(self.scales)}")

    def draw(self, count: int, seed: int) -> list[View]:
        """Draw ``count`` views; the same for the same seed."""
        rng = np.random.default_rng(seed)
        scale = rng.choice(np.asarray(self.scales, dtype=float), count)
        top, left, coin = rng.random((3, count))
        drawn = zip(scale.tolist(), top.tolist(), left.tolist(), coin.tolist(), strict=True)
        return [View(z, t, x, self.flip and c < 0.5) for z, t, x, c in drawn]
