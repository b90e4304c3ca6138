"""Random views of a sample: a zoomed window and a mirror image, the same for the picture and all its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ms_automl.data.cache import Array
from ms_automl.errors import ConfigError


@dataclass(frozen=True)
class View:
    """A window of a sample, enlarged to the sample's size, then mirrored left to right or not.

    Attributes:
        zoom: by how much it is enlarged, at least 1.
        top: first row of the window, as a share of the rows it leaves out.
        left: first column of the window, as a share of the columns it leaves out.
        mirrored: whether left and right change places.
    """

    zoom: float = 1.0
    top: float = 0.0
    left: float = 0.0
    mirrored: bool = False

    @property
    def whole(self) -> bool:
        """Whether it shows the sample as it is."""
        return self.zoom == 1 and not self.mirrored

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(top, left, rows, columns) in pixels of a sample of ``height`` x ``width``."""
        rows, columns = max(1, int(height / self.zoom)), max(1, int(width / self.zoom))
        return round(self.top * (height - rows)), round(self.left * (width - columns)), rows, columns

    def picture(self, picture: Array) -> Array:
        """The view of a picture [H, W, channels], enlarged bilinearly."""
        if self.whole:
            return picture
        height, width = picture.shape[:2]
        top, left, rows, columns = self.window(height, width)
        # A copy: what is mapped from a file cannot be written to, which torch does not know of.
        planes = torch.from_numpy(picture[top : top + rows, left : left + columns].copy()).movedim(2, 0)
        if self.zoom != 1:
            from torchvision.transforms.v2 import functional  # here: it takes a second to import

            planes = functional.resize(planes, [height, width], antialias=False)
        if self.mirrored:
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
        if self.mirrored:
            column = column[::-1]
        # Columns first, on the rows of the window only; whole rows are copied quickly.
        narrow = labels[top : top + rows].take(column, 1)
        return np.asarray(narrow if self.zoom == 1 else narrow.take(row - top, 0))


@dataclass(frozen=True)
class Views:
    """Which views are drawn.

    Attributes:
        zooms: one of them is drawn with equal chances; LibMTL's for NYU-v2 are 1, 1.2 and 1.5.
        mirror: whether half of the samples are mirrored.
    """

    zooms: Sequence[float] = (1.0,)
    mirror: bool = True

    def __post_init__(self) -> None:
        if not self.zooms or min(self.zooms) < 1:
            raise ConfigError(f"`zooms` must be numbers of at least 1, but got {list(self.zooms)}")

    def draw(self, count: int, seed: int) -> list[View]:
        """Draw ``count`` views; the same for the same seed."""
        rng = np.random.default_rng(seed)
        zoom = rng.choice(np.asarray(self.zooms, dtype=float), count)
        top, left, coin = rng.random((3, count))
        drawn = zip(zoom.tolist(), top.tolist(), left.tolist(), coin.tolist(), strict=True)
        return [View(z, t, x, self.mirror and c < 0.5) for z, t, x, c in drawn]


def zooms(views: Sequence[View]) -> Tensor:
    """[B] the zoom of each view."""
    return torch.tensor([view.zoom for view in views])
