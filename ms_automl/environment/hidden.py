"""Files of the user's that Python takes for its own modules: ``python -m`` looks into the working folder first.

Imported before anything else, and so needs nothing but what Python has loaded itself.
"""

import os
import sys
from types import TracebackType


def _hiding(folder: str) -> list[str]:
    """Files and packages in a folder that hide modules of Python's own."""
    try:
        entries = set(os.listdir(folder))  # noqa: PTH208 - pathlib may be what cannot be imported
    except OSError:
        return []
    return sorted(
        f"{name}.py" if f"{name}.py" in entries else name
        for name in sys.stdlib_module_names
        if f"{name}.py" in entries or (name in entries and os.path.exists(f"{folder}/{name}/__init__.py"))  # noqa: PTH110
    )


def explained(error: BaseException) -> str | None:
    """What to do where a hiding file is why something cannot be imported; None where that is not so."""
    if not isinstance(error, ImportError | AttributeError) or not (found := _hiding(sys.path[0] or ".")):
        return None
    return f"{', '.join(found)} in this folder: Python takes it for its own module ({error}): rename it"


def say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """End the process with one line where a hiding file is why; show any other error as Python does."""
    line = explained(error)
    if line is None:
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write(f"error: {line}\n")
    sys.stderr.flush()
    os._exit(2)
