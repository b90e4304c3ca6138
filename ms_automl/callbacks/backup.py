"""A copy of a comparison's files in its storage: what another head goes on from when the driver's disk is lost."""

from __future__ import annotations

import io
import json
import platform
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ms_automl.comparison.events import EARLIER, FILE
from ms_automl.comparison.run import Callback
from ms_automl.errors import ConfigError, DataError
from ms_automl.storage.files import alone, write_json
from ms_automl.storage.remote import Storage, shown

RECORD, OWNER = "record.zip", "driver.json"
FILES = ("comparison.json", FILE, "optuna.journal")
"""What a comparison goes on from; all but the first one only ever grow."""
RESULTS = ("best", "report")
HEARTBEAT = 15.0
"""Seconds between two heartbeats of a driver."""
EVERY = 2.0
"""Seconds between two copies at the least: what ends in between is lost with the disk, and done again."""
AT_LEAST = 60.0
"""Seconds after which a copy is made of what has been charged, though no trial has ended or left a state since."""
SHARE = 0.2
"""Share of the time that making copies takes at most."""


@dataclass(frozen=True)
class Heartbeat:
    """A driver's last heartbeat in a storage: its id and host, how many it has left, and whether it has ended."""

    driver: str
    host: str
    beats: int
    ended: bool


class Backup(Callback):
    """Copies files of a folder to a storage as they grow, in a thread, and leaves heartbeats there.

    Is told after the log. A copy is made soon after a trial has ended or left a state, else from time to time: a
    store that keeps versions keeps them all.
    What is copied is what the files held at one moment, as a driver that was killed there would have left them.
    A store that is away holds nothing up: the next copy has everything again. Results are folders that are copied
    at the end alone. Between two copies are ``every`` seconds at the least, between two heartbeats ``heartbeat``.
    """

    def __init__(
        self,
        folder: Path,
        storage: Storage,
        files: Sequence[str] = FILES,
        results: Sequence[str] = RESULTS,
        every: float = EVERY,
        heartbeat: float = HEARTBEAT,
    ) -> None:
        self.folder, self.storage, self.files, self.results = folder, storage, files, results
        self.every, self.heartbeat = every, heartbeat
        self.driver = uuid.uuid4().hex
        self.trouble: str | None = None
        self._heartbeats = 0
        self._sizes: dict[str, int] = {}
        self._copied: dict[str, int] = {}
        self._unneeded: list[str] = []
        self._urgent, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="backup", daemon=True)

    def begin(self) -> None:
        """Make the first copy, and go on in a thread; ConfigError where the storage cannot be written."""
        self.note_sizes()
        try:
            self._write_heartbeat()
            self._copy()
        except OSError as error:
            raise ConfigError(f"nothing can be stored in {shown(self.storage.address)}: {error}") from error
        self._thread.start()

    def note_sizes(self, *told: Any, **more: Any) -> None:
        """Note the lengths of the files, in the thread that writes them: so far they belong together."""
        self._sizes = {name: file.stat().st_size for name in self.files if (file := self.folder / name).exists()}

    def have_copied(self, *told: Any, **more: Any) -> None:
        """Have a copy made soon: a trial has ended, or a model or a state is stored."""
        self.note_sizes()
        self._urgent.set()

    trial_suggested = trial_started = trial_reported = note_sizes
    trial_ended = trial_stored = have_copied

    @property
    def behind(self) -> str | None:
        """A line for the user where the last copy could not be made; else None."""
        if self.trouble is None:
            return None
        return f"the copy in {shown(self.storage.address)} is not up to date: {self.trouble}"

    def remove(self, place: str) -> None:
        """Delete a state that nobody needs any more, once no copy names it."""
        self._unneeded.append(place)

    def close(self) -> None:
        """Copy everything as it is now, selected models and report as well, and say that no driver is at work."""
        if not self._thread.is_alive():  # it could not begin
            return
        self._over.set()
        self._thread.join()
        self.note_sizes()
        self._try(self._copy_all)

    def _run(self) -> None:
        last_heartbeat = copied = time.monotonic()
        took = 0.0
        while not self._over.is_set():
            now = time.monotonic()
            if now - last_heartbeat >= self.heartbeat:
                self._try(self._write_heartbeat)
                last_heartbeat = now
            due = self._urgent.is_set() or (self._copied != self._sizes and now - copied >= AT_LEAST)
            if due and now - copied >= max(self.every, took / SHARE):
                self._urgent.clear()
                if not self._try(self._copy):
                    self._urgent.set()
                copied = time.monotonic()
                took = copied - now
            self._over.wait(min(1.0, self.every, self.heartbeat))

    def _try(self, write: Callable[[], None]) -> bool:
        try:
            write()
        except OSError as error:
            self.trouble = f"{time.strftime('%H:%M:%S')}: {' '.join(str(error).split())[:200]}"
        else:
            self.trouble = None
        return self.trouble is None

    def _write_heartbeat(self, *, ended: bool = False) -> None:
        self._heartbeats += 1
        heartbeat = Heartbeat(self.driver, platform.node(), self._heartbeats, ended)
        self.storage.write(OWNER, json.dumps(asdict(heartbeat)).encode())

    def _copy(self) -> None:
        unneeded = len(self._unneeded)  # before the sizes: what comes in between is named by this copy yet
        sizes = self._sizes
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, size in sizes.items():
                with (self.folder / name).open("rb") as file:
                    # The first one is replaced as a whole, and its length may have been another one's.
                    archive.writestr(name, file.read(-1 if name == self.files[0] else size))
        self.storage.write(RECORD, packed.getvalue())
        self._copied = sizes
        for _ in range(unneeded):
            self.storage.remove(self._unneeded.pop(0))

    def _copy_all(self) -> None:
        self._copy()
        for name in self.results:
            if (self.folder / name).is_dir():
                self.storage.copy(self.folder / name, name)
        self._write_heartbeat(ended=True)


def last_heartbeat(storage: Storage) -> Heartbeat | None:
    """The heartbeat of the driver that was last at work on what a storage holds; None where none ever was.

    ConfigError where nothing can be read, DataError where it is damaged.
    """
    content = _read(storage, OWNER)
    if content is None:
        return None
    try:
        return Heartbeat(**json.loads(content))
    except (TypeError, ValueError) as error:
        raise DataError(f"{OWNER} in {shown(storage.address)} is damaged ({error}): delete it") from error


def check_own(
    storage: Storage,
    record: Mapping[str, Any] | None,
    what: str = "comparison",
    how: str = "Move --out away, and --resume goes on from the copy",
) -> None:
    """ConfigError where a storage holds another comparison, or the one with this record went on elsewhere.

    ``what`` it is, and ``how`` it goes on from the copy, are for the message.
    """
    last, where = last_heartbeat(storage), shown(storage.address)
    if last is None or (record is not None and last.driver in record.get("drivers", ())):
        return
    if record is None:
        raise ConfigError(
            f"{where} holds a comparison already: go on with it by --resume, or choose another name for --out"
        )
    raise ConfigError(
        f"this {what} went on elsewhere, on host {last.host}: what is in --out is older than its copy in "
        f"{where}. {how}"
    )


def fetch(out: Path, storage: Storage, say: Callable[[str], None], heartbeat: float = HEARTBEAT) -> None:
    """Take a comparison's files out of its storage, for a head that has none of them.

    ConfigError where there is no copy, or the driver that writes it is at work; DataError where it is damaged.
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
    """ConfigError where the driver that was last at work on a storage has neither ended nor been lost."""
    last = last_heartbeat(storage)
    if last is None or last.ended:
        return
    say(f"the driver on host {last.host} has not ended: {2.5 * heartbeat:.0f} s to see whether it is lost")
    time.sleep(2.5 * heartbeat)
    if last_heartbeat(storage) != last:
        where = shown(storage.address)
        raise ConfigError(f"another driver is at work on {where}, on host {last.host}: end it first")


def copied(storage: Storage, files: Sequence[str]) -> dict[str, bytes] | None:
    """What the copy in a storage holds of files, by name; None where there is none. Errors as above."""
    for last in (False, True):
        content = _read(storage, RECORD)
        if content is None:
            return None
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                return {name: archive.read(name) for name in files if name in archive.namelist()}
        except (ValueError, zipfile.BadZipFile, RuntimeError) as error:
            if last:  # and not replaced by its driver between two reads, of its size and of its content
                raise _damaged(shown(storage.address), error) from error
    return None


def _damaged(where: str, error: Exception) -> DataError:
    return DataError(f"{RECORD} in {where} is damaged ({error}): restore an older version")


def _read(storage: Storage, name: str) -> bytes | None:
    try:
        return storage.read(name)
    except OSError as error:
        raise ConfigError(f"nothing can be read from {shown(storage.address)}: {error}") from error
