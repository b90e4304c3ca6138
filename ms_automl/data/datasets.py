"""Torch's data sets as splits: Datasets, DataLoaders, sequences and streams of samples.

A sample is ``(image, {task: target})``, ``(image, target, ...)`` with the targets in the order of the tasks, or a
mapping with ``image`` and the targets by task; ``(image, {task: target}, {task: valid})`` says which labels count.
What an image and a target may be: :mod:`ms_automl.data.samples`.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    default_collate,
    default_convert,
)

from ms_automl.data.samples import Sample, sample_of
from ms_automl.data.splits import Batch, Split, TensorSplit
from ms_automl.data.streaming import same_random_state
from ms_automl.errors import DataError, MsAutomlError
from ms_automl.tasks import Task

MOST = 4 * 2**30
"""Bytes of a stream of samples that are kept in memory, at the most."""

Read = Callable[[int], Any]
"""Reads the sample of an index, in whatever form it has."""


def as_split(name: str, given: Any, tasks: Sequence[Task]) -> Split:
    """What was given for a split, as a split.

    Args:
        name: of the split, for errors.
        given: a split; a map-style Dataset or any sequence of samples; a DataLoader, whose data set is taken; an
            IterableDataset or any other stream, which is read once, into memory; or a mapping from a task, or
            several, to such a set whose samples have labels of these alone.
        tasks: all of them, in order.

    Raises:
        DataError: for anything else, and for a sample that is none.
    """
    if isinstance(given, TensorSplit):
        return _with_masks(given, tasks)
    if _is_split(given):
        return given  # type: ignore[no-any-return]
    if isinstance(given, Mapping):
        return _Joined(name, _parts(name, given, tasks))
    return _split(name, given, tasks, [task.name for task in tasks])


def _is_split(given: Any) -> bool:
    batch = getattr(given, "batch", None)
    if not callable(batch) or not hasattr(given, "__len__"):
        return False
    try:
        first = next(iter(inspect.signature(batch).parameters), "")
    except (TypeError, ValueError):  # a callable without a signature
        first = ""
    # A Dataset may have a method of that name for something else, as Hugging Face's do.
    return first == "indices" if isinstance(given, Dataset) else first != "batch_size"


def _with_masks(split: TensorSplit, tasks: Sequence[Task]) -> TensorSplit:
    """A split in memory whose labels all count, one by one where a task's labels do."""
    single = [task.name for task in tasks if task.per_channel]
    lacking = [name for name in single if name in split.targets and name not in split.valid]
    every = {name: torch.ones((), dtype=torch.bool).expand(split.targets[name].shape) for name in lacking}
    return TensorSplit(split.images, split.targets, split.valid | every) if every else split


def _parts(name: str, given: Mapping[Any, Any], tasks: Sequence[Task]) -> list[Split]:
    known = [task.name for task in tasks]
    parts: list[Split] = []
    for key, dataset in given.items():
        names = [key] if isinstance(key, str) else list(key) if isinstance(key, tuple) else [key]
        if unknown := [one for one in names if one not in known]:
            raise DataError(
                f"split '{name}': a data set is of the task {unknown[0]!r}, which there is none of: the tasks are "
                f"{', '.join(known)}"
            )
        if _is_split(dataset):
            raise DataError(
                f"split '{name}': a mapping takes data sets of samples, but {key!r} has a "
                f"{type(dataset).__name__}: give a torch.utils.data.TensorDataset, or put all into one split"
            )
        parts.append(_split(name, dataset, tasks, names))
    return parts


def _split(name: str, given: Any, tasks: Sequence[Task], labelled: Sequence[str]) -> DatasetSplit:
    read, count = _reader(name, given)
    return DatasetSplit(name, read, count, tasks, labelled)


def _reader(name: str, given: Any) -> tuple[Read, int]:
    """How to read a sample of what was given, and how many there are."""
    if isinstance(given, DataLoader):
        return _of_loader(name, given)
    streams = isinstance(given, IterableDataset) or not hasattr(given, "__getitem__")
    if streams and isinstance(given, Iterable) and not isinstance(given, str | bytes):
        return _of_stream(name, given)
    if streams or isinstance(given, str | bytes) or not hasattr(given, "__len__"):
        lacks = "" if streams or isinstance(given, str | bytes) else ", and has no length (__len__)"
        raise DataError(
            f"split '{name}' is a {type(given).__name__}{lacks}: give a torch Dataset or DataLoader, a sequence "
            "of samples, a TensorSplit, or what has len() and batch(indices)"
        )
    return given.__getitem__, len(given)


def _of_loader(name: str, loader: DataLoader[Any]) -> tuple[Read, int]:
    if type(loader).__iter__ is not DataLoader.__iter__:
        raise DataError(
            f"split '{name}' is a {type(loader).__name__}, which gives batches of its own, and batches are drawn "
            "here: give its data set"
        )
    read, count = _reader(name, loader.dataset)
    collate, batches = loader.collate_fn, loader.batch_sampler
    if batches is None and collate is not default_convert:
        whole = read
        read = lambda index: collate(whole(index))  # noqa: E731
    elif batches is not None and collate is not default_collate:
        read = _collated(read, collate)
    if isinstance(loader.dataset, IterableDataset):
        return read, count
    if type(batches) not in (BatchSampler, type(None)):
        raise _own_choice(name, batches)
    sampler = batches.sampler if isinstance(batches, BatchSampler) else loader.sampler
    if type(sampler) is SubsetRandomSampler:
        indices = [int(index) for index in sampler.indices]
        some = read
        return lambda index: some(indices[index]), len(indices)
    if type(sampler) is RandomSampler and (sampler.replacement or sampler.num_samples != count):
        raise _own_choice(name, sampler)
    if type(sampler) not in (SequentialSampler, RandomSampler) or len(sampler.data_source) != count:  # type: ignore
        raise _own_choice(name, sampler)
    return read, count


def _own_choice(name: str, sampler: object) -> DataError:
    return DataError(
        f"split '{name}' is a DataLoader whose {type(sampler).__name__} chooses samples in a way of its own, and "
        "batches are drawn here: give its data set, or a torch.utils.data.Subset of it"
    )


def _collated(read: Read, collate: Callable[[list[Any]], Any]) -> Read:
    """The sample in a batch of one, as a collate function makes it: image and targets each lose a dimension."""

    def one(value: Any, *, top: bool = False) -> Any:
        if isinstance(value, Mapping):
            return {key: one(part) for key, part in value.items()}
        if isinstance(value, tuple | list):
            return value[0] if len(value) == 1 and not top else [one(part) for part in value]
        if isinstance(value, Tensor | np.ndarray):
            return value[0] if value.ndim else value
        return value

    return lambda index: one(collate([read(index)]), top=True)


def _of_stream(name: str, stream: Iterable[Any]) -> tuple[Read, int]:
    samples: list[Any] = []
    size = 0
    with same_random_state():
        _seed(0)
        try:
            for sample in stream:
                samples.append(_kept(sample))
                size += _bytes(sample)
                if size > MOST:
                    break
        except MsAutomlError:
            raise
        except Exception as error:  # whatever a reader of the user's own raises
            what = f"{type(error).__name__}: {error}"
            raise DataError(f"split '{name}' cannot be read after {len(samples)} samples ({what})") from error
    if size > MOST:
        raise DataError(
            f"split '{name}' is a stream of samples, which is kept in memory, and there are more than "
            f"{MOST // 2**30} GiB of them: give a data set with an index (__getitem__ and __len__)"
        )
    return samples.__getitem__, len(samples)


def _kept(value: Any) -> Any:
    """A sample that its stream does not write over."""
    if isinstance(value, Mapping):
        return {key: _kept(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_kept(part) for part in value]
    if isinstance(value, Tensor):
        return value.detach().clone()
    return value.copy() if isinstance(value, np.ndarray) else value


def _bytes(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(map(_bytes, value.values()))
    if isinstance(value, tuple | list):
        return sum(map(_bytes, value))
    if hasattr(value, "getbands"):  # an image of PIL's
        return int(value.width * value.height * len(value.getbands()))
    return int(getattr(value, "nbytes", 64))


class DatasetSplit:
    """A data set as a split.

    What samples draw at random, from the random numbers of torch, numpy or Python, follows from the seed and the
    sample's index alone: ``batch`` gives the same each time, ``augmented`` what its seed says.

    Args:
        name: of the split, for errors.
        read: gives the sample of an index.
        count: how many there are.
        tasks: all of them.
        labelled: names of the tasks that samples have targets of, in the order in which they stand.

    Raises:
        DataError: where the first sample is none, or is another one when it is read again.
    """

    random = True  # it sets the process's random numbers: to be read by nobody else while a network trains

    def __init__(self, name: str, read: Read, count: int, tasks: Sequence[Task], labelled: Sequence[str]) -> None:
        self.name, self.read, self.count = name, read, count
        self.tasks, self.labelled = tuple(tasks), tuple(labelled)
        self.shape: tuple[int, ...] | None = None
        if count:
            first, again = (self._batch(torch.zeros(1, dtype=torch.int64), 0) for _ in range(2))
            self.shape = tuple(first.images.shape[1:])
            if not _same(first, again):
                raise DataError(
                    f"split '{name}': sample 0 is another one when it is read again with the same seed: have the "
                    "data set draw from the random numbers of torch, numpy or Python, and from no generator of "
                    "its own"
                )

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Tensor) -> Batch:
        """The samples at ``indices``, an int64 tensor of shape [B]."""
        return self._batch(indices, 0)

    def augmented(self, indices: Tensor, seed: int) -> Batch:
        """The samples at ``indices``, with what they draw at random as ``seed`` says."""
        return self._batch(indices, seed + 1)

    def _batch(self, indices: Tensor, seed: int) -> Batch:
        with same_random_state():
            samples = [self._sample(index, seed) for index in indices.tolist()]
        images = torch.stack([sample.image for sample in samples])
        names = [task.name for task in self.tasks]
        targets = {name: torch.stack([sample.targets[name] for sample in samples]) for name in names}
        valid = {name: torch.stack([sample.valid[name] for sample in samples]) for name in names}
        return Batch(images, targets, valid)

    def _sample(self, index: int, seed: int) -> Sample:
        _seed(seed * 1_000_003 + index)
        where = f"split '{self.name}', sample {index}"
        try:
            sample = sample_of(self.read(index), self.tasks, self.labelled)
        except MsAutomlError as error:
            raise DataError(f"{where}: {error}") from error
        except Exception as error:  # whatever a data set of the user's own raises
            raise DataError(f"{where} cannot be read ({type(error).__name__}: {error})") from error
        shape = tuple(sample.image.shape)
        if self.shape is not None and shape != self.shape:
            raise DataError(
                f"{where}: its image has shape {shape}, that of sample 0 has "
                f"{self.shape}: bring images to one size and number of channels in the data set"
            )
        return sample


class _Joined:
    """Data sets one after the other, each with labels of tasks of its own.

    Args:
        name: of the split, for errors.
        parts: the data sets.
    """

    random = True

    def __init__(self, name: str, parts: Sequence[Split]) -> None:
        self.name, self.parts = name, list(parts)
        self.ends = torch.tensor([len(part) for part in parts], dtype=torch.int64).cumsum(0)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def batch(self, indices: Tensor) -> Batch:
        """The samples at ``indices``, an int64 tensor of shape [B]."""
        return self._gathered(indices, lambda part, own: part.batch(own))

    def augmented(self, indices: Tensor, seed: int) -> Batch:
        """The samples at ``indices``, with what they draw at random as ``seed`` says."""
        return self._gathered(indices, lambda part, own: part.augmented(own, seed))

    def _gathered(self, indices: Tensor, read: Callable[[Any, Tensor], Batch]) -> Batch:
        which = torch.searchsorted(self.ends, indices, right=True)
        begins = torch.cat([torch.zeros(1, dtype=torch.int64), self.ends])
        places, batches = [], []
        for number in sorted(set(which.tolist())):
            own = (which == number).nonzero()[:, 0]
            places.append(own)
            batches.append(read(self.parts[number], indices[own] - begins[number]))
        shapes = {tuple(batch.images.shape[1:]) for batch in batches}
        if len(shapes) > 1:
            found = " and ".join(map(str, sorted(shapes)))
            raise DataError(f"split '{self.name}': its data sets have images of shapes {found}: bring them to one")
        order = torch.cat(places).argsort()

        def joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
            return {name: torch.cat([part[name] for part in parts])[order] for name in parts[0]}

        images = torch.cat([batch.images for batch in batches])[order]
        return Batch(images, joined([one.targets for one in batches]), joined([one.valid for one in batches]))


def _same(first: Batch, second: Batch) -> bool:
    pairs = [(first.images, second.images)]
    pairs += [(first.targets[name], second.targets[name]) for name in first.targets]
    return all(torch.equal(one.nan_to_num(), other.nan_to_num()) for one, other in pairs)


def _seed(seed: int) -> None:
    torch.default_generator.manual_seed(seed % 2**63)
    np.random.seed(seed % 2**32)
    random.seed(seed)
