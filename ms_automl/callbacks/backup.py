"""A copy of a comparison's files in its storage: what another head goes on from when the driver's disk is lost."""

from __future__ import annotations

import io
import json
import platform
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ms_automl.callbacks.restore import FILES, HEARTBEAT, OWNER, RECORD
from ms_automl.comparison.run import Callback, Run, Trial
from ms_automl.errors import ConfigError
from ms_automl.storage.remote import Storage, shown

RESULTS = ("best", "report")
EVERY = 2.0
"""Seconds between two copies at the least: what ends in between is lost with the disk, and done again."""
AT_LEAST = 60.0
"""Seconds after which a copy is made of what has been charged, though no trial has ended or left a state since."""
SHARE = 0.2
"""Share of the time that making copies takes at most."""


class Backup(Callback):
    """Copies files of a folder to a storage as they grow, in a thread, and leaves heartbeats there.

    Is told after the log. A copy is made soon after a trial has ended or left a state, else from time to time: a
    store that keeps versions keeps them all.
    What is copied is what the files held at one moment, as a driver that was killed there would have left them.
    A store that is away holds nothing up: the next copy has everything again.

    Args:
        folder: of a comparison, or of its transfer stage.
        storage: where its copies go, outside of that folder.
        files: of the folder, by name; each but the first one only ever grows.
        results: folders in it that are copied at the end.
        every: seconds between two copies at the least.
        heartbeat: seconds between two heartbeats.
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
        self.folder = folder
        self.storage = storage
        self.files = files
        self.results = results
        self.every = every
        self.heartbeat = heartbeat
        self.driver = uuid.uuid4().hex
        self.trouble: str | None = None
        self._sizes: dict[str, int] = {}
        self._unneeded: list[str] = []
        self._lock = threading.Lock()
        self._urgent, self._over = threading.Event(), threading.Event()
        self._copied: dict[str, int] = {}
        self._heartbeats = 0
        self._thread = threading.Thread(target=self._run, name="backup", daemon=True)

    def begin(self) -> None:
        """Make the first copy, and go on in a thread.

        Raises:
            ConfigError: where the storage cannot be written.
        """
        self.note_sizes()
        try:
            self._write_heartbeat()
            self._copy()
        except OSError as error:
            raise ConfigError(f"nothing can be stored in {shown(self.storage.address)}: {error}") from error
        self._thread.start()

    def note_sizes(self) -> None:
        """Note the lengths of the files, in the thread that writes them: so far they belong together."""
        sizes = {name: file.stat().st_size for name in self.files if (file := self.folder / name).exists()}
        with self._lock:
            self._sizes = sizes

    def trial_suggested(self, run: Run, trial: Trial) -> None:
        """Note the lengths of the files for the next copy."""
        self.note_sizes()

    def trial_started(self, run: Run, trial: Trial) -> None:
        """Note the lengths of the files for the next copy."""
        self.note_sizes()

    def trial_reported(self, run: Run, trial: Trial, metrics: dict[str, float]) -> None:
        """Note the lengths of the files for the next copy."""
        self.note_sizes()

    def trial_ended(self, run: Run, trial: Trial) -> None:
        """Have a copy made soon: a trial has ended."""
        self._have_copied()

    def trial_stored(self, run: Run, trial: Trial) -> None:
        """Have a copy made soon: a model or a state is stored."""
        self._have_copied()

    def _have_copied(self) -> None:
        self.note_sizes()
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
        self.note_sizes()

        def all_of_it() -> None:
            self._copy()
            for name in self.results:
                if (self.folder / name).is_dir():
                    self.storage.copy(self.folder / name, name)
            self._write_heartbeat(ended=True)

        self._try(all_of_it)

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
            return False
        self.trouble = None
        return True

    def _write_heartbeat(self, *, ended: bool = False) -> None:
        self._heartbeats += 1
        content = {"driver": self.driver, "host": platform.node(), "beats": self._heartbeats, "ended": ended}
        self.storage.write(OWNER, json.dumps(content).encode())

    def _copy(self) -> None:
        with self._lock:
            sizes, unneeded, self._unneeded = self._sizes, self._unneeded, []
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, size in sizes.items():
                with (self.folder / name).open("rb") as file:
                    # The first one is replaced as a whole, and its length may have been another one's.
                    archive.writestr(name, file.read(-1 if name == self.files[0] else size))
        try:
            self.storage.write(RECORD, packed.getvalue())
        except OSError:
            with self._lock:
                self._unneeded = unneeded + self._unneeded
            raise
        self._copied = sizes
        for place in unneeded:
            self.storage.remove(place)
