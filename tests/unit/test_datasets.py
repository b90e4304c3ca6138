"""Data as torch has it, straight into a comparison's data."""

import random
import re

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    random_split,
)

from ms_automl.data import MultiTaskData, TensorSplit, check_data, inspect, on_device, training_batch
from ms_automl.data.datasets import DatasetSplit
from ms_automl.data.splits import sets_random_state
from ms_automl.errors import DataError
from ms_automl.training.feed import Feed
from tests.unit.made_samples import IMAGES, KIND, LARGE, Samples, Stream, data_of, named, same, whole

# ---- forms of a data set and of a sample ----------------------------------------------------------------

FORMS = {
    "(image, {task: target})": lambda: Samples(named),
    "(image, target, target)": lambda: Samples(lambda i: (IMAGES[i], i % 3, float(i % 2))),
    "(image, (target, target))": lambda: Samples(lambda i: (IMAGES[i], (i % 3, float(i % 2)))),
    "a mapping": lambda: Samples(
        lambda i: {"image": IMAGES[i], "large": i % 2 == 1, "kind": np.int32(i % 3), "id": "x"}
    ),
    "a TensorDataset": lambda: TensorDataset(IMAGES, torch.arange(12) % 3, (torch.arange(12) % 2).float()),
    "a list": lambda: [named(i) for i in range(12)],
    "a stream": lambda: Stream([named(i) for i in range(12)]),
    "a generator": lambda: (named(i) for i in range(12)),
    "a loader": lambda: DataLoader(Samples(named), batch_size=5, shuffle=True, drop_last=True),
    "a loader of a stream": lambda: DataLoader(Stream([named(i) for i in range(12)]), batch_size=5),
    "a loader with a collate function": lambda: DataLoader(
        Samples(lambda i: {"x": IMAGES[i], "y": i}), batch_size=5, collate_fn=gathered
    ),
    "a loader of some samples": lambda: DataLoader(
        Samples(lambda i: named(i - 20), 32), sampler=SubsetRandomSampler(range(20, 32))
    ),
    "a loader with such batches": lambda: DataLoader(
        Samples(lambda i: named(i - 20), 32),
        batch_sampler=BatchSampler(SubsetRandomSampler(range(20, 32)), 5, True),
    ),
    "a loader that makes no batches": lambda: DataLoader(
        Samples(lambda i: i), batch_size=None, collate_fn=lambda i: named(i)
    ),
    "a loader that zips": lambda: DataLoader(
        Samples(named), 4, collate_fn=lambda parts: tuple(zip(*parts, strict=True))
    ),
    "a loader with torch's own collate": lambda: DataLoader(
        Samples(lambda i: (IMAGES[i], i % 3, float(i % 2))), 4, collate_fn=lambda parts: default_collate(parts)
    ),
    "a stream that writes over its samples": lambda: written_over(),
    "a data set that does": lambda: Shared(),
    "some samples": lambda: Subset(Samples(lambda i: named(i - 4), 32), list(range(4, 16))),
    "one after the other": lambda: ConcatDataset([Samples(named, 5), Samples(lambda i: named(i + 5), 7)]),
}


def written_over():
    image = torch.zeros(3, 5, 7)
    for index in range(12):
        yield image.copy_(IMAGES[index]), index % 3, float(index % 2)


class Shared(Dataset):
    image = torch.zeros(3, 5, 7)

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return self.image.copy_(IMAGES[index]), index % 3, float(index % 2)


def gathered(samples):
    indices = torch.tensor([sample["y"] for sample in samples])
    return torch.stack([sample["x"] for sample in samples]), {"kind": indices % 3, "large": (indices % 2).float()}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_samples_come_out_of_every_form(form):
    data = data_of(FORMS[form]())
    assert inspect(data) == ()
    same(whole(data.train), whole(data_of(Samples(named)).train))
    order = torch.tensor([7, 2, 11])
    same(data.train.batch(order), data.val.batch(order))
    assert whole(data.train).targets["kind"].tolist() == [i % 3 for i in range(12)]


def test_random_parts_of_one_data_set_are_splits():
    parts = random_split(Samples(named), [6, 3, 3], torch.Generator().manual_seed(1))
    data = MultiTaskData("made", *parts, [KIND, LARGE])
    assert [len(split) for split in data.splits.values()] == [6, 3, 3]
    check_data(data)


def test_a_single_task_has_its_target_behind_the_image():
    data = data_of([(IMAGES[i], i % 3) for i in range(12)], [KIND], [(IMAGES[i], [i % 3]) for i in range(12)])
    same(whole(data.train), whole(data.val))


def test_held_back_tasks_have_labels_in_the_same_samples():
    data = data_of(Samples(lambda i: (IMAGES[i], i % 3, float(i % 2))), [KIND], unseen_tasks=[LARGE])
    assert inspect(data) == ()
    assert whole(data.train).valid["large"].all()


# ---- several data sets with tasks of their own ----------------------------------------------------------


def test_data_sets_with_different_tasks_follow_each_other_and_label_their_own_alone():
    digits = TensorDataset(IMAGES[:7], torch.arange(7) % 3)
    sizes = [(IMAGES[i], {"large": float(i % 2), "kind": 0}) for i in range(7, 12)]  # its `kind` is another one
    data = data_of({"kind": digits, "large": sizes})
    batch = whole(data.train)
    assert torch.equal(batch.images, IMAGES)
    assert batch.valid["kind"].tolist() == [True] * 7 + [False] * 5
    assert batch.valid["large"].tolist() == [False] * 7 + [True] * 5
    order = torch.tensor([11, 0, 8, 3, 3])
    some = data.train.batch(order)
    assert torch.equal(some.images, IMAGES[order])
    assert torch.equal(some.targets["kind"], batch.targets["kind"][order])
    assert torch.equal(some.valid["large"], batch.valid["large"][order])
    assert inspect(data) == ()


def test_a_data_set_may_be_of_several_tasks():
    both = [(IMAGES[i], i % 3, float(i % 2)) for i in range(6)]
    data = data_of({("kind", "large"): both, "large": [(IMAGES[i], float(i % 2)) for i in range(6, 12)]})
    assert whole(data.train).valid["kind"].sum() == 6 and whole(data.train).valid["large"].all()


# ---- what is drawn at random ----------------------------------------------------------------------------


def shaken(index):
    noise = torch.rand(()) + np.random.rand() + random.random()
    return IMAGES[index] + noise, index % 3, float(index % 2)


def test_random_changes_follow_from_seed_and_index_and_leave_the_process_as_it_was():
    split = data_of(Samples(shaken)).train
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    order = torch.tensor([3, 8])
    once, again = (split.augmented(order, 5).images for _ in range(2))
    assert torch.equal(once, again)
    assert torch.equal(once[1:], split.augmented(torch.tensor([8]), 5).images)  # whatever it is read with
    assert not torch.equal(once, split.augmented(order, 6).images)
    assert not torch.equal(once, split.batch(order).images)
    assert torch.equal(split.batch(order).images, split.batch(order).images)
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[2]
    assert (np.random.get_state()[1] == states[1]).all()
    assert not torch.equal(once[0] - IMAGES[3], once[1] - IMAGES[8])
    assert inspect(data_of(Samples(shaken), val=Samples(shaken))) == ()


def test_samples_are_not_read_beside_a_training_whose_random_numbers_they_set():
    data = data_of(Samples(shaken))
    ahead = Feed(data.train, 4, seed=1, ahead=2)
    plain = Feed(data.train, 4, seed=1)
    assert ahead.ahead == 0
    for _ in range(4):
        assert torch.equal(ahead.next().images, plain.next().images)
    assert sets_random_state(on_device(data, torch.device("meta")).train)
    assert not sets_random_state(training_data().train)


def training_data():
    split = TensorSplit(IMAGES, {"kind": torch.arange(12) % 3, "large": (torch.arange(12) % 2).float()})
    return MultiTaskData("made", split, split, split, [KIND, LARGE])


def test_a_data_set_with_a_generator_of_its_own_is_refused():
    own = torch.Generator().manual_seed(0)
    with pytest.raises(DataError, match="split 'train': sample 0 is another one when it is read again with"):
        data_of(Samples(lambda i: (IMAGES[i] + torch.rand((), generator=own), i % 3, 0.0)))


@pytest.mark.parametrize("split", ["train", "val"])
def test_samples_that_change_further_on_are_seen_too(split):
    own = np.random.default_rng()
    rare = Samples(lambda i: (IMAGES[i] + (i > 6) * own.random(), i % 3, float(i % 2)))
    given = {"train": Samples(named), "val": Samples(named), split: rare}
    with pytest.raises(DataError, match=f"{split}: the image in sample [89] is another one when it is read again"):
        inspect(data_of(given["train"], val=given["val"]))


def test_augmented_is_what_a_training_asks_for():
    split = data_of(Samples(shaken)).train
    assert torch.equal(
        training_batch(split, torch.arange(3), 9).images, split.augmented(torch.arange(3), 9).images
    )


# ---- what is wrong --------------------------------------------------------------------------------------


def test_a_task_of_which_no_sample_has_a_label_is_refused():
    with pytest.raises(DataError, match="train, task 'large': no label of its 12 samples counts"):
        inspect(data_of(Samples(lambda i: (IMAGES[i], {"kind": i % 3, "size": 1.0}))))


class Fives(SequentialSampler):
    def __iter__(self):
        return iter([5, 5, 5])


class OwnLoader(DataLoader):
    def __iter__(self):
        return iter([])


def breaking():
    yield named(0)
    yield named(1)
    raise OSError("gone")


class Unsized(Dataset):
    def __getitem__(self, index):
        return named(index)


GIVEN = [
    (None, "split 'train' is a NoneType: give a torch Dataset or DataLoader"),
    (7, "split 'train' is a int: give a torch Dataset"),
    ("images/", "split 'train' is a str: give a torch Dataset"),
    (Unsized(), "split 'train' is a Unsized, and has no length (__len__): give"),
    (
        {"kind": [], "lage": []},
        "a data set is of the task 'lage', which there is none of: the tasks are kind",
    ),
    (
        DataLoader(Samples(named), sampler=WeightedRandomSampler([1.0] * 12, 12)),
        "split 'train' is a DataLoader whose WeightedRandomSampler chooses samples in a way of its own",
    ),
    (
        DataLoader(Samples(named), batch_sampler=[[0, 1]]),
        "split 'train' is a DataLoader whose list chooses samples",
    ),
    (
        DataLoader(Samples(named), batch_sampler=BatchSampler(WeightedRandomSampler([1.0] * 12, 12), 4, False)),
        "split 'train' is a DataLoader whose WeightedRandomSampler chooses samples in a way of its own",
    ),
    (
        DataLoader(Samples(named), sampler=SequentialSampler(range(5))),
        "split 'train' is a DataLoader whose SequentialSampler chooses samples in a way of its own",
    ),
    (
        DataLoader(Samples(named), sampler=Fives(range(12))),
        "split 'train' is a DataLoader whose Fives chooses samples in a way of its own",
    ),
    (OwnLoader(Samples(named)), "split 'train' is a OwnLoader, which gives batches of its own"),
    (Samples(lambda i: 1 / 0), "split 'train', sample 0 cannot be read (ZeroDivisionError: division by zero)"),
    (breaking(), "split 'train' cannot be read after 2 samples (OSError: gone)"),
    (
        {"kind": TensorSplit(IMAGES, {"kind": torch.arange(12) % 3})},
        "a mapping takes data sets of samples, but 'kind' has a TensorSplit",
    ),
    (
        {"kind": [(IMAGES[0], 1)], "large": [(IMAGES[0, :, :4], 1.0)]},
        "its data sets have images of shapes (3, 4, 7) and (3, 5, 7): bring them to one",
    ),
]


@pytest.mark.parametrize(("given", "said"), GIVEN)
def test_what_is_no_data_set_is_refused_in_one_line(given, said):
    with pytest.raises(DataError, match=re.escape(said)) as found:
        inspect(data_of(given))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("empty", [[], TensorDataset(IMAGES[:0], torch.arange(0), torch.rand(0)), {}])
def test_an_empty_split_is_refused(empty):
    with pytest.raises(DataError, match="split 'train' is empty"):
        check_data(data_of(empty))


def test_a_stream_without_an_end_is_refused(monkeypatch):
    monkeypatch.setattr("ms_automl.data.datasets.MOST", 2**20)
    endless = Stream(iter(lambda: (IMAGES[0], 1, 0.0), None))
    with pytest.raises(DataError, match="split 'train' is a stream of samples, which is kept in memory"):
        data_of(endless)


def test_a_reader_with_batch_is_taken_as_it_is_and_one_of_hugging_faces_is_read_by_index():
    class Theirs(Samples):
        def batch(self, batch_size, drop_last_batch=False):
            raise AssertionError("makes batches of that many samples")

    class Other(Samples):
        def batch(self, size):
            raise AssertionError("makes batches of that size")

    split = data_of(Samples(named)).train
    assert data_of(split).train is split
    for theirs in (Theirs, Other):
        assert isinstance(data_of(theirs(named)).train, DatasetSplit)
