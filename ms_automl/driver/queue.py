"""The order in which runs are asked for their next trial."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable

from ms_automl.comparison.run import Run


class RunQueue:
    """Runs that may run one more trial, in the order of being asked; what a call costs hardly grows with them.

    The dense references come first, then whoever is furthest from what its budget allows; ties go by order of
    definition. Runs that wait for their reference are parked, closed ones stand in line for their retrainings.

    Args:
        runs: all of a comparison's, none of them running a trial.

    Attributes:
        open: how many are not closed.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self._numbers: dict[str, int] = {}
        self._free: list[tuple[bool, int, int, Run]] = []
        self._parked: dict[int, list[Run]] = defaultdict(list)  # by seed
        self._closed: list[tuple[int, Run]] = []
        self._queued: set[str] = set()  # whichever of the three a run is in, or was in when it was dropped
        self.open = 0
        for number, run in enumerate(runs):
            self._numbers[run.name] = number
            self.open += 1
            self.push(run)

    def push(self, run: Run) -> None:
        """Put back a run that may run a trial more, or that is closed; one that is here already stays."""
        if run.name in self._queued:
            return
        self._queued.add(run.name)
        number = self._numbers[run.name]
        if run.closed:
            self.open -= 1
            heapq.heappush(self._closed, (number, run))
        else:
            done = len(run.trials) - run.planned_trials
            heapq.heappush(self._free, (not run.is_reference, done, number, run))

    def pop(self) -> Run | None:
        """Take out the one that is asked next; None where there is none."""
        if not self._free:
            return None
        run = heapq.heappop(self._free)[-1]
        self._queued.remove(run.name)
        return run

    def park(self, run: Run) -> None:
        """Keep a run that was taken out until a trial of its seed's reference has ended."""
        self._queued.add(run.name)
        self._parked[run.seed].append(run)

    def freed(self, run: Run) -> None:
        """Put back a run of which a trial has ended; with a reference, all that are parked for it."""
        self.push(run)
        if run.is_reference:
            for waiting in self._parked.pop(run.seed, []):
                self._queued.remove(waiting.name)
                self.push(waiting)

    def first_closed(self) -> Run | None:
        """The first closed run in order of definition that was not dropped; None where there is none."""
        return self._closed[0][1] if self._closed else None

    def drop_closed(self) -> None:
        """Take out :meth:`first_closed`: it has nothing more to run."""
        heapq.heappop(self._closed)
