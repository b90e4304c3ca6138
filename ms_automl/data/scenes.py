"""Random rooms: their size, the camera, the objects, the materials and the light, for many scenes at once.

World axes in metres: x and y along the walls, z up, the origin in a corner of the floor. Camera axes: x to
the right, y down, z forward.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ms_automl.data.cache import Array

BOXES = 3
BALLS = 2
MATERIALS = 3 + BOXES + BALLS  # floor, wall, ceiling, the boxes, the balls
PATTERNS = 4  # plain, stripes, checker, waves

_CANDIDATES = 8
_PARKED = (0.0, 0.0, -1000.0)  # an absent object lies far below the floor, where no ray can see it


@dataclass(frozen=True)
class Scenes:
    """S rooms with their objects, light and camera.

    Attributes:
        room: [S, 3] width, length and height in metres.
        eye: [S, 3] camera position.
        axes: [S, 3, 3], rows are the camera's x, y and z axis in world coordinates.
        box_centre: [S, BOXES, 3].
        box_half: [S, BOXES, 3] half the edge lengths.
        box_yaw: [S, BOXES] radians about z.
        ball_centre: [S, BALLS, 3].
        ball_radius: [S, BALLS].
        colours: [S, MATERIALS, 2, 3], the two albedos a pattern mixes.
        waves: [S, MATERIALS, 2, 3], two wave vectors in radians per metre.
        pattern: [S, MATERIALS] number of the pattern.
        light: [S, 3] position of the point light.
        ambient: [S] share of the light that comes from everywhere.
    """

    room: Array
    eye: Array
    axes: Array
    box_centre: Array
    box_half: Array
    box_yaw: Array
    ball_centre: Array
    ball_radius: Array
    colours: Array
    waves: Array
    pattern: Array
    light: Array
    ambient: Array


def random_scenes(rng: np.random.Generator, count: int) -> Scenes:
    """``count`` scenes drawn from ``rng``; objects overlap neither each other nor the walls."""
    room = rng.uniform((3.0, 3.0, 2.4), (8.0, 8.0, 3.2), (count, 3))
    eye, yaw, axes = _camera(rng, room)
    half, radius, centre = _objects(rng, room, eye, yaw)
    fields = {
        "room": room,
        "eye": eye,
        "axes": axes,
        "box_centre": centre[:, :BOXES],
        "box_half": half,
        "box_yaw": rng.uniform(0, np.pi, (count, BOXES)),
        "ball_centre": centre[:, BOXES:],
        "ball_radius": radius,
        "light": room * rng.uniform((0.15, 0.15, 0.75), (0.85, 0.85, 0.95), (count, 3)),
        "ambient": rng.uniform(0.1, 0.3, count),
    } | _materials(rng, count)
    pattern = rng.integers(PATTERNS, size=(count, MATERIALS))
    return Scenes(pattern=pattern, **{name: value.astype(np.float32) for name, value in fields.items()})


def _camera(rng: np.random.Generator, room: Array) -> tuple[Array, Array, Array]:
    count = len(room)
    eye = room * rng.uniform(0.1, 0.9, (count, 3))
    eye[:, 2] = rng.uniform(1.2, 1.8, count)
    # A camera at a wall looks into the room and not at the wall; one in the middle looks anywhere.
    inward = room[:, :2] * rng.uniform(0.3, 0.7, (count, 2)) - eye[:, :2]
    yaw = np.arctan2(inward[:, 1], inward[:, 0]) + rng.uniform(-0.5, 0.5, count)
    pitch, roll = np.radians(rng.uniform(-35, 8, count)), np.radians(rng.uniform(-6, 6, count))
    zero = np.zeros(count)
    forward = np.stack([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)], 1)
    right = np.stack([np.sin(yaw), -np.cos(yaw), zero], 1)
    down = np.cross(forward, right)
    cos, sin = np.cos(roll)[:, None], np.sin(roll)[:, None]
    axes = np.stack([cos * right + sin * down, cos * down - sin * right, forward], 1)
    return eye, yaw, axes


def _objects(rng: np.random.Generator, room: Array, eye: Array, yaw: Array) -> tuple[Array, Array, Array]:
    """Half edge lengths [S, BOXES, 3], radii [S, BALLS] and centres [S, BOXES + BALLS, 3]."""
    count, slots = len(room), BOXES + BALLS
    half = rng.uniform((0.12, 0.12, 0.12), (0.5, 0.5, 0.7), (count, BOXES, 3))
    radius = rng.uniform(0.15, 0.5, (count, BALLS))
    reach = np.concatenate([np.hypot(half[..., 0], half[..., 1]), radius], 1)
    height = np.concatenate([half[..., 2], radius], 1)
    lifted = rng.random((count, BALLS)) < 0.3
    height[:, BOXES:] += np.where(lifted, rng.uniform(0.2, 1.2, (count, BALLS)), 0)
    wanted = rng.random((count, slots)) < rng.uniform(0.3, 1.0, (count, 1))
    centre = np.tile(np.array(_PARKED), (count, slots, 1))
    for slot in rng.permutation(slots):
        place, free = _place(rng, room, eye, yaw, reach, centre, slot)
        standing = np.concatenate([place, height[:, slot, None]], 1)
        centre[:, slot] = np.where((wanted[:, slot] & free)[:, None], standing, _PARKED)
    return half, radius, centre


def _place(
    rng: np.random.Generator, room: Array, eye: Array, yaw: Array, reach: Array, centre: Array, slot: int
) -> tuple[Array, Array]:
    """A place on the floor [S, 2] in view of the camera, and whether a free one was found [S]."""
    count = len(room)
    angle = yaw[:, None] + rng.uniform(-0.6, 0.6, (count, _CANDIDATES))
    distance = rng.uniform(1.0, 6.0, (count, _CANDIDATES))
    places = eye[:, None, :2] + distance[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    own = reach[:, slot, None]
    inside = (places > own[..., None]).all(-1) & (places < room[:, None, :2] - own[..., None]).all(-1)
    gaps = np.linalg.norm(places[:, :, None] - centre[:, None, :, :2], axis=-1)
    standing = centre[:, None, :, 2] > 0
    apart = (~standing | (gaps > own[..., None] + reach[:, None])).all(-1)
    fits = inside & apart & (distance > own + 0.5)
    first = fits.argmax(1)
    return places[np.arange(count), first], fits.any(1)


def _materials(rng: np.random.Generator, count: int) -> dict[str, Array]:
    # Floors, walls, boxes and balls draw from one distribution: colour alone tells no class.
    base = rng.uniform(0.15, 0.95, (count, MATERIALS, 1, 1)) * rng.uniform(0.55, 1, (count, MATERIALS, 1, 3))
    change = rng.uniform(-0.3, 0.3, (count, MATERIALS, 1, 3))
    colours = np.concatenate([base, base + change], 2).clip(0.03, 1)
    turn = rng.uniform(0, np.pi, (count, MATERIALS))
    cos, sin, zero = np.cos(turn), np.sin(turn), np.zeros_like(turn)
    directions = np.stack([np.stack([cos, sin, zero], -1), np.stack([-sin, cos, zero + 1], -1)], 2)
    length = rng.uniform(0.4, 1.6, (count, MATERIALS, 1, 1))
    return {"colours": colours, "waves": directions * (2 * np.pi / length)}
