"""Samples as torch's data sets have them, and data made of them."""

import torch
from torch.utils.data import (
    Dataset,
    IterableDataset,
)

from ms_automl.data import MultiTaskData
from ms_automl.tasks import (
    binary,
    classification,
)

KIND, LARGE = classification("kind", 3), binary("large")
DRAWN = torch.Generator().manual_seed(0)
IMAGES = torch.rand(12, 3, 5, 7, generator=DRAWN)


class Samples(Dataset):
    """A function of the index as a data set."""

    def __init__(self, sample, count=12):
        self.sample, self.count = sample, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.sample(index)


class Stream(IterableDataset):
    def __init__(self, samples):
        self.samples = samples

    def __iter__(self):
        return iter(self.samples)


def named(index):
    return IMAGES[index], {"kind": index % 3, "large": float(index % 2)}


def data_of(train, tasks=(KIND, LARGE), val=None, **more):
    given = Samples(named) if val is None else val
    return MultiTaskData("made", train, given, given, tasks, **more)


def whole(split):
    return split.batch(torch.arange(len(split)))


def same(batch, other):
    assert torch.equal(batch.images, other.images)
    for kind in ("targets", "valid"):
        mine, theirs = getattr(batch, kind), getattr(other, kind)
        assert mine.keys() == theirs.keys()
        assert all(
            torch.equal(mine[name], theirs[name]) and mine[name].dtype == theirs[name].dtype for name in mine
        )
