"""The prepared form of a data set on disk: arrays of compact numbers in shards, read at random without decoding.

A folder holds ``manifest.json`` and, for each part of the data set (``train``, ``test``, …) and each shard of
:data:`SHARD` samples, one ``.npy`` file per field: ``train/00003.image.npy``. Shards are mapped into memory, so
several trials on one host share what the system has cached of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ms_automl.data.augmentation import Augmentation, View
from ms_automl.data.cache import Array
from ms_automl.data.splits import Batch, moved
from ms_automl.errors import DataError
from ms_automl.storage.files import checksum

FORMAT = 1
SHARD = 128
"""Samples of a shard."""

MANIFEST = "manifest.json"


class Decoder(Protocol):
    """Turns what is stored into batches, in two steps: several threads fill one batch, a sample each."""

    def empty(self, count: int, shapes: Mapping[str, Sequence[int]], device: torch.device) -> Batch:
        """A batch of ``count`` samples on a device, not filled; ``shapes`` are those of a sample's fields."""
        ...

    def decode(self, rows: Mapping[str, Tensor], views: Sequence[View], out: Batch) -> None:
        """Fill ``out`` from fields [B, …] in the types they are stored in, and the view each sample was given."""
        ...


class Prepared:
    """A data set in the prepared form, opened.

    Args:
        folder: that holds it.

    Attributes:
        name: of the data set.
        layout: which of its published forms it was made from.
        arguments: of the making, such as the size of the images.

    Raises:
        DataError: where the folder is not what it should be, naming the file.
    """

    def __init__(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        if manifest is None:
            raise DataError(f"{folder} holds no {MANIFEST}: make it with python -m ms_automl.data prepare")
        if not manifest["complete"]:
            raise DataError(f"{folder} is not finished: start its 'prepare' again, it goes on where it stopped")
        self.folder = folder
        self.name: str = manifest["name"]
        self.layout: str = manifest["layout"]
        self.arguments: dict[str, Any] = manifest["arguments"]
        self._shards: dict[str, list[dict[str, Any]]] = manifest["parts"]
        for file, size, _ in self.files():
            if not file.resolve().is_relative_to(folder.resolve()):
                raise DataError(f"{folder / MANIFEST} names {file}, which lies outside: nothing of it is read")
            found = file.stat().st_size if file.is_file() else None
            if found != size:
                state = "is missing" if found is None else f"has {found} bytes instead of {size}"
                raise DataError(f"{file} {state}: prepare {self.name} again into an empty folder")

    def count(self, part: str) -> int:
        """Number of samples of a part."""
        return sum(len(shard["samples"]) for shard in self._shards[part])

    def samples(self, part: str) -> list[str]:
        """What the samples of a part are called where they come from, in order."""
        return [sample for shard in self._shards[part] for sample in shard["samples"]]

    def files(self) -> Iterator[tuple[Path, int, str]]:
        """(path, bytes, SHA-256) of every file."""
        for shards in self._shards.values():
            for shard in shards:
                for entry in shard["files"].values():
                    yield self.folder / entry["file"], entry["bytes"], entry["sha256"]

    def damaged(self) -> list[Path]:
        """The files whose checksum is not what it was; reads everything."""
        return [file for file, _, digest in self.files() if checksum(file) != digest]

    def fields(self, part: str) -> list[Mapping[str, Array]]:
        """The fields [samples, …] of each shard, mapped into memory.

        Raises:
            DataError: where a file holds no array of numbers.
        """
        return [
            {name: self._mapped(self.folder / entry["file"]) for name, entry in shard["files"].items()}
            for shard in self._shards[part]
        ]

    def _mapped(self, file: Path) -> Array:
        try:
            # Of numpy's plain class: every view of a memmap costs more than reading what it shows.
            array: Array = np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError) as error:
            raise DataError(f"{file} cannot be read ({error}): prepare {self.name} again") from error
        return array


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What ``manifest.json`` says; None where there is none.

    Raises:
        DataError: where it cannot be read, or is of another format.
    """
    file = folder / MANIFEST
    if not file.is_file():
        return None
    try:
        manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        found = manifest["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} cannot be read ({error}): prepare it again into an empty folder") from error
    if found != FORMAT:
        raise DataError(f"{file} is of format {found}, this version reads {FORMAT}: prepare it again")
    return manifest


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "samples")


class PreparedSplit:
    """Some samples of one part of a prepared data set.

    Args:
        prepared: the data set.
        part: of it.
        indices: of the samples within the part.
        decoder: turns what is stored into a batch.
        augmentation: what :meth:`augmented` draws from; None for the samples as they are.
        threads: that fetch the samples of a batch; 1 for the caller's own.
    """

    def __init__(
        self,
        prepared: Prepared,
        part: str,
        indices: Array,
        decoder: Decoder,
        augmentation: Augmentation | None = None,
        threads: int = 1,
    ) -> None:
        self.prepared, self.part = prepared, part
        self.shards = prepared.fields(part)
        self.indices = torch.from_numpy(np.asarray(indices, dtype=np.int64))
        self.decoder = decoder
        self.augmentation = augmentation
        self.threads = threads
        self.device = torch.device("cpu")
        ends = np.cumsum([len(next(iter(shard.values()))) for shard in self.shards])
        place = np.searchsorted(ends, indices, side="right")
        self._place = np.stack([place, indices - (ends - np.diff(ends, prepend=0))[place]], 1)

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: Tensor) -> Batch:
        """The samples at ``indices``, an int64 tensor of shape [B], as they are."""
        return self._fetch(indices, [View()] * len(indices))

    def augmented(self, indices: Tensor, seed: int) -> Batch:
        """The samples at ``indices`` in views drawn with ``seed``."""
        if self.augmentation is None:
            return self.batch(indices)
        return self._fetch(indices, self.augmentation.draw(len(indices), seed))

    def _fetch(self, indices: Tensor, views: Sequence[View]) -> Batch:
        count, place = len(indices), self._place[indices.numpy()]
        out = self.decoder.empty(count, {name: of.shape[1:] for name, of in self.shards[0].items()}, self.device)
        if self.device.type == "cpu":  # sample by sample, which the caches hold
            self._in_threads(partial(self._decode_one, place, views, out.split(count)), count)
            return out
        fields = {name: np.empty((count, *of.shape[1:]), of.dtype) for name, of in self.shards[0].items()}
        self._in_threads(partial(self._read_one, place, views, fields), count)
        rows = {name: torch.from_numpy(field) for name, field in fields.items()}
        self.decoder.decode(moved(rows, self.device), views, out)
        return out

    def _in_threads(self, work: Callable[[int], None], count: int) -> None:
        if self.threads > 1:
            list(_pool(self.threads).map(work, range(count)))
        else:
            for index in range(count):
                work(index)

    def fingerprint(self) -> str | None:
        """A digest of samples and files: by the checksums of their making, and by size and time of what is there.

        None with a decoder of a user's own, whose code may have changed.
        """
        decoder = type(self.decoder)
        if not decoder.__module__.startswith("ms_automl."):
            return None
        digest = hashlib.sha256(f"{decoder.__module__}.{decoder.__qualname__} {self.part}".encode())
        digest.update(self.indices.numpy().tobytes())
        for file, _, made in self.prepared.files():
            status = file.stat()
            digest.update(f"{made} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def to(self, device: torch.device) -> PreparedSplit:
        """The same samples, decoded on a device."""
        other = copy(self)
        other.device = device
        return other

    def _decode_one(self, place: Array, views: Sequence[View], out: Sequence[Batch], index: int) -> None:
        rows = {name: torch.from_numpy(field[None]) for name, field in self._read(place[index], views[index])}
        self.decoder.decode(rows, views[index : index + 1], out[index])

    def _read_one(self, place: Array, views: Sequence[View], fields: Mapping[str, Array], index: int) -> None:
        for name, field in self._read(place[index], views[index]):
            fields[name][index] = field

    def _read(self, place: Array, view: View) -> Iterator[tuple[str, Array]]:
        """Name and content of each field of a sample, in its view; not the mapped memory itself."""
        shard, row = place
        for name, stored in self.shards[shard].items():
            if view.whole or stored.ndim < 3:
                yield name, np.array(stored[row])
            else:
                yield name, view.image(stored[row]) if name == "image" else view.labels(stored[row])
