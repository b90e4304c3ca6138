"""A thread that writes to a store in order, waits where the store is away, and holds nobody up."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable

from mlflow.exceptions import MlflowException

from ms_automl.callbacks.mlflow.opening import final, passing, reason, short_timeouts

OUTAGE = 600.0
"""Seconds that a store may be away before a write is given up."""
PATIENCE = 120.0
"""Seconds to wait at the end for the next write to succeed."""
LONGEST_WAIT = 8.0
ANNOUNCED_AFTER = 15.0
"""Seconds after which the user is told that a store is away."""
STANDING, FLAPPING = 2, 6
"""How often a write may fail while the store takes others: for reasons that stay, and for those that pass."""
MOST = 3
"""Reasons that are told of writes that were lost."""


class UnmadeError(Exception):
    """What a write belongs to was never made, and the reason of that has been told."""


class Writer:
    """Runs writes one after another in a thread of its own, which ``say`` is called in too.

    Where a write fails, a probe tells a store that is away from one that will not take this write: it reads, and
    writes something fresh; without one a store is away unless it says that it is not. A store that is away, or
    busy, is waited for, for ``outage`` seconds at most; what one that answers refuses again is given up, counted,
    and :attr:`lost` says why.
    """

    def __init__(
        self,
        probe: Callable[[], object] | None = None,
        say: Callable[[str], object] = lambda line: None,
        outage: float = OUTAGE,
        patience: float = PATIENCE,
    ) -> None:
        self.probe, self.say = probe, say
        self.outage, self.patience = outage, patience
        self.seconds = 0.0
        self.written = 0
        self.lacks = 0
        self._reasons: Counter[str] = Counter()
        self._trouble: str | None = None  # of the write that is being tried again
        self._queue: queue.Queue[Callable[[int], object] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="mlflow-writer", daemon=True)

    @property
    def lost(self) -> str | None:
        """Why the store lacks what it does; None where it lacks nothing."""
        if not self.lacks:
            return None
        more = len(self._reasons) - MOST
        reasons = "; ".join(why for why, _ in self._reasons.most_common(MOST))
        return reasons + (f"; and {more} other reasons" if more > 0 else "")

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, write: Callable[[int], object]) -> None:
        """Have something written: called with 0, then with 1, 2, … where the store may have taken it already."""
        self._queue.put(write)

    def close(self) -> None:
        """Wait until everything is written, or nothing has been for ``patience`` seconds."""
        self._queue.put(None)
        done, since = -1, time.monotonic()
        while self._thread.is_alive():
            if self.written + self.lacks != done:
                done, since = self.written + self.lacks, time.monotonic()
            elif time.monotonic() - since > self.patience:
                silent = f"the store did not answer for {self.patience:g} s"
                self._lose(f"{silent}: {self._trouble}" if self._trouble else silent, self._queue.qsize())
                return
            self._thread.join(timeout=0.2)

    def _run(self) -> None:
        with short_timeouts():  # MLflow's own retries last for minutes, and hide that the store is away
            while (write := self._queue.get()) is not None:
                began = time.perf_counter()
                try:
                    self._write(write)
                    self.written += 1
                except UnmadeError:
                    self.lacks += 1
                except Exception as error:
                    self._lose(reason(error))
                self._trouble = None
                self.seconds += time.perf_counter() - began

    def _lose(self, why: str, count: int = 1) -> None:
        self.lacks += count
        self._reasons[why] += 1
        if self._reasons[why] == 1:
            self.say(f"not in MLflow: {why}")

    def _write(self, write: Callable[[int], object]) -> None:
        began, attempt, refused, announced = time.monotonic(), 0, 0, False
        while True:
            try:
                write(attempt)
                return
            except Exception as error:
                self._trouble = reason(error)
                away = self._away(error)
                refused += away is False
                if away is None or refused > (FLAPPING if passing(error) else STANDING):
                    raise
                waited = time.monotonic() - began
                if waited > self.outage:
                    self.outage = 2.0  # a store that stayed away once is not waited for again, write by write
                    raise
                if away and waited > ANNOUNCED_AFTER and not announced:
                    self.say(f"MLflow is away, and its records wait: {self._trouble}")
                    announced = True
                time.sleep(min(LONGEST_WAIT, 0.5 * 2**attempt, max(0.1, self.outage - waited)))
                attempt += 1

    def _away(self, error: Exception) -> bool | None:
        """Whether the store takes no other writes either; None where the one that failed is never taken."""
        if final(error) or not isinstance(error, (MlflowException, OSError)):  # requests' errors are OSErrors
            return None
        try:
            if self.probe is not None:
                self.probe()
            return self.probe is None
        except Exception as other:
            return None if final(other) else True
