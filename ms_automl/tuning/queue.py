"""The order in which streams are asked for their next trial."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable

from ms_automl.comparison.run import Stream


class StreamQueue:
    """Streams that may run one more trial, in the order of being asked; what a call costs hardly grows with them.

    The dense references come first, then whoever is furthest from what its budget allows; ties go by order of
    definition. Streams that wait for their reference are parked, closed ones stand in line for their retrainings.

    Args:
        streams: all of a comparison's, none of them running a trial.

    Attributes:
        open: how many are not closed.
    """

    def __init__(self, streams: Iterable[Stream]) -> None:
        self._numbers: dict[str, int] = {}
        self._free: list[tuple[bool, int, int, Stream]] = []
        self._parked: dict[int, list[Stream]] = defaultdict(list)  # by seed
        self._closed: list[tuple[int, Stream]] = []
        self._here: set[str] = set()  # whichever of the three a stream is in, or has left for good
        self.open = 0
        for number, stream in enumerate(streams):
            self._numbers[stream.name] = number
            self.open += 1
            self.push(stream)

    def push(self, stream: Stream) -> None:
        """Put back a stream that may run a trial more, or that is closed; one that is here already stays."""
        if stream.name in self._here:
            return
        self._here.add(stream.name)
        number = self._numbers[stream.name]
        if stream.closed:
            self.open -= 1
            heapq.heappush(self._closed, (number, stream))
        else:
            done = len(stream.trials) - stream.planned_trials
            heapq.heappush(self._free, (not stream.is_reference, done, number, stream))

    def pop(self) -> Stream | None:
        """Take out the one that is asked next; None where there is none."""
        if not self._free:
            return None
        stream = heapq.heappop(self._free)[-1]
        self._here.remove(stream.name)
        return stream

    def park(self, stream: Stream) -> None:
        """Keep a stream that was taken out until a trial of its seed's reference has ended."""
        self._here.add(stream.name)
        self._parked[stream.seed].append(stream)

    def freed(self, stream: Stream) -> None:
        """Put back a stream of which a trial has ended; with a reference, all that are parked for it."""
        self.push(stream)
        if stream.is_reference:
            for waiting in self._parked.pop(stream.seed, []):
                self._here.remove(waiting.name)
                self.push(waiting)

    def first_closed(self) -> Stream | None:
        """The first closed stream in order of definition that was not dropped; None where there is none."""
        return self._closed[0][1] if self._closed else None

    def drop_closed(self) -> None:
        """Take out :meth:`first_closed`: it has nothing more to run."""
        heapq.heappop(self._closed)
