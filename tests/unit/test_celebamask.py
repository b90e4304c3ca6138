"""CelebAMask-HQ on small files in exactly the published form."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ms_automl.data import celebamask, check_data
from ms_automl.data.augmentation import View
from ms_automl.data.celebamask import ATTRIBUTES, PARTS, Decoder, source
from ms_automl.data.prepare import DamagedSourceError
from ms_automl.errors import ConfigError, DataError
from tests.made_files import FACES, NAMES_OF_ATTRIBUTES, faces

SIZE = {"size": 64}
TABLE, MAPPING = "CelebAMask-HQ-attribute-anno.txt", "CelebA-HQ-to-CelebA-mapping.txt"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MS_AUTOML_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faces(tmp_path_factory.mktemp("faces") / "CelebAMask-HQ")


def test_masks_become_nineteen_classes_in_which_later_parts_cover_earlier_ones(folder: Path) -> None:
    fields = source(folder, {"size": 128}).read("all", "4")
    assert fields["segmentation"].shape == (128, 128)
    expected = np.zeros((128, 128), dtype=np.uint8)
    for number, part in enumerate(PARTS[1:], 1):
        file = folder / "CelebAMask-HQ-mask-anno" / "0" / f"00004_{part}.png"
        if file.is_file():
            expected[np.asarray(Image.open(file))[..., 0] > 0] = number
    assert (fields["segmentation"] == expected).all()
    assert set(np.unique(fields["segmentation"])) == set(range(1, 19))


def test_a_part_without_a_file_is_not_in_the_picture(folder: Path) -> None:
    files = source(folder, SIZE)
    hat = PARTS.index("hat")
    assert [hat in np.unique(files.read("all", str(index))["segmentation"]) for index in range(5)] == [
        True, False, False, False, True
    ]  # fmt: skip


def test_attributes_and_indices_are_those_of_the_tables(folder: Path) -> None:
    lines = (folder / TABLE).read_text().splitlines()
    mapping = (folder / MAPPING).read_text().splitlines()
    files = source(folder, SIZE)
    for index in (0, 7, FACES - 1):
        fields = files.read("all", str(index))
        assert fields["attributes"].tolist() == [int(value == "1") for value in lines[2 + index].split()[1:]]
        assert int(fields["celeba"]) == int(mapping[1 + index].split()[1])
    names = [name.lower() for name in NAMES_OF_ATTRIBUTES.split()]
    assert [*ATTRIBUTES[1:]] == names[1:] and ATTRIBUTES[0] == "five_o_clock_shadow"


def test_the_official_split_goes_by_celebas_indices(folder: Path) -> None:
    data = celebamask(0, folder, **SIZE)
    check_data(data)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 30, "val": 15, "test": 15}
    table = (folder / TABLE).read_text().splitlines()[2:]
    male = NAMES_OF_ATTRIBUTES.split().index("Male")
    indices = {
        "train": [i for i in range(FACES) if i % 4 < 2],
        "val": range(2, FACES, 4),
        "test": range(3, FACES, 4),
    }
    for name, own in indices.items():
        found = data.splits[name].batch(torch.arange(len(own))).targets["male"]
        assert found.tolist() == [float(table[index].split()[1 + male] == "1") for index in own]


def test_the_random_split_is_seventy_and_twice_fifteen_percent(folder: Path) -> None:
    data = celebamask(1, folder, **SIZE, split="random")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 42, "val": 9, "test": 9}
    parts = [split.batch(torch.arange(len(split))).images.flatten(1) for split in data.splits.values()]
    assert len({tuple(image[:60].tolist()) for part in parts for image in part}) == FACES
    other = celebamask(2, folder, **SIZE, split="random")
    assert not torch.equal(other.test.batch(torch.arange(9)).images, data.test.batch(torch.arange(9)).images)


def test_tasks_and_unseen_tasks_are_those_asked_for(folder: Path) -> None:
    data = celebamask(0, folder, **SIZE, tasks=["segmentation", "bald"], unseen=["young"])
    check_data(data)
    assert [task.name for task in data.tasks] == ["segmentation", "bald"]
    assert [task.name for task in data.unseen_tasks] == ["young"]
    assert data.tasks[0].head.channels == 19


def test_left_and_right_change_names_in_a_mirror_image() -> None:
    classes = torch.arange(19, dtype=torch.uint8).reshape(1, 1, 19).repeat(2, 1, 1)
    rows = {
        "image": torch.zeros(2, 1, 19, 3, dtype=torch.uint8),
        "segmentation": classes,
        "attributes": torch.zeros(2, 40, dtype=torch.uint8),
    }
    out = Decoder().empty(2, {name: row.shape[1:] for name, row in rows.items()}, torch.device("cpu"))
    Decoder().decode(rows, [View(), View(flipped=True)], out)
    found = out.targets["segmentation"][:, 0]
    assert found[0].tolist() == list(range(19))
    names = [PARTS[index] for index in found[1].tolist()]
    swapped = {"l_eye": "r_eye", "l_brow": "r_brow", "l_ear": "r_ear"}
    swapped |= {right: left for left, right in swapped.items()}
    assert names == [swapped.get(part, part) for part in PARTS]


def test_every_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    folder = faces(tmp_path / "files", 8)
    (folder / "CelebA-HQ-img" / "3.jpg").unlink()
    image = folder / "CelebA-HQ-img" / "5.jpg"
    image.write_bytes(image.read_bytes()[:300])
    mask = folder / "CelebAMask-HQ-mask-anno" / "0" / "00006_nose.png"
    mask.write_bytes(mask.read_bytes()[:60])
    for file in (folder / "CelebAMask-HQ-mask-anno" / "0").glob("00007_*.png"):
        file.unlink()
    with pytest.raises(DamagedSourceError) as info:
        celebamask(0, folder, **SIZE)
    problems = "\n".join(info.value.problems)
    for problem in (
        "3.jpg is missing",
        "5.jpg is damaged",
        "00006_nose.png is damaged",
        "00007_*.png are missing",
    ):
        assert problem in problems
    assert len(info.value.problems) == 4


@pytest.mark.parametrize("missing", ["CelebA-HQ-img", "CelebAMask-HQ-mask-anno", TABLE, MAPPING])
def test_what_is_missing_of_the_published_folders_is_named(missing: str, tmp_path: Path) -> None:
    folder = faces(tmp_path / "files", 4)
    (folder / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=rf"is not CelebAMask-HQ as it is published: {missing} is missing"):
        celebamask(0, folder, **SIZE)


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        (TABLE, "Bald", "Hairless", "its second line must name CelebA's 40 attributes"),
        (TABLE, r"2\.jpg  -?1 ", "2.jpg  7 ", "the line of 2.jpg must hold 40 times 1 or -1"),
        (TABLE, "8\n5_o", "9\n5_o", "promises 9 lines and has 8"),
        (MAPPING, "7       ", "70      ", "has no line for 7"),
        (MAPPING, "160000", "many  ", "is damaged"),
    ],
)
def test_a_table_that_is_not_what_it_should_be_is_refused(
    file: str, old: str, new: str, problem: str, tmp_path: Path
) -> None:
    folder = faces(tmp_path / "files", 8)
    text = (folder / file).read_text()
    changed = re.sub(old, new, text)
    assert changed != text
    (folder / file).write_text(changed)
    with pytest.raises(DataError, match=problem):
        celebamask(0, folder, **SIZE)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"size": 20}, "`size` must be a multiple of 8 from 16 to 512"),
        ({"size": 520}, "`size` must be a multiple of 8 from 16 to 512"),
        ({"split": "offical"}, "did you mean 'official'"),
        ({"tasks": ["segmentation", "smile"]}, "did you mean 'smiling'"),
        ({"train": 31}, "`train <= 30` must hold for these files"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, problem: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        celebamask(0, folder, **(SIZE | arguments))


def test_it_is_prepared_once(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    celebamask(0, folder, **SIZE)
    assert "preparing celebamask in" in capsys.readouterr().err
    (made,) = (tmp_path / "cache").iterdir()
    assert json.loads((made / "manifest.json").read_text())["arguments"] == {"size": 64}
    celebamask(1, folder, **SIZE)
    assert capsys.readouterr().err == ""
