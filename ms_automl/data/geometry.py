"""Labels that follow from other labels: surface normals from depth, edges from classes; and their sizes."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ms_automl.data.cache import Array


def resized(image: Array, height: int, width: int) -> Array:
    """An image [H, W, 3] uint8 in another size, each pixel the mean of what it covers."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def nearest(labels: Array, height: int, width: int) -> Array:
    """Labels [H, W, …] in another size: each pixel's are those at its centre, never a mixture."""
    if labels.shape[:2] == (height, width):
        return labels
    rows = ((np.arange(height) + 0.5) * labels.shape[0] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * labels.shape[1] / width).astype(np.intp)
    return np.asarray(labels[rows[:, None], columns])


def label_edges(labels: Array, ignored: int) -> Array:
    """[H, W] bool: pixels whose right or lower neighbour has another label, where both have one."""
    edges = np.zeros(labels.shape, dtype=bool)
    labelled = labels != ignored
    edges[:, :-1] |= (labels[:, :-1] != labels[:, 1:]) & labelled[:, :-1] & labelled[:, 1:]
    edges[:-1] |= (labels[:-1] != labels[1:]) & labelled[:-1] & labelled[1:]
    return edges


def normals_from_depth(
    depth: Array, focal: tuple[float, float], centre: tuple[float, float], window: int = 7, tolerance: float = 0.02
) -> Array:
    """Unit surface normals [H, W, 3] to the camera, in its axes (x right, y down, z forward); 0 where unknown.

    Along a plane n · X = d inverse depth is linear in the pixel: with (u, v) = ((x - c_x) / f_x, (y - c_y) / f_y),
    1 / Z = (n_x u + n_y v + n_z) / d. Its least-squares fit over the valid pixels of a window gives n up to its
    length (Nakagawa et al. 2015, 'Estimating surface normals with depth image gradients', section 3, use the same
    linearity). A pixel is unknown where its window holds less than half valid depths, or where the fit misses the
    window's inverse depths by more than ``tolerance`` of their mean, root mean square: there a depth edge or a
    curved surface runs through the window.

    Args:
        depth: [H, W] metres along the optical axis, 0 where not valid.
        focal: (f_x, f_y) in pixels.
        centre: (c_x, c_y), the principal point in pixels.
        window: side of the window in pixels, odd.
        tolerance: of the fit.
    """
    metres = torch.from_numpy(np.ascontiguousarray(depth, dtype=np.float64))
    valid = (metres > 0).double()
    inverse = torch.where(metres > 0, 1 / metres.clamp(min=1e-6), 0.0)
    height, width = depth.shape
    u = ((torch.arange(width, dtype=torch.float64) - centre[0]) / focal[0]).expand(height, width)
    v = ((torch.arange(height, dtype=torch.float64) - centre[1]) / focal[1])[:, None].expand(height, width)
    terms = torch.stack([u, v, torch.ones_like(u)])
    moments = _means(torch.stack([valid * one * two for one in terms for two in terms]), window)
    right = _means(valid * inverse * terms, window)
    square = _means((valid * inverse**2)[None], window)[0]
    share = moments[8]  # of 1 · 1: how many of the window's pixels are valid
    matrix = moments.movedim(0, -1).reshape(height, width, 3, 3)
    ridge = 1e-12 * torch.eye(3, dtype=torch.float64)
    plane = torch.linalg.solve(matrix + ridge, right.movedim(0, -1)[..., None])[..., 0]
    missed = square - (plane * right.movedim(0, -1)).sum(-1)
    mean = right[2] / share.clamp(min=1e-12)
    known = (valid > 0) & (share >= 0.5) & (missed <= share * (tolerance * mean) ** 2)
    directions = -F.normalize(plane, dim=-1)
    return torch.where(known[..., None], directions, 0.0).numpy()


def _means(planes: Tensor, window: int) -> Tensor:
    """[K, H, W] means over windows; what lies outside the image counts as 0."""
    return F.avg_pool2d(planes[None], window, 1, window // 2)[0]
