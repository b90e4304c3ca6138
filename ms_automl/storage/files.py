"""Files that are whole or not there, their checksums, and folders that one process at a time works in."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ms_automl.errors import ConfigError, DataError, MsAutomlError

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
    """Write a JSON file whole or not at all; ValueError for NaN and infinity, which JSON does not have."""
    write_whole(file, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def append_lines(file: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Append lines of JSON."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write("".join(json.dumps(entry) + "\n" for entry in entries))


def json_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of JSON, if it is there, but a last one cut short; DataError for a damaged one."""
    if not file.exists():
        return
    whole = file.read_bytes().split(b"\n")[:-1]
    for number, line in enumerate(whole, 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            where = f"{from_here(file)}: line {number}"
            raise DataError(f"{where} is damaged: restore the file from a copy") from error


def mend_lines(file: Path) -> None:
    """Take off a last line that was not whole when its writer died: the next one needs a line of its own."""
    if file.exists():
        content = file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(file, whole)


def writable(out: Path) -> Path:
    """The folder of ``--out``, made where it is missing; ConfigError where nothing can be written there."""
    out = out.expanduser().absolute()
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".probe").touch()
        (out / ".probe").unlink()
    except OSError as error:
        why = error.strerror
        raise ConfigError(f"--out {from_here(out)} cannot be written ({why}): name another folder") from error
    return out


@contextmanager
def at_work_in(out: Path) -> Iterator[Path]:
    """The folder of ``--out``, for this process alone; what is refused leaves neither a new folder nor a lock.

    Raises:
        ConfigError: where nothing can be written there, or another process is at work.
    """
    out = out.expanduser().absolute()
    missing, locked = [each for each in (out, *out.parents) if not each.exists()], (out / LOCK).exists()
    with alone(writable(out)):
        try:
            yield out
        except MsAutomlError:
            if not locked:
                (out / LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # something was written there
                for folder in missing:
                    folder.rmdir()
            raise


def from_here(path: Path) -> Path:
    """A path as it is shown: relative to the working folder where it lies in it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


@contextmanager
def alone(folder: Path, *, waits: bool = False) -> Iterator[None]:
    """Be the only process in a folder, on a local disk or NFS; ends with the process, however that ends.

    ConfigError where another one is in it, and is not waited for.
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
