"""Files that are whole or not there, their checksums, and folders that one process at a time works in."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ms_automl.errors import ConfigError, DataError

LOCK = ".lock"


def checksum(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def write_whole(file: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(file)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all.

    Raises:
        ValueError: for NaN and infinity, which JSON does not have.
    """
    write_whole(file, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def append_lines(file: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Append lines of JSON."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write("".join(json.dumps(entry) + "\n" for entry in entries))


def json_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of JSON but a last one that is not whole; none where there is no file.

    Raises:
        DataError: where a line is damaged.
    """
    if file.exists():
        content = file.read_bytes()
        yield from decoded_lines(content[: content.rfind(b"\n") + 1], str(from_here(file)))


def mend_lines(file: Path) -> None:
    """Take off a last line that was not whole when its writer died: the next one needs a line of its own."""
    if file.exists():
        content = file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(file, whole)


def decoded_lines(content: bytes, where: str) -> Iterator[dict[str, Any]]:
    """The entries of lines of JSON.

    Raises:
        DataError: where one is damaged; names ``where`` they come from.
    """
    for number, line in enumerate(content.splitlines(), 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: line {number} is damaged: restore the file from a copy") from error


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
