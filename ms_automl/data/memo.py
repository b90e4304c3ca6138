"""What was found in data that lie in files, so that they are not looked at again while they stay as they are."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Protocol, runtime_checkable

from ms_automl.data.cache import cache_folder
from ms_automl.data.contract import MultiTaskData
from ms_automl.data.functions import check_functions
from ms_automl.data.inspection import Findings, Progress, look


@runtime_checkable
class Identified(Protocol):
    """A split that can say what it holds without reading it."""

    def fingerprint(self) -> str | None:
        """A text that differs where any sample differs; None where that cannot be known."""
        ...


def inspect(data: MultiTaskData, progress: Progress | None = None) -> tuple[str, ...]:
    """Look at data whole, or remember what was found when that was done.

    Data are remembered whose splits all are :class:`Identified`, as those of prepared files are, in the user's
    cache folder. What lies in memory is looked at each time: to tell whether it is the same takes as long.

    Args:
        data: is read whole, or not at all.
        progress: is told after every batch.

    Returns:
        What is odd about them, a line each.

    Raises:
        DataError: for what :func:`~ms_automl.data.inspection.look` and
            :func:`~ms_automl.data.functions.check_functions` find.
    """
    identity = fingerprint(data)
    found = None if identity is None else _read(identity)
    if found is None:
        found = look(data, progress)
        if identity is not None:
            _write(identity, found)
    check_functions(data, found.partial)  # of own tasks, which no fingerprint knows
    return found.warnings


def fingerprint(data: MultiTaskData) -> str | None:
    """What identifies data, the tasks' heads and the code that reads them; None where a split does not say."""
    parts: list[object] = [_code()]
    for name, split in data.splits.items():
        own = split.fingerprint() if isinstance(split, Identified) else None
        if own is None:
            return None
        parts += [name, len(split), own]
    for seen, group in ((True, data.tasks), (False, data.unseen_tasks)):
        for task in group:
            parts += [seen, task.name, task.kind, task.domain, task.per_channel]
            parts += [task.head.channels, task.head.dense]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@cache
def _code() -> str:
    digest = hashlib.sha256()
    packages = Path(__file__).parents[1]
    for file in (*sorted(packages.glob("tasks/*.py")), *sorted(packages.glob("data/*.py"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _file(identity: str) -> Path:
    return cache_folder() / f"looked-at-{identity[:32]}.json"


def _read(identity: str) -> Findings | None:
    """What was found; None where nothing is kept, or what is kept is damaged."""
    try:
        content = json.loads(_file(identity).read_text(encoding="utf-8"))
        if content["data"] != identity:
            return None
        partial = {
            task: (str(split), int(invalid), int(valid))
            for task, (split, invalid, valid) in content["partial"].items()
        }
        return Findings(tuple(map(str, content["warnings"])), partial)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(identity: str, found: Findings) -> None:
    """Keep findings, whole or not at all; where nothing can be kept the data are looked at again next time."""
    content = {"data": identity, "warnings": found.warnings, "partial": found.partial}
    file = _file(identity)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.stem}-", suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                json.dump(content, out)
            Path(temporary).replace(file)
        finally:
            Path(temporary).unlink(missing_ok=True)
