"""What Ray says at length of what went wrong, in a line that says what to do."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

LOST = "the trial's process died"
_MEMORY = re.compile(r"was ([\d.]+GB) used / ([\d.]+GB) limit")


def why_not_started(error: Exception) -> str:
    """Why Ray does not start on this machine, and the variable to set."""
    reason = " ".join(str(error).split())
    if "AF_UNIX" in reason:
        name, folder = _temporary()
        return (
            f"{name} {folder} is too long a path for the sockets that it makes there: set RAY_TMPDIR or TMPDIR to "
            "a short one, such as /tmp"
        )
    place = getattr(error, "filename", None)
    if place is not None:
        name, folder = _temporary()
        if Path(str(place)).is_relative_to(folder):
            return f"{reason}: set RAY_TMPDIR or TMPDIR, here {folder}, to a folder that can be written"
        return f"{reason}: set HOME, here {os.environ.get('HOME', 'missing')}, to a folder that can be written"
    if "home directory" in reason:
        return "this user has no home folder: set HOME to a folder that can be written"
    return reason


def _temporary() -> tuple[str, str]:
    """The folder that Ray works in, and what says so."""
    for name in ("RAY_TMPDIR", "TMPDIR"):
        if name in os.environ:
            return name, os.environ[name]
    return "the temporary folder", tempfile.gettempdir()


def why_lost(text: str) -> str:
    """Why a trial's process is gone.

    Args:
        text: what Ray has said of it; may be empty.
    """
    if "running low on memory" in text:
        used = _MEMORY.search(text)
        state = f" ({used[1]} of {used[2]} in use)" if used else ""
        return (
            f"{LOST}: memory ran out on its host{state}, and Ray stopped it: run fewer at a time (--slots), or "
            "set a smaller training.batch_size"
        )
    return f"{LOST}; see the log in the tune folder"
