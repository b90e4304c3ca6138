"""NYU-v2 in its three published forms, on small files in exactly those forms."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ms_automl.data import check_data, nyuv2
from ms_automl.data.augmentation import View
from ms_automl.data.geometry import label_edges, nearest, normals_from_depth, resized
from ms_automl.data.nyuv2 import Decoder, source
from ms_automl.data.nyuv2_layouts import IGNORED
from ms_automl.data.prepare import DamagedSourceError, prepare
from ms_automl.errors import ConfigError, DataError
from tests.made_files import HEIGHT, WIDTH, labelled_mat, nyud_mt, scene, task_folders

SIZE = {"height": HEIGHT, "width": WIDTH}
FORMS = {
    "task folders": (task_folders, 0, 13),
    "NYUD_MT": (nyud_mt, 1, 40),
    "labelled mat": (labelled_mat, 2, 894),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MS_AUTOML_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module", params=FORMS)
def form(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, FORMS[request.param][0](tmp_path_factory.mktemp("nyuv2") / "files")


def read(form: tuple[str, Path], part: str = "train", index: int = 0) -> dict[str, np.ndarray]:
    files = source(form[1], SIZE)
    return files.read(part, files.parts[part][index])


def originals(name: str) -> Iterator[dict[str, np.ndarray]]:
    """The scenes that the files of a form were made from, in the order of their making."""
    _, seed, classes = FORMS[name]
    rng = np.random.default_rng(seed)
    while True:
        yield scene(rng, classes, *((96, 128) if name == "labelled mat" else ()))


def made(form: tuple[str, Path], part: str = "train", index: int = 0) -> dict[str, np.ndarray]:
    files, scenes = source(form[1], SIZE), originals(form[0])
    if form[0] == "labelled mat":
        place = int(files.parts[part][index]) - 1
    else:
        place = index + (0 if part == "train" else len(files.parts["train"]))
    return [next(scenes) for _ in range(place + 1)][-1]


def test_the_form_is_known_by_what_lies_in_the_folder(form: tuple[str, Path]) -> None:
    found = source(form[1], SIZE)
    assert found.layout == form[0]
    assert {part: len(samples) for part, samples in found.parts.items()} == {"train": 40, "test": 14}
    assert not [
        problem for part, samples in found.parts.items() for s in samples for problem in found.check(part, s)
    ]


@pytest.mark.parametrize(("part", "index"), [("train", 0), ("train", 11), ("test", 3)])
def test_fields_are_those_the_files_were_made_from(form: tuple[str, Path], part: str, index: int) -> None:
    fields, wanted = read(form, part, index), made(form, part, index)
    metres = nearest(wanted["depth"], HEIGHT, WIDTH)
    assert np.abs(fields["depth"] / 1000 - metres).max() <= 0.0006
    assert ((fields["depth"] == 0) == (metres == 0)).all()
    classes = nearest(wanted["label"], HEIGHT, WIDTH)
    assert ((fields["segmentation"] == IGNORED) == (classes < 0)).all()
    known = classes >= 0
    # 894 labels go to 40 classes by label % 40 in the made class map, and on to 13 by class % 13.
    expected = (classes % 40) % 13 if form[0] == "labelled mat" else classes
    assert (fields["segmentation"][known] == expected[known]).all()
    difference = fields["image"].astype(int) - resized(wanted["image"], HEIGHT, WIDTH)
    assert np.abs(difference).mean() <= (6 if form[0] == "NYUD_MT" else 0.5)  # JPEG
    assert fields["image"].dtype == np.uint8


def test_normals_have_length_one_where_valid_and_point_where_the_surface_does(form: tuple[str, Path]) -> None:
    fields, wanted = read(form), made(form)
    normals = fields["normals"].astype(float)
    length = np.linalg.norm(normals, axis=2)
    valid = fields["normals"][..., 2] != 0
    assert (length[~valid] == 0).all() and np.abs(length[valid] - 1).max() < 2e-3
    assert valid.mean() > 0.7
    if form[0] == "labelled mat":
        return  # derived from depth: the next tests
    cosine = (normals * nearest(wanted["normal"], HEIGHT, WIDTH)).sum(2)
    assert cosine[valid].min() > 0.999


def test_edges_lie_around_the_box(form: tuple[str, Path]) -> None:
    edges = read(form)["edges"]
    assert edges.dtype == bool
    assert 0.005 < edges.mean() < 0.08


def test_data_of_every_form_passes_the_check(form: tuple[str, Path]) -> None:
    data = nyuv2(0, form[1], **SIZE)
    check_data(data)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 32, "val": 8, "test": 14}
    assert data.tasks[0].head.channels == (40 if form[0] == "NYUD_MT" else 13)
    assert [task.name for task in data.unseen_tasks] == ["edges"]
    assert set(data.tasks[2].metrics) == {"mean_angle", "median_angle", "within_11", "within_22", "within_30"}


def test_a_prepared_folder_gives_the_same_data_as_the_files(tmp_path: Path, form: tuple[str, Path]) -> None:
    prepare(source(form[1], SIZE), tmp_path / "ready")
    one, two = nyuv2(3, form[1], **SIZE), nyuv2(3, tmp_path / "ready")
    for split, other in zip(one.splits.values(), two.splits.values(), strict=True):
        batch, same = (s.batch(torch.arange(len(split))) for s in (split, other))
        assert torch.equal(batch.images, same.images)
        assert all(torch.equal(target, same.targets[name]) for name, target in batch.targets.items())


def test_train_and_validation_come_from_the_official_training_set_and_do_not_meet(tmp_path: Path) -> None:
    folder = task_folders(tmp_path / "files")
    data = nyuv2(0, folder, **SIZE, val=10)
    images = [split.batch(torch.arange(len(split))).images.flatten(1) for split in data.splits.values()]
    assert [len(part) for part in images] == [30, 10, 14]
    assert len({tuple(p[:50].tolist()) for part in images for p in part}) == 54
    files = source(folder, SIZE)
    official = {files.read("test", sample)["image"].tobytes() for sample in files.parts["test"]}
    raw = data.test.batch(torch.arange(14))  # as it was: normalised by the deviation and the mean
    mean, deviation = (torch.tensor(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    back = ((raw.images * deviation + mean) * 255).round().to(torch.uint8).movedim(1, 3)
    assert {image.numpy().tobytes() for image in back.contiguous()} == official


def test_a_mirror_image_negates_the_x_of_normals_and_a_zoom_divides_depth() -> None:
    rng = np.random.default_rng(0)
    rows = {
        "image": torch.zeros(2, 8, 8, 3, dtype=torch.uint8),
        "segmentation": torch.zeros(2, 8, 8, dtype=torch.uint8),
        "depth": torch.from_numpy(rng.integers(500, 9000, (2, 8, 8)).astype(np.int16)),
        "normals": torch.from_numpy(rng.standard_normal((2, 8, 8, 3)).astype(np.float16)),
        "edges": torch.zeros(2, 8, 8, dtype=torch.bool),
    }
    shapes = {name: row.shape[1:] for name, row in rows.items()}
    plain, changed = (Decoder().empty(2, shapes, torch.device("cpu")) for _ in range(2))
    Decoder().decode(rows, [View(), View()], plain)
    Decoder().decode(rows, [View(flipped=True), View(scale=1.5)], changed)
    assert torch.equal(changed.targets["depth"][0], plain.targets["depth"][0])
    assert torch.allclose(changed.targets["depth"][1], plain.targets["depth"][1] / 1.5)
    sign = torch.tensor([-1.0, 1.0, 1.0]).reshape(3, 1, 1)
    assert torch.equal(changed.targets["normals"][0], plain.targets["normals"][0] * sign)
    assert torch.equal(changed.targets["normals"][1], plain.targets["normals"][1])


def test_normals_of_a_mirrored_room_are_those_computed_from_its_mirrored_depth() -> None:
    """The two ways round agree: flip the depth and derive normals, or derive normals and flip them."""
    rows, columns = np.meshgrid(np.arange(40), np.arange(60), indexing="ij")
    depth = 1 / (0.3 + 0.002 * rows + 0.004 * columns)  # a slanted plane
    focal, centre = (60.0, 60.0), (29.5, 19.5)  # the axis through the middle: flipping keeps it
    normals = normals_from_depth(depth, focal, centre)
    turned = normals_from_depth(depth[:, ::-1], focal, centre)
    expected = normals[:, ::-1] * (-1, 1, 1)
    assert np.abs(turned - expected).max() < 1e-9


@pytest.mark.parametrize("normal", [(0.0, 0.0, -1.0), (0.5, 0.2, -0.8), (-0.3, -0.6, -0.7)])
def test_normals_of_a_plane_are_exact_and_nothing_is_said_across_a_step(normal: tuple[float, ...]) -> None:
    direction = np.array(normal) / np.linalg.norm(normal)
    focal, centre = (100.0, 105.0), (40.0, 30.0)
    v, u = np.meshgrid(
        (np.arange(60) - centre[1]) / focal[1], (np.arange(80) - centre[0]) / focal[0], indexing="ij"
    )
    depth = -2.0 / (direction[0] * u + direction[1] * v + direction[2])
    depth[:, :4] = 0
    found = normals_from_depth(depth, focal, centre)
    known = (found != 0).any(2)
    assert known[:, 6:].mean() > 0.99 and not known[:, :4].any()
    assert np.abs(found[known] - direction).max() < 1e-6
    depth[30:, 50:] *= 0.5  # something stands before the plane
    known = (normals_from_depth(depth, focal, centre) != 0).any(2)
    assert not known[27:33, 55:].any() and known[40:50, 60:70].all()


def test_edges_of_labels_run_along_borders_but_not_around_what_has_no_label() -> None:
    labels = np.array([[1, 1, 2], [1, 1, 2], [IGNORED, 3, 3]])
    expected = [[False, True, False], [False, True, True], [False, False, False]]
    assert label_edges(labels, IGNORED).tolist() == expected


@pytest.mark.parametrize(
    ("images", "first"), [(True, 1), (False, 0)], ids=["normals and edges as images", "classes from 0"]
)
def test_both_spellings_of_nyud_mt_say_the_same(images: bool, first: int, tmp_path: Path) -> None:
    plain = read(("NYUD_MT", nyud_mt(tmp_path / "plain", 30, 3)))
    other = read(("NYUD_MT", nyud_mt(tmp_path / "other", 30, 3, images=images, first=first)))
    assert np.array_equal(plain["segmentation"], other["segmentation"])
    assert np.array_equal(plain["edges"], other["edges"])
    assert np.abs(plain["normals"].astype(float) - other["normals"].astype(float)).max() < 0.01


def test_every_damaged_or_missing_file_is_named(tmp_path: Path) -> None:
    folder = task_folders(tmp_path / "files", 6, 4)
    (folder / "train" / "depth" / "3.npy").unlink()
    file = folder / "val" / "image" / "2.npy"
    file.write_bytes(file.read_bytes()[:1000])
    np.save(folder / "train" / "label" / "5.npy", np.zeros((4, 4)))
    with pytest.raises(DamagedSourceError) as info:
        nyuv2(0, folder, **SIZE)
    text = "\n".join(info.value.problems)
    assert "train/depth/3.npy is missing" in text
    assert "val/image/2.npy is damaged" in text
    assert "train/image/5.npy: image and labels differ in size" in text
    assert len(info.value.problems) == 3

    folder = nyud_mt(tmp_path / "mt", 4, 3)
    (folder / "images" / "train_0001.jpg").unlink()
    file = folder / "segmentation" / "val_0002.png"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DamagedSourceError) as info:
        nyuv2(0, folder, **SIZE)
    text = "\n".join(info.value.problems)
    assert "images/train_0001.jpg is missing" in text and "segmentation/val_0002.png is damaged" in text


@pytest.mark.parametrize(
    ("missing", "where"),
    [
        ("splits.mat", "authors' page"),
        ("classMapping40.mat", "nyuv2-meta-data"),
        ("class13Mapping.mat", "meta-data"),
    ],
)
def test_what_belongs_beside_the_mat_file_is_asked_for(missing: str, where: str, tmp_path: Path) -> None:
    folder = labelled_mat(tmp_path / "files", 4, 3)
    (folder / missing).unlink()
    with pytest.raises(DataError, match=rf"{missing} is missing: .*{where}"):
        nyuv2(0, folder, **SIZE)
    (folder / missing).write_bytes(b"no matlab file")
    with pytest.raises(DataError, match=rf"{missing} cannot be read"):
        nyuv2(0, folder, **SIZE)


def test_a_truncated_mat_file_is_refused_and_says_so(tmp_path: Path) -> None:
    folder = labelled_mat(tmp_path / "files", 4, 3)
    file = folder / "nyu_depth_v2_labeled.mat"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match=r"nyu_depth_v2_labeled\.mat"):
        nyuv2(0, folder, **SIZE)


def test_depths_and_normals_that_are_no_numbers_are_not_valid(tmp_path: Path) -> None:
    folder = task_folders(tmp_path / "files", 4, 3)
    for kind in ("depth", "normal"):
        for part in ("train", "val"):
            for file in (folder / part / kind).iterdir():
                array = np.load(file)
                array[10:20] = np.nan
                np.save(file, array)
    data = nyuv2(0, folder, **SIZE)
    check_data(data)
    batch = data.test.batch(torch.arange(3))
    assert not batch.valid["depth"][:, 10:20].any() and not batch.valid["normals"][:, 10:20].any()
    assert torch.isfinite(batch.targets["depth"]).all() and torch.isfinite(batch.targets["normals"]).all()


def test_pictures_that_are_grey_are_read_in_three_channels(tmp_path: Path) -> None:
    folder = nyud_mt(tmp_path / "files", 4, 3)
    file = folder / "images" / "train_0000.jpg"
    Image.open(file).convert("L").save(file)
    assert read(("NYUD_MT", folder))["image"].shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"classes": 20}, "`classes` must be 13 or 40"),
        ({"classes": 40}, r"the \.npy folders of NYU-v2 have 13 classes"),
        ({"height": 50}, "`height` must be a multiple of 8 from 16 on"),
        ({"unseen": ["edgs"]}, "did you mean 'edges'"),
        ({"unseen": ["edges", "depth", "normals", "segmentation"]}, "leave at least one to train"),
        ({"val": 40}, r"`train \+ val <= 40` must hold"),
        ({"test": 15}, r"`test <= 14` must hold"),
        ({"scales": [0.5]}, "at least 1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, problem: str, tmp_path: Path) -> None:
    folder = task_folders(tmp_path / "files")
    with pytest.raises(ConfigError, match=problem):
        nyuv2(0, folder, **({**SIZE} | arguments))


def test_a_folder_is_asked_for_and_must_be_one_of_nyu(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"say where its files are, --data-dir DIR"):
        nyuv2(0)
    with pytest.raises(DataError, match="is no folder on this machine"):
        nyuv2(0, tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no form of NYU-v2 known here: nyu_depth_v2_labeled\.mat"):
        nyuv2(0, tmp_path)
    prepare(source(task_folders(tmp_path / "files"), SIZE), tmp_path / "ready")
    with pytest.raises(
        ConfigError, match=r"was prepared with height=48, but got height=96: leave data\.args\.height"
    ):
        nyuv2(0, tmp_path / "ready", height=96)
