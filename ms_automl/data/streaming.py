"""A split from its first sample to its last, as many at a time as the memory surely holds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ms_automl.data.splits import Batch, Split, training_batch
from ms_automl.errors import DataError, MsAutomlError

_BYTES = 32 * 2**20
_MOST = 256


def streamed(split: Split, name: str) -> Iterator[tuple[range, Batch]]:
    """Every sample of a split once, in order: the numbers of a batch's samples, and the batch.

    Args:
        split: is asked for as many samples at a time as fit 32 MiB, one at least.
        name: for the error.

    Raises:
        DataError: where a sample cannot be read, naming it.
    """
    size = 1
    if len(split) > 1:
        sample = fetched(split, name, range(1))
        tensors = (sample.images, *sample.targets.values(), *sample.valid.values())
        size = max(1, min(_MOST, _BYTES // max(1, sum(tensor.nbytes for tensor in tensors))))
    for start in range(0, len(split), size):
        samples = range(start, min(start + size, len(split)))
        yield samples, fetched(split, name, samples)


def fetched(split: Split, name: str, samples: range, *, augmented: bool = False) -> Batch:
    """Some samples of a split.

    Args:
        split: that has them.
        name: for the error.
        samples: their numbers.
        augmented: whether they are changed as for training, where the split can do that.

    Raises:
        DataError: where one cannot be read, naming it.
    """
    try:
        indices = torch.tensor(samples)
        return training_batch(split, indices, 0) if augmented else split.batch(indices)
    except MsAutomlError:
        raise
    except Exception as error:  # whatever a reader of the user's own raises
        reason = f"({type(error).__name__}: {error})"
        if len(samples) == 1:
            raise DataError(f"{name}: sample {samples[0]} cannot be read {reason}") from error
        for index in samples:
            fetched(split, name, range(index, index + 1), augmented=augmented)
        raise DataError(
            f"{name}: samples {samples[0]} to {samples[-1]} can be read one by one and not together {reason}"
        ) from error


@contextmanager
def same_random_state() -> Iterator[None]:
    """Leave the random numbers of torch, numpy and Python as they were: a split may draw from them."""
    numpy, python = np.random.get_state(), random.getstate()
    ready: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if ready else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        np.random.set_state(numpy)
        random.setstate(python)
