"""The packages that lie beside this one, whatever else is called as they are.

``analysis``, ``search_spaces`` and ``trainables`` are names that a user's own folder may have too, and Python
looks there first. :func:`ours` has them mean ours for as long as it lasts, and only there: to a program that uses
this package, and to a user's own factories, ``import analysis`` means what it would without us.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

NAMES = ("analysis", "search_spaces", "trainables")
ROOT = Path(__file__).resolve().parents[2]

_ours: dict[str, ModuleType] = {}
"""Modules of ours by full name, while the names are somebody else's."""


class _Beside:
    """Finds a package in the folder that this one lies in."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [str(ROOT)]) if name in NAMES else None


@contextmanager
def ours() -> Iterator[None]:
    """Have imports of :data:`NAMES` find ours, and put back afterwards what they meant before."""
    if _Beside in sys.meta_path:
        yield
        return
    loaded = [name for name in NAMES if name in sys.modules]
    foreign = {
        name: _taken(name) for name in loaded if not _is_ours(name, getattr(sys.modules[name], "__spec__", None))
    }
    sys.modules.update(_ours)
    sys.meta_path.insert(0, _Beside)
    try:
        yield
    finally:
        sys.meta_path.remove(_Beside)
        for name in NAMES:
            found = next(filter(None, (finder.find_spec(name, None, None) for finder in sys.meta_path)), None)
            if name in foreign or (found is not None and not _is_ours(name, found)):
                _ours.update(_taken(name))
            sys.modules.update(foreign.get(name, {}))


def _taken(name: str) -> dict[str, ModuleType]:
    """Take a package and its modules out of those that are loaded."""
    loaded = [module for module in sys.modules if module == name or module.startswith(f"{name}.")]
    return {module: sys.modules.pop(module) for module in loaded}


def _is_ours(name: str, spec: ModuleSpec | None) -> bool:
    origin = None if spec is None else spec.origin  # a folder without __init__.py has none
    return origin is not None and Path(origin).resolve() == ROOT / name / "__init__.py"
