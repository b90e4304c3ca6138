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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ms_automl.comparison.events import EARLIER, FILE
from ms_automl.comparison.run import Callback, Run, Trial
from ms_automl.errors import ConfigError, DataError
from ms_automl.storage.files import alone, write_json
from ms_automl.storage.remote import Storage, shown

RECORD, OWNER = "record.zip", "driver.json"
FILES = ("comparison.json", FILE, "optuna.journal")
"""What a comparison goes on from; all but the first one only ever grow."""
RESULTS = ("best", "report")
EVERY = 2.0
"""Seconds between two copies at the least: what ends in between is lost with the disk, and done again."""
AT_LEAST = 60.0
"""Seconds after which a copy is made of what has been charged, though no trial has ended or left a state since."""
BEAT = 15.0
"""Seconds between two signs of life."""
SHARE = 0.2
"""Of the time, at the most, that making copies takes."""
LARGEST = 2**32
"""Bytes of a file that is taken out of a copy."""


class Copier:
    """Copies files of a folder to a storage as they grow, in a thread, and gives signs of life there.

    A copy is made soon after it was asked for, else from time to time: a store that keeps versions keeps them all.
    What is copied is what the files held at one moment, as a driver that was killed there would have left them.
    A store that is away holds nothing up: the next copy has everything again.

    Args:
        folder: of a comparison, or of a stage of it.
        storage: of the same, outside of that folder.
        files: of the folder, by name; each but ``comparison.json`` only ever grows.
        results: folders in it that are copied at the end.
        every: as :data:`EVERY`.
        beat: as :data:`BEAT`.
    """

    def __init__(
        self,
        folder: Path,
        storage: Storage,
        files: Sequence[str],
        results: Sequence[str] = (),
        every: float = EVERY,
        beat: float = BEAT,
    ) -> None:
        self.folder = folder
        self.storage = storage
        self.files = files
        self.results = results
        self.every = every
        self.beat = beat
        self.driver = uuid.uuid4().hex
        self.trouble: str | None = None
        self._sizes: dict[str, int] = {}
        self._unneeded: list[str] = []
        self._lock = threading.Lock()
        self._urgent, self._over = threading.Event(), threading.Event()
        self._copied: dict[str, int] = {}
        self._beats = 0
        self._thread = threading.Thread(target=self._run, name="backup", daemon=True)

    def begin(self) -> None:
        """Make the first copy, and go on in a thread.

        Raises:
            ConfigError: where the storage cannot be written.
        """
        self.look()
        try:
            self._sign()
            self._copy()
        except OSError as error:
            raise ConfigError(f"nothing can be stored in {shown(self.storage.address)}: {error}") from error
        self._thread.start()

    def look(self) -> None:
        """Note the lengths of the files, in the thread that writes them: so far they belong together."""
        sizes = {name: file.stat().st_size for name in self.files if (file := self.folder / name).exists()}
        with self._lock:
            self._sizes = sizes

    def have_copied(self) -> None:
        """Copy what the files hold now, soon."""
        self.look()
        self._urgent.set()

    @property
    def behind(self) -> str | None:
        """A line for the user where the last copy could not be made; else None."""
        if self.trouble is None:
            return None
        return f"the copy in {shown(self.storage.address)} is not up to date: {self.trouble}"

    def remove(self, place: str) -> None:
        """Delete a state that nobody needs any more, once no copy names it."""
        with self._lock:
            self._unneeded.append(place)

    def close(self) -> None:
        """Copy everything as it is now, selected models and report as well, and say that no driver is at work."""
        if not self._thread.is_alive():  # it could not begin
            return
        self._over.set()
        self._thread.join()
        self.look()

        def all_of_it() -> None:
            self._copy()
            for name in self.results:
                if (self.folder / name).is_dir():
                    self.storage.copy(self.folder / name, name)
            self._sign(ended=True)

        self._try(all_of_it)

    def _run(self) -> None:
        signed = copied = time.monotonic()
        took = 0.0
        while not self._over.is_set():
            now = time.monotonic()
            if now - signed >= self.beat:
                self._try(self._sign)
                signed = now
            due = self._urgent.is_set() or (self._copied != self._sizes and now - copied >= AT_LEAST)
            if due and now - copied >= max(self.every, took / SHARE):
                self._urgent.clear()
                if not self._try(self._copy):
                    self._urgent.set()
                copied = time.monotonic()
                took = copied - now
            self._over.wait(min(1.0, self.every, self.beat))

    def _try(self, write: Callable[[], None]) -> bool:
        try:
            write()
        except OSError as error:
            self.trouble = f"{time.strftime('%H:%M:%S')}: {' '.join(str(error).split())[:200]}"
            return False
        self.trouble = None
        return True

    def _sign(self, *, ended: bool = False) -> None:
        self._beats += 1
        sign = {"driver": self.driver, "host": platform.node(), "beats": self._beats, "ended": ended}
        self.storage.write(OWNER, json.dumps(sign).encode())

    def _copy(self) -> None:
        with self._lock:
            sizes, unneeded, self._unneeded = self._sizes, self._unneeded, []
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, size in sizes.items():
                with (self.folder / name).open("rb") as file:
                    # comparison.json is replaced as a whole, and its length may have been another one's.
                    archive.writestr(name, file.read(-1 if name == FILES[0] else size))
        try:
            self.storage.write(RECORD, packed.getvalue())
        except OSError:
            with self._lock:
                self._unneeded = unneeded + self._unneeded
            raise
        self._copied = sizes
        for place in unneeded:
            self.storage.remove(place)


class Backup(Copier, Callback):
    """Copies the files of a comparison to its storage; is told after the journal.

    A copy is made soon after a trial has ended or left a state.

    Args:
        folder: of the comparison.
        storage: of the comparison, outside of that folder.
        every: as :data:`EVERY`.
        beat: as :data:`BEAT`.
    """

    def __init__(self, folder: Path, storage: Storage, every: float = EVERY, beat: float = BEAT) -> None:
        super().__init__(folder, storage, FILES, RESULTS, every, beat)

    def trial_suggested(self, run: Run, trial: Trial) -> None:
        """See what there is to copy."""
        self.look()

    def trial_started(self, run: Run, trial: Trial) -> None:
        """See what there is to copy."""
        self.look()

    def trial_reported(self, run: Run, trial: Trial, metrics: dict[str, float]) -> None:
        """See what there is to copy."""
        self.look()

    def trial_ended(self, run: Run, trial: Trial) -> None:
        """Have it copied."""
        self.have_copied()

    def trial_stored(self, run: Run, trial: Trial) -> None:
        """Have it copied."""
        self.have_copied()


@dataclass(frozen=True)
class Sign:
    """What the last driver of a comparison has left in its storage.

    Attributes:
        driver: its id.
        host: that it ran on.
        beats: how often it has given a sign of life.
        ended: whether that was the last one.
    """

    driver: str
    host: str
    beats: int
    ended: bool


def last_sign(storage: Storage) -> Sign | None:
    """Of the driver that was last at work on what a storage holds; None where none ever was.

    Raises:
        ConfigError: where nothing can be read.
        DataError: where it is damaged.
    """
    content = _read(storage, OWNER)
    if content is None:
        return None
    try:
        found = json.loads(content)
        return Sign(str(found["driver"]), str(found["host"]), int(found["beats"]), bool(found["ended"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{OWNER} in {shown(storage.address)} is damaged ({error}): delete it") from error


def check_own(storage: Storage, record: Mapping[str, Any] | None) -> None:
    """Refuse to write over what another folder's comparison has stored.

    Args:
        storage: of the comparison.
        record: ``comparison.json`` of the comparison that goes on; None where one begins.

    Raises:
        ConfigError: where it is another one's, or went on elsewhere.
    """
    sign = last_sign(storage)
    if sign is None or (record is not None and sign.driver in record.get("drivers", ())):
        return
    if record is None:
        raise ConfigError(
            f"{shown(storage.address)} holds a comparison already: go on with it by --resume, or choose another "
            "name for --out"
        )
    raise ConfigError(
        f"this comparison went on elsewhere, on host {sign.host}: what is in --out is older than its copy in "
        f"{shown(storage.address)}. Move --out away, and --resume goes on from the copy"
    )


def fetch(out: Path, storage: Storage, say: Callable[[str], None], beat: float = BEAT) -> None:
    """Take a comparison's files out of its storage, for a head that has none of them.

    Args:
        out: folder that they are put in.
        storage: of the comparison.
        say: told what takes time.
        beat: as :data:`BEAT`.

    Raises:
        ConfigError: where there is no copy, or the driver that writes it is still at work.
        DataError: where it is damaged.
    """
    where = shown(storage.address)
    wait_for_its_driver(storage, say, beat)
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


def wait_for_its_driver(storage: Storage, say: Callable[[str], None], beat: float = BEAT) -> None:
    """See whether the driver that was last at work on what a storage holds is lost, where it has not said its end.

    Args:
        storage: of a comparison.
        say: told what takes time.
        beat: as :data:`BEAT`.

    Raises:
        ConfigError: where it is at work.
    """
    sign = last_sign(storage)
    if sign is None or sign.ended:
        return
    say(f"the driver on host {sign.host} has not ended: {2.5 * beat:.0f} s to see whether it is lost")
    time.sleep(2.5 * beat)
    if last_sign(storage) != sign:
        where = shown(storage.address)
        raise ConfigError(f"another driver is at work on {where}, on host {sign.host}: end it first")


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
