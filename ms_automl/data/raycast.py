"""A ray-caster for boxes and balls in a room: many scenes and all their pixels at once, in numpy.

S is the number of scenes, P = size² the number of pixels. A ray of a pixel has camera z = 1, so the ray's
parameter t where it hits is the depth along the optical axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ms_automl.data.cache import Array
from ms_automl.data.scenes import BALLS, BOXES, Scenes

HALF_VIEW = 0.75  # tangent of half the field of view: 74 degrees
_FACES = 6  # surfaces of a box: 2 * axis + (1 where the face looks along the axis)
_NEAR = 1e-3


@dataclass(frozen=True)
class Hits:
    """What each pixel sees.

    Attributes:
        depth: [S, P] metres along the optical axis.
        point: [S, 3, P] where the ray ends, world coordinates.
        normal: [S, 3, P] unit vectors towards the camera's side of the surface, world coordinates.
        rays: [S, 3, P] directions in world coordinates, of camera z = 1.
        solid: [S, P] 0 for the room, 1.. for the boxes, 1 + BOXES.. for the balls.
        face: [S, P] number of the solid's face, 0 for balls.
    """

    depth: Array
    point: Array
    normal: Array
    rays: Array
    solid: Array
    face: Array


def cast(scenes: Scenes, size: int) -> Hits:
    """First hit of every pixel's ray in images of ``size`` x ``size`` pixels, in rows from the top left."""
    rays = _rays(scenes, size)
    origin = scenes.eye[:, :, None]
    depth, normal, face = _room(scenes, origin, rays)
    solid = np.zeros_like(face)
    for k in range(BOXES):
        t, own_normal, own_face = _box(scenes, k, origin, rays)
        nearer = t < depth
        depth, normal = np.where(nearer, t, depth), np.where(nearer[:, None], own_normal, normal)
        solid, face = np.where(nearer, 1 + k, solid), np.where(nearer, own_face, face)
    for k in range(BALLS):
        t = _ball(scenes, k, origin, rays)
        nearer = t < depth
        depth = np.where(nearer, t, depth)
        out = origin + np.where(nearer, t, 0)[:, None] * rays - scenes.ball_centre[:, k, :, None]
        normal = np.where(nearer[:, None], out / scenes.ball_radius[:, k, None, None], normal)
        solid, face = np.where(nearer, 1 + BOXES + k, solid), np.where(nearer, 0, face)
    return Hits(depth, origin + depth[:, None] * rays, normal, rays, solid, face)


def lit(scenes: Scenes, hits: Hits) -> Array:
    """Light that reaches each pixel's surface [S, P]: ambient + 2 (1 - ambient) cos(angle) / (1 + d² / 8)."""
    start = hits.point + 2 * _NEAR * hits.normal
    way = scenes.light[:, :, None] - start
    squared = (way**2).sum(1)
    cosine = (way * hits.normal).sum(1) / np.sqrt(squared + 1e-9)
    way = _nonzero(way)
    shadow = np.zeros(cosine.shape, dtype=bool)
    for k in range(BOXES):
        shadow |= _box(scenes, k, start, way)[0] < 1
    for k in range(BALLS):
        shadow |= _ball(scenes, k, start, way) < 1
    ambient = scenes.ambient[:, None]
    direct = np.where(shadow, 0, cosine.clip(0)) / (1 + squared / 8)
    return np.asarray(ambient + 2 * (1 - ambient) * direct)


def _rays(scenes: Scenes, size: int) -> Array:
    steps = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1) * np.float32(HALF_VIEW)
    y, x = np.meshgrid(steps, steps, indexing="ij")
    pixels = np.stack([x.ravel(), y.ravel(), np.ones(size * size, dtype=np.float32)])
    return _nonzero(np.einsum("skw,kp->swp", scenes.axes, pixels))


def _nonzero(rays: Array) -> Array:
    # Slabs divide by every component.
    return np.where(np.abs(rays) < 1e-6, np.float32(1e-6), rays)


def _axis_normal(axis: Array, sign: Array) -> Array:
    return np.where(np.arange(3)[None, :, None] == axis[:, None], sign, np.float32(0))


def _room(scenes: Scenes, origin: Array, rays: Array) -> tuple[Array, Array, Array]:
    walls = np.where(rays > 0, scenes.room[:, :, None], np.float32(0))
    t = (walls - origin) / rays
    axis = t.argmin(1)
    sign = -np.sign(rays)
    looks_up = np.take_along_axis(sign, axis[:, None], 1)[:, 0] > 0
    return t.min(1), _axis_normal(axis, sign), 2 * axis + looks_up


def _turn(vectors: Array, yaw: Array) -> Array:
    cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    x, y = vectors[:, 0], vectors[:, 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y, vectors[:, 2]], 1)


def _box(scenes: Scenes, k: int, origin: Array, rays: Array) -> tuple[Array, Array, Array]:
    yaw, half = scenes.box_yaw[:, k], scenes.box_half[:, k, :, None]
    local = _turn(origin - scenes.box_centre[:, k, :, None], -yaw)
    inverse = 1 / _nonzero(_turn(rays, -yaw))
    middle, spread = -local * inverse, half * np.abs(inverse)
    near = middle - spread
    enter, leave = near.max(1), (middle + spread).min(1)
    t = np.where((enter < leave) & (enter > _NEAR), enter, np.float32(np.inf))
    axis, sign = near.argmax(1), -np.sign(inverse)
    looks_up = np.take_along_axis(sign, axis[:, None], 1)[:, 0] > 0
    return t, _turn(_axis_normal(axis, sign), yaw), 2 * axis + looks_up


def _ball(scenes: Scenes, k: int, origin: Array, rays: Array) -> Array:
    offset = origin - scenes.ball_centre[:, k, :, None]
    a = (rays**2).sum(1)
    b = (rays * offset).sum(1)
    c = (offset**2).sum(1) - scenes.ball_radius[:, k, None] ** 2
    rest = b * b - a * c
    t = (-b - np.sqrt(rest.clip(0))) / a
    return np.where((rest > 0) & (t > _NEAR), t, np.float32(np.inf))
