"""What a program hands over to the functions that stand for our commands, checked before anything else.

A check takes an argument's name and value, None where it is left out, and raises ConfigError in one line.
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ms_automl.errors import ConfigError, unknown_name


def names(argument: str, value: Any) -> list[str] | None:
    """A list of names, with at least one."""
    if value is None:
        return None
    if isinstance(value, str):
        raise ConfigError(f"{argument} takes a list of names, but got {value!r}: write [{value!r}]")
    found = list(value) if isinstance(value, Iterable) else [value]
    if not all(isinstance(name, str) for name in found):
        raise ConfigError(f"{argument} takes a list of names, but got {_shown(value)}")
    if not found:
        raise ConfigError(f"{argument} is empty: name one, or leave it out")
    return found


def among(kind: str, found: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """The names that were given, all of them known, in their usual order; all where none were."""
    for name in found or ():
        if name not in known:
            raise unknown_name(kind, name, known)
    return [name for name in known if found is None or name in found]


def whole(argument: str, value: Any, least: int | None = None) -> int | None:
    """A whole number, of numpy's too, of at least ``least``."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or abs(number) > 10**9:
        raise ConfigError(f"{argument} takes a whole number, but got {_shown(value)}")
    if least is not None and number < least:
        raise ConfigError(f"`{argument} {least}` or more must hold, but got {number}")
    return number


def path(argument: str, value: Any) -> Path | None:
    """A place on this machine."""
    if value is None:
        return None
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str) or "\0" in text:
        raise ConfigError(f"{argument} takes a path, but got {_shown(value)}")
    if not text.strip():
        raise ConfigError(f"{argument}: the path is empty: name one, or leave it out")
    if re.match(r"[a-z0-9]{2,}:/", text):
        wanted = "takes a folder of this machine"
        raise ConfigError(f"{argument} {wanted}, but got '{text}': a store is named by storage")
    return Path(text).expanduser()


def text(argument: str, value: Any) -> str | None:
    """A name or an address."""
    found = os.fspath(value) if isinstance(value, os.PathLike) else value
    if found is not None and (not isinstance(found, str) or not found.strip()):
        raise ConfigError(f"{argument} takes a text, but got {_shown(value)}")
    return found


def values(argument: str, value: Any) -> dict[str, Any]:
    """Values by name; empty for what is left out."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{argument} takes values by name, {{'training.steps': 400}}, but got {_shown(value)}")
    return dict(value)


def folder_there(argument: str, value: Any) -> Path | None:
    """The whole path of a folder that exists."""
    found = path(argument, value)
    if found is not None and not found.is_dir():
        raise ConfigError(f"{argument} {found} is no folder: name the one that the data lies in")
    return None if found is None else found.resolve()


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
