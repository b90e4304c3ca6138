"""How far something is that takes its time, where a person looks on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

Progress = Callable[[str, int, int], None]
"""A function that is told what is done, how much of it, and how much there is."""
_EVERY = 10.0  # seconds


@contextmanager
def shown(console: Console, title: str, *, stays: bool = True) -> Iterator[Progress]:
    """A bar for each thing that is done, with a title; without a terminal a line every ten seconds."""
    if not console.is_terminal:
        due = time.monotonic() + _EVERY

        def line(what: str, done: int, total: int) -> None:
            nonlocal due
            if time.monotonic() >= due:
                due = time.monotonic() + _EVERY
                console.print(f"{title}{what}: {done} of {total}", markup=False, soft_wrap=True)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=not stays) as bars:
        rows = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in rows:
                rows[what] = bars.add_task(f"{title}{what}", total=total)
            bars.update(rows[what], completed=done)

        yield progress
