"""The packages that lie beside this one, whatever else is called as they are.

``analysis``, ``search_spaces`` and ``trainables`` are names that a user's own folder may have too, and Python
looks there first. :func:`ours` has them mean ours for as long as it lasts, and only there: to a program that uses
this package, and to a user's own factories, ``import analysis`` means what it would without us.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

NAMES = ("analysis", "search_spaces", "trainables")
ROOT = Path(__file__).resolve().parents[2]

_ours: dict[str, ModuleType] = {}
"""Modules of ours by full name, while the names are somebody else's."""


class _Beside(MetaPathFinder):
    """Finds a package in the folder that this one lies in."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(fullname, [str(ROOT)]) if fullname in NAMES else None


_BESIDE = _Beside()


@contextmanager
def ours() -> Iterator[None]:
    """Have imports of :data:`NAMES` find ours, and put back afterwards what they meant before."""
    if _BESIDE in sys.meta_path:
        yield
        return
    foreign = {name: _taken(name) for name in NAMES if _is_foreign(_origin(sys.modules.get(name)), name)}
    sys.modules.update(_ours)
    sys.meta_path.insert(0, _BESIDE)
    try:
        yield
    finally:
        sys.meta_path.remove(_BESIDE)
        for name in NAMES:
            if name in foreign or _is_foreign(_found(name), name):
                _ours.update(_taken(name))
            sys.modules.update(foreign.get(name, {}))


def _taken(name: str) -> dict[str, ModuleType]:
    """Take a package and its modules out of those that are loaded."""
    loaded = [module for module in sys.modules if module == name or module.startswith(f"{name}.")]
    return {module: sys.modules.pop(module) for module in loaded}


def _is_foreign(place: str | None, name: str) -> bool:
    return place is not None and not (place and Path(place).resolve() == ROOT / name / "__init__.py")


def _origin(module: ModuleType | None) -> str | None:
    """The file of a module that is loaded; '' where it has none, as a folder without ``__init__.py``."""
    return None if module is None else (getattr(module, "__file__", None) or "")


def _found(name: str) -> str | None:
    """The file that a name would be imported from; '' for a folder, None where there is nothing."""
    for finder in sys.meta_path:
        if (spec := finder.find_spec(name, None, None)) is not None:
            return spec.origin or ""
    return None
