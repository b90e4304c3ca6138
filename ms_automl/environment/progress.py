"""How far something is that takes its time, where a person looks on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

Progress = Callable[[str, int, int], None]
"""A function that is told what is done, how much of it, and how much there is."""

_EVERY = 10.0  # seconds


@contextmanager
def shown(console: Console, title: str, *, stays: bool = True) -> Iterator[Progress]:
    """A bar for each thing that is done; without a terminal a line every ten seconds.

    Args:
        console: where it is shown.
        title: before what is done.
        stays: whether the bars stay when all is done.
    """
    if not console.is_terminal:
        yield _Lines(console, title)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=not stays) as bars:
        rows = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in rows:
                rows[what] = bars.add_task(f"{title}{what}", total=total)
            bars.update(rows[what], completed=done)

        yield progress


class _Lines:
    def __init__(self, console: Console, title: str) -> None:
        self.console, self.title = console, title
        self.next = time.monotonic() + _EVERY

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() >= self.next:
            self.next = time.monotonic() + _EVERY
            self.console.print(f"{self.title}{what}: {done} of {total}", markup=False, soft_wrap=True)
