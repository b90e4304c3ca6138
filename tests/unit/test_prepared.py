"""The prepared form: made once, gone on with after a stop, checked, read at random."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ms_automl.data.augmentation import Augmentation
from ms_automl.data.cache import Arrays
from ms_automl.data.prepare import DamagedSourceError, prepare
from ms_automl.data.prepared import SHARD, Prepared, PreparedSplit
from ms_automl.data.splits import Batch
from ms_automl.errors import DataError

SIZE = 4


class Numbers:
    """A data set whose samples say which ones they are."""

    name = "numbers"
    layout = "made"

    def __init__(self, train: int = 300, test: int = 5, **arguments: int) -> None:
        self.arguments = arguments
        self.parts = {"train": [str(i) for i in range(train)], "test": [str(i) for i in range(test)]}
        self.bad: set[str] = set()
        self.reads: list[str] = []
        self.stop_at: str | None = None

    def check(self, part: str, sample: str) -> Iterator[str]:
        if sample in self.bad:
            yield f"{part}/{sample}.npy is missing"

    def read(self, part: str, sample: str) -> Arrays:
        if sample == self.stop_at:
            raise KeyboardInterrupt
        self.reads.append(sample)
        number = int(sample)
        return {
            "image": np.full((SIZE, SIZE, 3), number % 256, dtype=np.uint8),
            "label": np.full((SIZE, SIZE), number, dtype=np.int16),
            "number": np.array(number, dtype=np.int32),
        }


class Decoder:
    def empty(self, count, shapes, device) -> Batch:
        targets = {"number": torch.empty(count, dtype=torch.int32), "scale": torch.empty(count)}
        return Batch(torch.empty(count, *shapes["image"]), targets, {})

    def decode(self, rows, views, out) -> None:
        out.images.copy_(rows["image"])
        out.targets["number"].copy_(rows["number"])
        out.targets["scale"].copy_(torch.tensor([view.scale for view in views]))


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_samples_come_back_in_the_order_asked_for_whatever_the_shard(tmp_path: Path) -> None:
    prepared = prepare(Numbers(), tmp_path / "out")
    assert (prepared.count("train"), prepared.count("test")) == (300, 5)
    assert len(prepared.fields("train")) == -(-300 // SHARD)
    assert prepared.samples("test") == ["0", "1", "2", "3", "4"]
    indices = np.array([299, 0, SHARD, SHARD - 1, 256])
    for threads in (1, 3):
        split = PreparedSplit(prepared, "train", indices, Decoder(), threads=threads)
        assert len(split) == 5
        batch = split.batch(torch.tensor([4, 0, 2, 0]))
        assert batch.targets["number"].tolist() == [256, 299, SHARD, 299]
        assert batch.images[:, 0, 0, 0].tolist() == [0, 43, SHARD, 43]


def test_an_augmented_batch_is_fixed_by_its_seed_and_a_plain_one_shows_the_samples(tmp_path: Path) -> None:
    prepared = prepare(Numbers(), tmp_path / "out")
    split = PreparedSplit(prepared, "train", np.arange(300), Decoder(), Augmentation((1.0, 2.0)))
    indices = torch.arange(64)
    scales = split.augmented(indices, 7).targets["scale"]
    assert set(scales.tolist()) == {1.0, 2.0}
    assert torch.equal(split.augmented(indices, 7).targets["scale"], scales)
    assert not torch.equal(split.augmented(indices, 8).targets["scale"], scales)
    assert set(split.batch(indices).targets["scale"].tolist()) == {1.0}


def test_a_second_preparation_reads_nothing_and_changes_nothing(tmp_path: Path) -> None:
    prepare(Numbers(size=3), tmp_path / "out")
    before, again = content(tmp_path / "out"), Numbers(size=3)
    again.bad = {"1"}  # even what is missing by now is not needed any more
    prepare(again, tmp_path / "out")
    assert again.reads == []
    assert content(tmp_path / "out") == before


def test_a_preparation_that_was_stopped_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    stopped = Numbers()
    stopped.stop_at = "200"
    with pytest.raises(KeyboardInterrupt):
        prepare(stopped, tmp_path / "out")
    with pytest.raises(DataError, match=r"is not finished: start its 'prepare' again"):
        Prepared(tmp_path / "out")
    rest = Numbers()
    prepare(rest, tmp_path / "out")
    assert "0" not in rest.reads[: 300 - SHARD]  # of the train part only what the first run had not written
    assert len(rest.reads) == 300 - SHARD + 5
    prepare(Numbers(), tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_shard_that_was_damaged_before_the_end_is_written_again(tmp_path: Path) -> None:
    stopped = Numbers()
    stopped.stop_at = "200"
    with pytest.raises(KeyboardInterrupt):
        prepare(stopped, tmp_path / "out")
    (tmp_path / "out" / "train" / "00000.image.npy").write_bytes(b"half")
    prepare(Numbers(), tmp_path / "out")
    assert Prepared(tmp_path / "out").damaged() == []


def test_every_missing_file_is_named_before_anything_is_written(tmp_path: Path) -> None:
    source = Numbers()
    source.bad = {"2", "4"}
    with pytest.raises(
        DamagedSourceError, match=r"train/2\.npy is missing, and 3 more; nothing was written"
    ) as info:
        prepare(source, tmp_path / "out")
    names = ["train/2", "train/4", "test/2", "test/4"]
    assert info.value.problems == [f"{name}.npy is missing" for name in names]
    assert not (tmp_path / "out").exists()


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    prepared = prepare(Numbers(), tmp_path / "out")
    assert prepared.damaged() == []
    file = tmp_path / "out" / "test" / "00000.label.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert Prepared(tmp_path / "out").damaged() == [file]


@pytest.mark.parametrize("change", ["shorter", "gone"])
def test_a_file_of_another_length_is_found_when_it_is_opened(change: str, tmp_path: Path) -> None:
    prepare(Numbers(), tmp_path / "out")
    file = tmp_path / "out" / "train" / "00001.image.npy"
    file.write_bytes(file.read_bytes()[:-1]) if change == "shorter" else file.unlink()
    with pytest.raises(DataError, match=r"00001\.image\.npy (is missing|has \d+ bytes instead of \d+): prepare"):
        Prepared(tmp_path / "out")


def test_another_folder_is_asked_for_where_something_else_lies(tmp_path: Path) -> None:
    prepare(Numbers(size=3), tmp_path / "out")
    with pytest.raises(
        DataError, match=r"was prepared with arguments \{'size': 3\}, not \{'size': 4\}: take another"
    ):
        prepare(Numbers(size=4), tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(DataError, match="is not empty and holds no prepared data set: take another folder"):
        prepare(Numbers(), tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 99}'])
def test_a_manifest_that_cannot_be_read_is_said_to_be_so(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json (cannot be read|is of format 99, this version reads 1)"):
        Prepared(tmp_path)
    with pytest.raises(DataError, match="holds no manifest"):
        Prepared(tmp_path / "nowhere")


def test_the_manifest_says_what_the_data_was_made_from(tmp_path: Path) -> None:
    prepare(Numbers(size=3), tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert {key: manifest[key] for key in ("format", "name", "layout", "arguments", "complete")} == {
        "format": 1, "name": "numbers", "layout": "made", "arguments": {"size": 3}, "complete": True
    }  # fmt: skip
