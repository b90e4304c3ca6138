import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from ms_automl.data import MultiTaskData, TensorSplit, check_data, multimnist, rooms
from ms_automl.data.__main__ import contact_sheet, describe, main
from ms_automl.data.elpv import _around
from ms_automl.data.multimnist import _divide
from ms_automl.data.raycast import HALF_VIEW, cast, lit
from ms_automl.data.scenes import BOXES, Scenes, random_scenes
from ms_automl.errors import ConfigError, DataError
from ms_automl.tasks import depth, segmentation


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MS_AUTOML_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# ---- rooms ----------------------------------------------------------------------------------------------


def one_scene() -> Scenes:
    """A room of 4 x 6 x 3 m seen from its middle, along +x, with a ball 1 m ahead and a box to its right."""
    scene = random_scenes(np.random.default_rng(0), 1)
    gone = np.full((1, 5, 3), (0, 0, -1000), dtype=np.float32)
    ball_centre, box_centre = gone[:, :2].copy(), gone[:, :BOXES].copy()
    ball_centre[0, 0] = (3, 3, 1.5)
    box_centre[0, 0] = (3.5, 2.5, 1.5)
    return replace(
        scene,
        room=np.array([[4, 6, 3]], dtype=np.float32),
        eye=np.array([[2, 3, 1.5]], dtype=np.float32),
        axes=np.array([[[0, -1, 0], [0, 0, -1], [1, 0, 0]]], dtype=np.float32),
        ball_centre=ball_centre,
        ball_radius=np.array([[0.25, 0.1]], dtype=np.float32),
        box_centre=box_centre,
        box_half=np.full((1, BOXES, 3), 0.1, dtype=np.float32),
        box_yaw=np.zeros((1, BOXES), dtype=np.float32),
        light=np.array([[2, 3, 1.5]], dtype=np.float32),
        ambient=np.array([0.25], dtype=np.float32),
    )


def pixel(size: int, right: float, down: float) -> int:
    """Number of the pixel whose ray passes (right, down) at a depth of 1."""
    column, row = (int((x / HALF_VIEW + 1) / 2 * size) for x in (right, down))
    return row * size + column


def test_rays_hit_what_stands_where_geometry_says() -> None:
    hits = cast(one_scene(), 101)
    expected = {
        (0.0, 0.0): (0.75, 1 + BOXES, (-1, 0, 0)),  # the ball's front
        (0.5 / 1.4, 0.0): (1.4, 1, (-1, 0, 0)),  # the box's front
        (-0.5, 0.0): (2.0, 0, (-1, 0, 0)),  # the wall ahead
        (0.0, -0.745): (2.0, 0, (-1, 0, 0)),  # it ends 0.75 above and below the axis
    }
    for (right, down), (metres, solid, normal) in expected.items():
        at = pixel(101, right, down)
        assert hits.depth[0, at] == pytest.approx(metres, abs=0.01)
        assert hits.solid[0, at] == solid
        assert hits.normal[0, :, at] == pytest.approx(normal, abs=0.05)


def test_light_falls_with_distance_and_does_not_reach_behind_objects() -> None:
    scene = one_scene()
    hits = cast(scene, 101)
    # The light stands in the camera: the ball's front is hit head on from 0.75 m.
    assert lit(scene, hits)[0, pixel(101, 0, 0)] == pytest.approx(0.25 + 1.5 / (1 + 0.75**2 / 8), abs=0.01)
    # From the far side of the room the light reaches the box's front unless a ball stands between them.
    aside = replace(scene, light=np.array([[0.5, 4.0, 1.5]], dtype=np.float32))
    box_front = pixel(101, 0.5 / 1.4, 0)
    for place, blocked in (((2.9, 2.76, 1.5), True), ((2.9, 4.0, 1.5), False)):
        moved = replace(aside, ball_centre=np.array([[place, (0, 0, -1000)]], dtype=np.float32))
        assert (lit(moved, hits)[0, box_front] < 0.2501) == blocked


@pytest.fixture(scope="module")
def some_rooms(tmp_path_factory: pytest.TempPathFactory) -> MultiTaskData:
    return rooms(0, tmp_path_factory.mktemp("rooms"), train=64, val=8, test=8)


def test_normals_are_those_of_the_surface_that_depth_describes(some_rooms: MultiTaskData) -> None:
    batch = some_rooms.train.batch(torch.arange(64))
    size = some_rooms.image_shape[1]
    steps = ((torch.arange(size) + 0.5) / size * 2 - 1) * HALF_VIEW
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)]) * batch.targets["depth"]
    across = points[:, :, 1:-1, 2:] - points[:, :, 1:-1, :-2]
    down = points[:, :, 2:, 1:-1] - points[:, :, :-2, 1:-1]
    # x right times y down points away from the camera; normals point towards it.
    found = torch.nn.functional.normalize(-torch.linalg.cross(across, down, dim=1), dim=1)
    usable = batch.valid["depth"] & (batch.targets["segmentation"] != 4)
    flat = -torch.nn.functional.max_pool2d(-usable.float()[:, None], 3, 1)[:, 0] > 0
    flat &= torch.nn.functional.max_pool2d(batch.targets["edges"], 3, 1)[:, 0] == 0
    cosine = (found * batch.targets["normals"][:, :, 1:-1, 1:-1]).sum(1)[flat]
    angle = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
    assert flat.float().mean() > 0.3
    assert angle.median() < 1
    assert angle.quantile(0.99) < 10


def test_valid_normals_have_unit_length_and_face_the_camera(some_rooms: MultiTaskData) -> None:
    batch = some_rooms.train.batch(torch.arange(64))
    valid, normal = batch.valid["normals"], batch.targets["normals"]
    length = normal.norm(dim=1)
    torch.testing.assert_close(length[valid], torch.ones_like(length[valid]), rtol=0, atol=1e-5)
    assert (length[~valid] == 0).all()
    size = some_rooms.image_shape[1]
    steps = ((torch.arange(size) + 0.5) / size * 2 - 1) * HALF_VIEW
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    facing = (normal * torch.stack([x, y, torch.ones_like(x)])).sum(1)
    assert (facing[valid] < 0).all()


def test_a_few_percent_of_depth_lie_beyond_what_a_camera_can_measure(some_rooms: MultiTaskData) -> None:
    batch = some_rooms.train.batch(torch.arange(64))
    metres, valid = batch.targets["depth"][:, 0], batch.valid["depth"]
    assert 0.005 < (~valid).float().mean() < 0.1
    assert 0.4 <= metres[valid].min() <= metres[valid].max() <= 5.5
    assert (metres[~valid] == 0).all()
    assert torch.equal(valid, batch.valid["normals"])


def test_every_border_between_classes_is_an_edge(some_rooms: MultiTaskData) -> None:
    batch = some_rooms.train.batch(torch.arange(64))
    classes, edge = batch.targets["segmentation"], batch.targets["edges"][:, 0] > 0
    assert edge[:, :, :-1][classes[:, :, :-1] != classes[:, :, 1:]].all()
    assert edge[:, :-1][classes[:, :-1] != classes[:, 1:]].all()
    assert edge.float().mean() < 0.3


def test_the_count_is_zero_just_where_no_object_is_more_than_a_few_pixels(some_rooms: MultiTaskData) -> None:
    batch = some_rooms.train.batch(torch.arange(64))
    objects = (batch.targets["segmentation"] >= 3).float().mean((1, 2))
    count = batch.targets["count"]
    assert (objects[count > 0] >= count[count > 0] / 200).all()
    assert (objects[count == 0] < 5 / 200).all()
    assert len(count.unique()) >= 4


def test_the_seed_moves_scenes_between_splits_of_one_pool(tmp_path: Path) -> None:
    def pool(seed: int) -> set[bytes]:
        data = rooms(seed, tmp_path, train=6, val=3, test=3)
        batches = [split.batch(torch.arange(len(split))) for split in data.splits.values()]
        return {image.numpy().tobytes() for batch in batches for image in batch.images}

    assert pool(0) == pool(1)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("size", [0, 12, 33, 260])
def test_a_size_that_cannot_be_rendered_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"multiple of 4 from 16 to 256, but got size={size}"):
        rooms(0, size=size)


def test_rooms_can_be_rendered_larger(tmp_path: Path) -> None:
    data = rooms(0, tmp_path, train=1, val=1, test=1, size=64)
    check_data(data)
    assert data.image_shape == (3, 64, 64)


# ---- multimnist -----------------------------------------------------------------------------------------


@pytest.fixture
def drawn_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 made-up digits: a bar as many pixels long as the class, so that a canvas can be read back."""
    labels = np.repeat(np.arange(10, dtype=np.uint8), 4)
    images = np.zeros((40, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4, 4 : 5 + label] = 255
    module = sys.modules["ms_automl.data.multimnist"]
    monkeypatch.setattr(module, "_read_digits", lambda: {"image": images, "label": labels})


@pytest.mark.usefixtures("drawn_digits")
def test_canvases_hold_the_two_digits_their_labels_name() -> None:
    data = multimnist(0, train=60, val=20, test=20)
    check_data(data)
    for split in data.splits.values():
        batch = split.batch(torch.arange(len(split)))
        ink, targets = batch.targets["ink"], batch.targets
        for bit, side in ((1, "left"), (2, "right")):
            pixels = ((ink & bit) > 0).sum((1, 2))
            assert torch.equal(pixels, targets[side] + 1)
        assert torch.equal(targets["sum_at_least_10"] == 1, targets["left"] + targets["right"] >= 10)
        dark = batch.images[:, 0] == batch.images.min()
        assert torch.equal(dark, ink == 0)


@pytest.mark.usefixtures("drawn_digits")
def test_more_canvases_than_pairs_of_digits_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"`val <= \d+` must hold, .* but got val=5000"):
        multimnist(0, train=1, val=5000, test=1)


def test_digits_are_divided_by_class_and_no_digit_lies_in_two_splits() -> None:
    labels = np.repeat(np.arange(10), 50)
    pools = _divide(np.random.default_rng(0), labels, {"train": 80, "val": 10, "test": 10})
    everyone = np.concatenate(list(pools.values()))
    assert sorted(everyone) == list(range(500))
    for name, share in {"train": 40, "val": 5, "test": 5}.items():
        assert np.bincount(labels[pools[name]]).tolist() == [share] * 10


# ---- elpv -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(300, 300), (50, 42), (20, 61)])
def test_the_mean_around_a_pixel_is_that_of_average_pooling_to_the_last_bit(shape: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (1, 1, *shape), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(_around(images), avg_pool2d(images, 41, 1, 20, count_include_pad=False))
    white = torch.full((1, 1, *shape), 255.0)  # the largest sums
    assert torch.equal(_around(white), white)


# ---- contract and command line --------------------------------------------------------------------------


def tiny(images: torch.Tensor, targets: dict[str, torch.Tensor]) -> MultiTaskData:
    split = TensorSplit(images, targets)
    return MultiTaskData("tiny", split, split, split, (segmentation("segmentation", 3), depth()))


def good() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    classes = torch.zeros(2, 4, 4, dtype=torch.int64)
    return torch.zeros(2, 3, 4, 4), {"segmentation": classes, "depth": torch.ones(2, 1, 4, 4)}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("segmentation", lambda t: t + 3, "class numbers 3 to 3 found, expected 0 to 2"),
        ("segmentation", lambda t: t.float(), "expected torch.int64"),
        ("depth", lambda t: t[:, 0], r"target has shape \(2, 4, 4\), expected \(2, 1, 4, 4\)"),
        ("depth", lambda t: t * torch.nan, "valid targets hold NaN"),
        ("depth", lambda t: t.long(), "expected a floating-point type"),
    ],
)
def test_a_target_that_does_not_fit_its_task_is_named(
    name: str, change: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    images, targets = good()
    check_data(tiny(images, targets))
    targets[name] = change(targets[name])
    with pytest.raises(DataError, match=f"train, task '{name}': .*{message}"):
        check_data(tiny(images, targets))


def test_images_that_are_not_finite_float32_are_refused() -> None:
    images, targets = good()
    with pytest.raises(DataError, match=r"images must be float32, but are torch.float64"):
        check_data(tiny(images.double(), targets))
    with pytest.raises(DataError, match="NaN or infinite"):
        check_data(tiny(images / 0, targets))


def test_a_missing_target_is_listed_with_those_there_are() -> None:
    images, targets = good()
    del targets["depth"]
    with pytest.raises(DataError, match="task 'depth': no target of that name; the split has segmentation"):
        check_data(tiny(images, targets))


def test_info_names_every_task_and_draws_a_picture(some_rooms: MultiTaskData, tmp_path: Path) -> None:
    text = "\n".join(describe(some_rooms))
    assert "train 64, val 8, test 8" in text
    for task in ("segmentation", "depth", "normals", "edges", "count"):
        assert f"{task} (" in text
    contact_sheet(some_rooms, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_dataset_ends_with_one_line_that_lists_the_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["info", "room"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "did you mean 'rooms'? Known: rooms, multimnist" in error
