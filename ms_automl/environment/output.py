"""What a command prints never ends it: whoever reads may go away, and may know fewer letters than are written."""

from __future__ import annotations

import errno
import io
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ms_automl.environment.process import ignored

GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
"""Nobody reads any more: ``| head -1``, a terminal or a stream that was closed. Any other trouble is said."""


@contextmanager
def lasting_output() -> Iterator[None]:
    """Run on where a terminal or pipe is closed or a disk is full, as ``nohup`` does; unknown letters are ``?``.

    What the process itself prints to is replaced for as long as this lasts. What another program, such as a
    notebook, has put in its place stays.
    """
    _fill_standard_streams()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        lasting(stream) if stream is own else stream
        for stream, own in ((sys.stdout, sys.__stdout__), (sys.stderr, sys.__stderr__))
    )
    try:
        with ignored(signal.SIGHUP):  # sent when a terminal is closed
            yield
    finally:
        trouble = _trouble(sys.stdout)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        if trouble is not None:
            line = f"error: what was printed is not whole ({trouble.strerror}): stdout"
            print(line, file=sys.stderr, flush=True)
        sys.stdout, sys.stderr = before


class _Lasting(io.FileIO):
    """A descriptor; what cannot be written to it is dropped, and ``lost`` says why."""

    lost: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        while rest and self.lost is None:
            try:
                written = super().write(rest)
                if written is None:  # somebody has made it non-blocking, and it is full
                    select.select((), (self,), ())
                rest = rest[written or 0 :]
            except OSError as error:
                self.lost = error
        return memoryview(data).nbytes


def lasting(stream: TextIO | None) -> TextIO:
    """A stream to where another one writes, that never fails; to nowhere where that one was closed."""
    if stream is None:  # as Python has it for a descriptor that was closed when it began
        return Path(os.devnull).open("w", encoding="utf-8")
    errors = "replace" if stream.errors in ("strict", "surrogateescape", None) else stream.errors
    at_once = isinstance(stream, io.TextIOWrapper) and stream.write_through
    stream.flush()
    raw: Any = _Lasting(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        raw if at_once else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=errors,
        line_buffering=bool(stream.line_buffering),
        write_through=at_once,
    )


def _trouble(stream: TextIO) -> OSError | None:
    """Why a stream of :func:`lasting` has lost what somebody still wants to read."""
    stream.flush()
    buffer = getattr(stream, "buffer", None)
    lost: OSError | None = getattr(getattr(buffer, "raw", buffer), "lost", None)
    return None if lost is None or lost.errno in GONE else lost


def _fill_standard_streams() -> None:
    """Open what is closed of descriptors 0 to 2: the next file, MLflow's database say, would take its place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
