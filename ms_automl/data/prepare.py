"""Converting a published data set once into the prepared form: checked first, resumable, with checksums."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ms_automl.data.cache import Arrays, cache_folder
from ms_automl.data.prepared import FORMAT, MANIFEST, SHARD, Prepared, read_manifest
from ms_automl.errors import ConfigError, DataError
from ms_automl.storage.files import alone, checksum, write_json

_THREADS = os.cpu_count() or 1  # decoding an image leaves Python's lock free

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""


class Source(Protocol):
    """A data set in one of the forms it is published in."""

    @property
    def name(self) -> str:
        """Name of the data set."""
        ...

    @property
    def layout(self) -> str:
        """Name of the form that it is published in."""
        ...

    @property
    def arguments(self) -> Mapping[str, Any]:
        """What :meth:`read` depends on, as JSON can hold it."""
        ...

    @property
    def parts(self) -> Mapping[str, Sequence[str]]:
        """The names of the samples, by part."""
        ...

    def check(self, part: str, sample: str) -> Iterable[str]:
        """What is wrong with the files of a sample, a line each; nothing where they are fine."""
        ...

    def read(self, part: str, sample: str) -> Arrays:
        """The fields of a sample. ``image`` is [H, W, 3] uint8; labels of pixels are [H, W, …]."""
        ...


class DamagedSourceError(DataError):
    """Files of a source are missing or damaged.

    Attributes:
        problems: a line for each.
    """

    def __init__(self, source: Source, problems: Sequence[str]) -> None:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        super().__init__(
            f"{source.name}: {problems[0]}{more}; nothing was written: "
            f"python -m ms_automl.data prepare {source.name} lists them all"
        )
        self.problems = list(problems)


def silent(what: str, done: int, total: int) -> None:
    """A :data:`Progress` that says nothing."""


def prepare(source: Source, out: Path, progress: Progress = silent) -> Prepared:
    """Convert a data set; what is there already is kept, so that a run that was stopped goes on.

    Args:
        source: what to convert; every file of it is read once before anything is written.
        out: an empty or new folder, or one that the same conversion was begun in.
        progress: told how far it is.

    Raises:
        DamagedSourceError: where files are missing or damaged.
        DataError: where the folder holds something else, or cannot be written.
    """
    try:
        return _prepare(source, out, progress)
    except OSError as error:
        problem = error.strerror or error
        raise DataError(f"cannot write {out} ({problem}): make room or take another folder") from error


def opened(
    name: str, data_dir: Path | None, asked: Mapping[str, Any], read: Callable[[Path, Mapping[str, Any]], Source]
) -> Prepared:
    """The prepared form of a data set, made in the user's cache folder where ``data_dir`` holds a published form.

    Args:
        name: of the data set.
        data_dir: what the user says; None is an error that says what to do.
        asked: arguments of the preparation; None takes what the folder was prepared with.
        read: the source in a folder, with the arguments that were asked for.

    Raises:
        ConfigError: without a folder, or where it was prepared with other arguments.
        DataError: where there is no such folder, or its files are not what they should be.
    """
    if data_dir is None:
        raise ConfigError(
            f"the data set {name} cannot be downloaded by a program: say where its files are, --data-dir DIR"
        )
    if not data_dir.is_dir():
        raise DataError(f"--data-dir {data_dir} is no folder on this machine")
    if not (data_dir / MANIFEST).is_file():
        source = read(data_dir, asked)
        text = json.dumps([str(data_dir.resolve()), source.layout, dict(source.arguments)], sort_keys=True)
        out = cache_folder() / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        if not (out / MANIFEST).is_file():
            print(f"preparing {name} in {out}: once, this takes minutes", file=sys.stderr)
        return prepare(source, out)
    prepared = Prepared(data_dir)
    if prepared.name != name:
        raise DataError(f"{data_dir} holds {prepared.name}, not {name}")
    for key, value in asked.items():
        if value is not None and value != prepared.arguments[key]:
            raise ConfigError(
                f"{data_dir} was prepared with {key}={prepared.arguments[key]}, but got {key}={value}: "
                f"leave data.args.{key} out, or prepare {name} again into another folder"
            )
    return prepared


def _prepare(source: Source, out: Path, progress: Progress) -> Prepared:
    if _finished(source, out):
        return Prepared(out)
    if problems := list(_problems(source, progress)):
        raise DamagedSourceError(source, problems)
    out.mkdir(parents=True, exist_ok=True)
    with alone(out, waits=True):
        if not _finished(source, out):  # another process may have made it meanwhile
            write_json(out / MANIFEST, _manifest(source, complete=False, parts={}))
            parts = {part: list(_shards(source, part, out, progress)) for part in source.parts}
            write_json(out / MANIFEST, _manifest(source, complete=True, parts=parts))
    return Prepared(out)


def _finished(source: Source, out: Path) -> bool:
    """Whether the conversion is done; an error where something else is there."""
    found = read_manifest(out)
    if found is None:
        if out.exists() and (not out.is_dir() or any(file.name != ".lock" for file in out.iterdir())):
            raise DataError(f"{out} is not empty and holds no prepared data set: take another folder")
        return False
    wanted = _manifest(source, complete=True, parts={})
    differs = [key for key in ("name", "layout", "arguments") if found[key] != wanted[key]]
    if differs:
        key = differs[0]
        raise DataError(f"{out} was prepared with {key} {found[key]}, not {wanted[key]}: take another folder")
    return bool(found["complete"])


def _manifest(source: Source, *, complete: bool, parts: Mapping[str, Any]) -> dict[str, Any]:
    content = {"format": FORMAT, "name": source.name, "layout": source.layout, "complete": complete}
    text = json.dumps(content | {"arguments": dict(source.arguments), "parts": dict(parts)})
    return dict(json.loads(text))  # tuples become lists, as they will be when it is read


def _problems(source: Source, progress: Progress) -> Iterator[str]:
    samples = [(part, sample) for part, names in source.parts.items() for sample in names]
    with ThreadPoolExecutor(_THREADS, "check") as pool:
        for done, found in enumerate(pool.map(lambda sample: list(source.check(*sample)), samples), 1):
            yield from found
            progress("checking", done, len(samples))


def _shards(source: Source, part: str, out: Path, progress: Progress) -> Iterator[dict[str, Any]]:
    samples = list(source.parts[part])
    (out / part).mkdir(exist_ok=True)
    for number, start in enumerate(range(0, len(samples), SHARD)):
        names = samples[start : start + SHARD]
        record = out / part / f"{number:05}.json"
        yield _kept(record, out, names) or _written(source, part, names, record, out)
        progress(f"writing {part}", start + len(names), len(samples))


def _kept(record: Path, out: Path, names: Sequence[str]) -> dict[str, Any] | None:
    """The shard that an earlier run wrote; None where it is not whole."""
    try:
        shard: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        whole = all(checksum(out / entry["file"]) == entry["sha256"] for entry in shard["files"].values())
        return shard if whole and shard["samples"] == list(names) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _written(source: Source, part: str, names: Sequence[str], record: Path, out: Path) -> dict[str, Any]:
    with ThreadPoolExecutor(_THREADS, "read") as pool:
        read = list(pool.map(partial(source.read, part), names))
    files = {}
    for field in read[0]:
        file = record.with_name(f"{record.stem}.{field}.npy")
        temporary = file.with_name(f".{file.name}")
        with temporary.open("wb") as content:  # np.save would add an ending to a name of its own
            np.save(content, np.stack([sample[field] for sample in read]), allow_pickle=False)
        temporary.replace(file)
        path = file.relative_to(out).as_posix()
        files[field] = {"file": path, "bytes": file.stat().st_size, "sha256": checksum(file)}
    shard = {"samples": list(names), "files": files}
    write_json(record, shard)  # last: a shard counts once all of it is there
    return shard
