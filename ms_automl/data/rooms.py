"""Rendered rooms with NYU-v2's tasks: segmentation, depth and normals; edges and a count are held back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ms_automl.data.cache import Array, Arrays, cached
from ms_automl.data.contract import MultiTaskData, check_arguments
from ms_automl.data.raycast import Hits, cast, lit
from ms_automl.data.scenes import BALLS, BOXES, Scenes, random_scenes
from ms_automl.data.splits import TensorSplit
from ms_automl.errors import ConfigError
from ms_automl.tasks import classification, depth, edges, normals, segmentation

CLASSES = ("floor", "wall", "ceiling", "box", "ball")
TASKS = (segmentation("segmentation", len(CLASSES)), depth(), normals())
"""The tasks that are trained."""

_VERSION = 1
_RENDERING_SEED = 20_240_229
_CHUNK = 64  # scenes rendered at once: what fits the processor's cache
_RANGE = (0.4, 5.5)  # metres a depth camera can measure
_GRAZING = 0.15  # cosine between ray and normal below which a depth camera sees nothing
_FACE_CLASS = np.array([1, 1, 1, 1, 2, 0])  # of the room's faces, which look inwards: 4 is the ceiling
_VISIBLE = 1 / 200  # share of the image from which an object counts


def rooms(
    seed: int,
    data_dir: Path | None = None,
    *,
    train: int = 2048,
    val: int = 512,
    test: int = 512,
    size: int = 32,
) -> MultiTaskData:
    """One fixed pool of rendered rooms, split by ``seed``.

    Images [3, size, size] are scaled to about zero mean and unit deviation. Depth is in metres along the
    optical axis; normals are unit vectors in camera axes (x right, y down, z forward), so those of visible
    surfaces have a negative dot product with the pixel's ray. Depth and normals are valid where a depth
    camera would measure: 0.4 m to 5.5 m and not at a grazing angle; both are 0 elsewhere. Edges are pixels
    whose right or lower neighbour lies on another face. The count is the number of objects, 0 to 5, each
    of which covers at least 0.5 % of the image.

    Args:
        seed: decides which scenes of the pool go to which split, and nothing else.
        data_dir: folder to keep the rendered pool in; the user's cache folder if None.
        train: number of scenes to train on.
        val: number of scenes for validation.
        test: number of test scenes.
        size: height and width in pixels, a multiple of 4 from 16 to 256.

    Raises:
        ConfigError: for an argument outside its range.
        DataError: where the cache folder cannot be written.
    """
    check_arguments(seed, train=train, val=val, test=test)
    if not (16 <= size <= 256 and size % 4 == 0):
        raise ConfigError(f"`size` must be a multiple of 4 from 16 to 256, but got size={size}")
    total = train + val + test
    pool = cached("rooms", _VERSION, {"total": total, "size": size}, lambda: render_pool(total, size), data_dir)
    order = np.random.default_rng(seed).permutation(total)
    train_part, val_part, test_part = np.split(order, [train, train + val])
    return MultiTaskData(
        "rooms",
        _split(pool, train_part),
        _split(pool, val_part),
        _split(pool, test_part),
        tasks=TASKS,
        unseen_tasks=(edges(), classification("count", BOXES + BALLS + 1)),
    )


def render_pool(total: int, size: int) -> Arrays:
    """The first ``total`` scenes, in the compact types they are stored in.

    Returns:
        image [N, 3, size, size] uint8, segmentation [N, size, size] uint8, depth [N, size, size] uint16 in
        millimetres with 0 where not valid, normals [N, 3, size, size] float16, edges [N, size, size] bool,
        count [N] uint8.
    """
    chunks = [_render(np.random.default_rng([_RENDERING_SEED, k]), size) for k in range(-(-total // _CHUNK))]
    return {name: np.concatenate([chunk[name] for chunk in chunks])[:total] for name in chunks[0]}


def _render(rng: np.random.Generator, size: int) -> Arrays:
    scenes = random_scenes(rng, _CHUNK)
    hits = cast(scenes, size)
    valid = _measurable(hits)
    camera_normals = np.einsum("skw,swp->skp", scenes.axes, hits.normal)
    square = (_CHUNK, size, size)
    return {
        "image": _photograph(rng, scenes, hits).reshape(_CHUNK, 3, size, size),
        "segmentation": _classes(hits).astype(np.uint8).reshape(square),
        "depth": np.where(valid, np.rint(hits.depth * 1000), 0).astype(np.uint16).reshape(square),
        "normals": np.where(valid[:, None], camera_normals, 0).astype(np.float16).reshape(_CHUNK, 3, size, size),
        "edges": _edges((hits.solid * 6 + hits.face).reshape(square)),
        "count": _count(hits).astype(np.uint8),
    }


def _measurable(hits: Hits) -> Array:
    cosine = -(hits.rays * hits.normal).sum(1) / np.sqrt((hits.rays**2).sum(1))
    return np.asarray((hits.depth >= _RANGE[0]) & (hits.depth <= _RANGE[1]) & (cosine >= _GRAZING))


def _classes(hits: Hits) -> Array:
    return np.where(hits.solid == 0, _FACE_CLASS[hits.face], np.where(hits.solid <= BOXES, 3, 4))


def _edges(surface: Array) -> Array:
    edge = np.zeros(surface.shape, dtype=bool)
    edge[:, :, :-1] |= surface[:, :, :-1] != surface[:, :, 1:]
    edge[:, :-1] |= surface[:, :-1] != surface[:, 1:]
    return edge


def _count(hits: Hits) -> Array:
    shares = [(hits.solid == k).mean(1) for k in range(1, 1 + BOXES + BALLS)]
    return np.asarray((np.stack(shares) >= _VISIBLE).sum(0))


def _photograph(rng: np.random.Generator, scenes: Scenes, hits: Hits) -> Array:
    """8-bit image [S, 3, P]: albedo times light, exposed, tinted, gamma-corrected, noisy."""
    count = len(scenes.room)
    colour = _albedo(scenes, hits) * lit(scenes, hits)[:, None]
    exposure = rng.uniform(0.15, 0.3, (count, 1, 1)) / colour.mean((1, 2), keepdims=True)
    tint = rng.uniform(0.88, 1.12, (count, 3, 1))
    image = (colour * (exposure * tint).astype(np.float32)).clip(0, 1) ** np.float32(1 / 2.2)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image += noise * rng.uniform(0.01, 0.035, (count, 1, 1)).astype(np.float32)
    return np.asarray(np.rint(image.clip(0, 1) * 255), dtype=np.uint8)


def _albedo(scenes: Scenes, hits: Hits) -> Array:
    """[S, 3, P]: the two colours of the material, mixed by its pattern at the point."""
    material = np.where(hits.solid == 0, _FACE_CLASS[hits.face], hits.solid + 2)
    scene = np.arange(len(material))[:, None]
    waves, pattern = scenes.waves[scene, material], scenes.pattern[scene, material]
    one, two = (np.sin(np.einsum("spw,swp->sp", waves[:, :, k], hits.point)) for k in range(2))
    plain = np.zeros_like(one)
    mix = np.choose(pattern, [plain, one > 0, one * two > 0, 0.5 + 0.5 * one * two])[:, None]
    first, second = (np.moveaxis(scenes.colours[scene, material, k], 2, 1) for k in range(2))
    return np.asarray(first + (second - first) * mix)


def _split(pool: Arrays, part: Array) -> TensorSplit:
    image, classes, millimetres = (pool[name][part] for name in ("image", "segmentation", "depth"))
    valid = torch.from_numpy(millimetres > 0)
    direction = torch.from_numpy(pool["normals"][part].astype(np.float32))
    metres = torch.from_numpy(millimetres.astype(np.float32) / 1000)
    targets = {
        "segmentation": torch.from_numpy(classes.astype(np.int64)),
        "depth": metres[:, None],
        "normals": torch.nn.functional.normalize(direction, dim=1),
        "edges": torch.from_numpy(pool["edges"][part].astype(np.float32))[:, None],
        "count": torch.from_numpy(pool["count"][part].astype(np.int64)),
    }
    pixels = torch.from_numpy(image.astype(np.float32) / 255)
    return TensorSplit((pixels - 0.48) / 0.153, targets, {"depth": valid, "normals": valid})
