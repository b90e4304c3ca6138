"""What a storage holds of a comparison: its files, for a head that has lost them, and whose they are."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ms_automl.comparison.events import EARLIER, FILE
from ms_automl.errors import ConfigError, DataError
from ms_automl.storage.files import alone, write_json
from ms_automl.storage.remote import Storage, shown

RECORD, OWNER = "record.zip", "driver.json"
FILES = ("comparison.json", FILE, "optuna.journal")
"""What a comparison goes on from; all but the first one only ever grow."""
HEARTBEAT = 15.0
"""Seconds between two heartbeats of a driver."""
LARGEST = 2**32
"""Bytes of a file that is taken out of a copy."""


@dataclass(frozen=True)
class Heartbeat:
    """The last heartbeat that a driver of a comparison has left in its storage.

    Attributes:
        driver: its id.
        host: that it ran on.
        beats: how many heartbeats it has left.
        ended: whether it was the last, at the end of the driver.
    """

    driver: str
    host: str
    beats: int
    ended: bool


def last_heartbeat(storage: Storage) -> Heartbeat | None:
    """The heartbeat of the driver that was last at work on what a storage holds; None where none ever was.

    Raises:
        ConfigError: where nothing can be read.
        DataError: where it is damaged.
    """
    content = _read(storage, OWNER)
    if content is None:
        return None
    try:
        found = json.loads(content)
        return Heartbeat(str(found["driver"]), str(found["host"]), int(found["beats"]), bool(found["ended"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{OWNER} in {shown(storage.address)} is damaged ({error}): delete it") from error


def check_own(
    storage: Storage,
    record: Mapping[str, Any] | None,
    what: str = "comparison",
    how: str = "Move --out away, and --resume goes on from the copy",
) -> None:
    """Refuse to write over what another folder's comparison has stored.

    Args:
        storage: of the comparison.
        record: ``comparison.json`` of the comparison that goes on, or what stands for it; None where one begins.
        what: kind of thing that goes on, for the message.
        how: the message's sentence on how it goes on from the copy.

    Raises:
        ConfigError: where it is another one's, or went on elsewhere.
    """
    last = last_heartbeat(storage)
    if last is None or (record is not None and last.driver in record.get("drivers", ())):
        return
    if record is None:
        raise ConfigError(
            f"{shown(storage.address)} holds a comparison already: go on with it by --resume, or choose another "
            "name for --out"
        )
    raise ConfigError(
        f"this {what} went on elsewhere, on host {last.host}: what is in --out is older than its copy in "
        f"{shown(storage.address)}. {how}"
    )


def fetch(out: Path, storage: Storage, say: Callable[[str], None], heartbeat: float = HEARTBEAT) -> None:
    """Take a comparison's files out of its storage, for a head that has none of them.

    Args:
        out: folder that they are put in.
        storage: of the comparison.
        say: told what takes time.
        heartbeat: seconds between two heartbeats.

    Raises:
        ConfigError: where there is no copy, or the driver that writes it is still at work.
        DataError: where it is damaged.
    """
    where = shown(storage.address)
    wait_for_its_driver(storage, say, heartbeat)
    found = copied(storage, (*FILES, *EARLIER))
    if found is None:
        raise ConfigError(
            f"--resume: no comparison.json in {out}, and no copy of one in {where}: name the --out and the "
            "--storage that it was begun with"
        )
    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        try:
            record = json.loads(found.pop(FILES[0]))
            # It lay on the head that is lost, as its MLflow may have: a store that knows the run is the right one.
            record["mlflow"]["tracking_uri"] = None
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(where, error) from error
        for name, part in found.items():
            (out / name).write_bytes(part)
        write_json(out / FILES[0], record)  # last: without it the folder is empty for --resume
    say(f"fetched from {where}: {', '.join((*found, FILES[0]))}")


def wait_for_its_driver(storage: Storage, say: Callable[[str], None], heartbeat: float = HEARTBEAT) -> None:
    """See whether the driver that was last at work on a storage is lost, where it has not ended.

    Args:
        storage: of a comparison.
        say: told what takes time.
        heartbeat: seconds between two heartbeats.

    Raises:
        ConfigError: where it is at work.
    """
    last = last_heartbeat(storage)
    if last is None or last.ended:
        return
    say(f"the driver on host {last.host} has not ended: {2.5 * heartbeat:.0f} s to see whether it is lost")
    time.sleep(2.5 * heartbeat)
    if last_heartbeat(storage) != last:
        where = shown(storage.address)
        raise ConfigError(f"another driver is at work on {where}, on host {last.host}: end it first")


def copied(storage: Storage, files: Sequence[str]) -> dict[str, bytes] | None:
    """What the copy in a storage holds of files, by name; None where there is none.

    Raises:
        ConfigError: where nothing can be read.
        DataError: where it is damaged.
    """
    content = _read(storage, RECORD)
    if content is None:
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {name: _member(archive, name) for name in files if name in archive.namelist()}
    except (KeyError, ValueError, zipfile.BadZipFile, RuntimeError) as error:
        raise _damaged(shown(storage.address), error) from error


def _damaged(where: str, error: Exception) -> DataError:
    return DataError(f"{RECORD} in {where} is damaged ({error}): restore an older version")


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > LARGEST:
        raise ValueError(f"{name} is too large")
    return archive.read(name)


def _read(storage: Storage, name: str) -> bytes | None:
    try:
        return storage.read(name)
    except OSError as error:
        raise ConfigError(f"nothing can be read from {shown(storage.address)}: {error}") from error
