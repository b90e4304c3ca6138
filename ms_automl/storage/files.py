"""Files that are whole or not there, their checksums, and folders that one process at a time works in."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ms_automl.errors import ConfigError

LOCK = ".lock"


def checksum(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all.

    Raises:
        ValueError: for NaN and infinity, which JSON does not have.
    """
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(file)


def writable(out: Path) -> Path:
    """The folder of ``--out``, made where it is missing.

    Raises:
        ConfigError: where nothing can be written there.
    """
    out = out.expanduser().absolute()
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"--out {from_here(out)} cannot be written ({error.strerror}): name another folder"
        ) from error
    return out


def from_here(path: Path) -> Path:
    """A path as it is shown: relative to the working folder where it lies in it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


@contextmanager
def alone(folder: Path, *, waits: bool = False) -> Iterator[None]:
    """Be the only process in a folder; ends with the process, however that ends.

    Args:
        folder: on a local disk or NFS; holds the lock file.
        waits: for another one to end.

    Raises:
        ConfigError: where another one is in it, and ``waits`` is not set.
    """
    with (folder / LOCK).open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError as error:
            lock.seek(0)
            raise ConfigError(
                f"another process is at work in {folder} ({lock.read().strip()}): wait until it ends, or end it"
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}\n")
        lock.flush()
        yield
