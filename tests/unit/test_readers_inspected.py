"""Every sample that a reader of one's own gives is looked at, and nothing changes by that."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from ms_automl.data import Batch, inspect, streamed
from ms_automl.errors import DataError
from tests.unit.made_data import COUNTS, data_of, good


class Reader:
    """A split that reads one sample after the other, of which some are not as others are."""

    def __init__(self, split, change=lambda index, batch: batch):
        self.split, self.change, self.most = split, change, 0

    def __len__(self):
        return len(self.split)

    def batch(self, indices):
        self.most = max(self.most, len(indices))
        parts = [self.change(index, self.split.batch(torch.tensor([index]))) for index in indices.tolist()]
        names = parts[0].targets
        return Batch(
            torch.cat([part.images for part in parts]),
            {name: torch.cat([part.targets[name] for part in parts]) for name in names},
            {name: torch.cat([part.valid[name] for part in parts]) for name in names},
        )


def broken(index, batch):
    if index == 9:
        raise OSError("image file is truncated")
    return batch


def smaller(index, batch):
    return Batch(batch.images[..., :3], batch.targets, batch.valid) if index == 9 else batch


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken, r"sample 9 cannot be read \(OSError: image file is truncated\)"),
        (smaller, r"samples 0 to \d+ can be read one by one and not together|images have shape"),
    ],
)
@pytest.mark.parametrize("split", COUNTS)
def test_a_sample_that_cannot_be_read_is_named(split, change, message):
    data = data_of(good())
    data = replace(data, **{split: Reader(getattr(data, split), change)})
    with pytest.raises(DataError, match=f"^{split}: {message}"):
        inspect(data)


class Changing:
    """Batches of the first samples are as they should be, of sample 9 on they are not."""

    def __init__(self, split, change):
        self.split, self.change = split, change

    def __len__(self):
        return len(self.split)

    def batch(self, indices):
        batch = self.split.batch(indices)
        return self.change(batch) if 9 in indices else batch


def with_target(name, change):
    def changed(batch):
        return Batch(batch.images, dict(batch.targets) | {name: change(batch.targets[name])}, batch.valid)

    return changed


SHAPES = {
    "images of another size": (lambda b: Batch(b.images[..., 1:], b.targets, b.valid), "images have shape"),
    "images of bytes": (lambda b: Batch(b.images.byte(), b.targets, b.valid), "images must be float32, but are"),
    "images in numpy": (lambda b: Batch(b.images.numpy(), b.targets, b.valid), "images are a ndarray"),
    "an image too few": (lambda b: Batch(b.images[1:], b.targets, b.valid), r"images came where \d+ were asked"),
    "classes of another type": (with_target("kind", lambda t: t.int()), "'kind'.*target is torch.int32"),
    "flags of another type": (with_target("large", lambda t: t.bool()), "'large'.*target is torch.bool"),
    "a target in numpy": (with_target("metres", lambda t: t.numpy()), "'metres'.*target is a ndarray"),
    "no target": (lambda b: Batch(b.images, {"kind": b.targets["kind"]}, b.valid), "no target of that name"),
    "a mask of numbers": (
        lambda b: Batch(b.images, b.targets, {k: v.float() for k, v in b.valid.items()}), "valid is torch.float32",
    ),
    "no mask": (lambda b: Batch(b.images, b.targets, {}), "the split gives no validity mask"),
}  # fmt: skip


@pytest.mark.parametrize("fault", SHAPES)
@pytest.mark.parametrize("split", COUNTS)
def test_shapes_and_types_of_every_batch_are_looked_at(split, fault, monkeypatch):
    monkeypatch.setattr("ms_automl.data.streaming._MOST", 4)
    change, message = SHAPES[fault]
    data = data_of(good())
    data = replace(data, **{split: Changing(getattr(data, split), change)})
    with pytest.raises(DataError, match=f"^{split}.*{message}") as error:
        inspect(data)
    assert ", from sample 8 on: " in str(error.value)


class Augmented(Reader):
    def augmented(self, indices, seed):
        assert seed == 0
        return self.change(int(indices[-1]), self.split.batch(indices))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, b: Batch(b.images[..., 1:], b.targets, b.valid), "images have shape"),
        (lambda i, b: Batch(b.images / 0, b.targets, b.valid), "images hold NaN or infinite values"),
        (lambda i, b: with_target("areas", lambda t: t + 252)(b), "task 'areas': class numbers 25"),
        (lambda i, b: 1 / 0, r"sample 0 cannot be read \(ZeroDivisionError"),
    ],
)
def test_training_samples_are_looked_at_as_they_are_augmented_too(change, message):
    data = data_of(good())
    train = Augmented(data.train, change)
    train.batch = data.train.batch
    with pytest.raises(DataError, match=f"^augmented train.*{message}"):
        inspect(replace(data, train=train))


def test_a_split_is_read_once_in_batches_that_fit_the_memory_and_progress_is_told(monkeypatch):
    splits = good()
    data, told = data_of(splits), []
    sample = sum(
        tensor[0].nbytes for tensor in (splits["val"][0], *splits["val"][1].values(), *splits["val"][2].values())
    )
    monkeypatch.setattr("ms_automl.data.streaming._BYTES", 5 * sample)
    reader = Reader(data.val)
    assert [samples for samples, _ in streamed(reader, "val")] == [range(0, 5), range(5, 10), range(10, 12)]
    assert reader.most == 5
    inspect(data, lambda *what: told.append(what))
    assert [one for one in told if one[0] == "val"] == [("val", 5, 12), ("val", 10, 12), ("val", 12, 12)]
    assert {name: done for name, done, _ in told} == COUNTS


def drawing(index, batch):
    torch.rand(1), np.random.rand(), random.random()
    return batch


def test_looking_changes_no_random_number():
    data = data_of(good())
    data = replace(data, train=Reader(data.train, drawing))
    draws = []
    for looks in (False, True):
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        if looks:
            inspect(data)
        draws.append((torch.rand(1).item(), np.random.rand(), random.random()))
    assert draws[0] == draws[1]


def noisy(index, batch):
    return replace(batch, images=batch.images + torch.randn(batch.images.shape))


def relabelled(index, batch):
    return replace(batch, targets=batch.targets | {"metres": batch.targets["metres"] + torch.rand(())})


@pytest.mark.parametrize(("change", "what"), [(noisy, "the image"), (relabelled, "the target of 'metres'")])
@pytest.mark.parametrize("split", COUNTS)
def test_what_is_measured_is_the_same_when_it_is_read_again(split, change, what):
    data = data_of(good())
    data = replace(data, **{split: Reader(getattr(data, split), change)})
    if split == "train":
        inspect(data)  # as a reader that augments by itself
        return
    with pytest.raises(DataError, match=f"^{split}: {what} in sample 0 is another one when it is read"):
        inspect(data)


@pytest.mark.parametrize("group", ["tasks", "unseen_tasks"])
@pytest.mark.parametrize(
    "make", [lambda tasks: {task.name: task for task in tasks}, iter, lambda tasks: [task.name for task in tasks]]
)
def test_tasks_are_a_list_of_tasks(group, make):
    data = data_of(good())
    with pytest.raises(DataError, match=f"^`{group}` must be a list of Task, but is a "):
        inspect(replace(data, **{group: make(getattr(data, group))}))
