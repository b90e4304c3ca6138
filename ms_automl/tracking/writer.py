"""A thread that writes to a store in order, waits where the store is away, and holds nobody up."""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable

from mlflow.exceptions import MlflowException

OUTAGE = 600.0
"""Seconds that a store may be away before a write is given up."""
PATIENCE = 120.0
"""Seconds to wait at the end for the next write to succeed."""
LONGEST_WAIT = 8.0
FINAL = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "PERMISSION_DENIED",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "UNAUTHENTICATED",
}
"""What a store says of a write that it will never take."""


class Writer:
    """Runs writes one after another in a thread of its own.

    A write that fails because the store is away, or busy, is tried again until the store is back, for
    :data:`OUTAGE` seconds at most; one that the store refuses is given up at once. What could not be written is
    said by :attr:`lost`.

    Args:
        outage: seconds, as above.
        patience: seconds that :meth:`close` waits for the next write to succeed.
    """

    def __init__(self, outage: float = OUTAGE, patience: float = PATIENCE) -> None:
        self.outage = outage
        self.patience = patience
        self.lost: str | None = None
        self.seconds = 0.0
        self.written = 0
        self._queue: queue.Queue[Callable[[int], object] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="mlflow-writer", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, write: Callable[[int], object]) -> None:
        """Have something written.

        Args:
            write: called with 0, then with 1, 2, … where it has to be tried again: the store may have taken it
                and its answer been lost.
        """
        self._queue.put(write)

    def close(self) -> None:
        """Wait until everything is written, or nothing has been for ``patience`` seconds."""
        self._queue.put(None)
        written, since = self.written, time.monotonic()
        while self._thread.is_alive():
            self._thread.join(timeout=0.2)
            if self.written != written:
                written, since = self.written, time.monotonic()
            elif time.monotonic() - since > self.patience:
                self.lost = self.lost or f"the store did not answer for {self.patience:g} s"
                return

    def _run(self) -> None:
        while (write := self._queue.get()) is not None:
            began = time.perf_counter()
            problem = self._try(write)
            if problem is None:
                self.written += 1
            else:
                self.lost = self.lost or reason(problem)
            self.seconds += time.perf_counter() - began

    def _try(self, write: Callable[[int], object]) -> Exception | None:
        # A store that stayed away once is not waited for again, write by write.
        outage = 2.0 if self.lost else self.outage
        began, attempt = time.monotonic(), 0
        while True:
            try:
                write(attempt)
            except Exception as error:
                waited = time.monotonic() - began
                if waited > outage or not _passes(error):
                    return error
                time.sleep(min(LONGEST_WAIT, 0.5 * 2**attempt, max(0.1, outage - waited)))
                attempt += 1
            else:
                return None


def _passes(error: Exception) -> bool:
    """Whether the same write may succeed later."""
    if isinstance(error, MlflowException):
        return error.error_code not in FINAL
    return isinstance(error, OSError)  # requests' errors are among them


def public(text: str) -> str:
    """A store's address, or a text with addresses in it, without passwords."""
    return re.sub(r"://[^/\s]*@", "://", text)


def reason(error: Exception) -> str:
    """An error in one short line, without passwords."""
    return public(" ".join(str(error).split()))[:200]
