"""Every error a user can cause, each with the exit status and one clear line of what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

STRICT = {"extra": "forbid", "allow_inf_nan": False}
"""``__pydantic_config__`` of settings: how the rim validates them. Nothing here needs pydantic."""


class MsAutomlError(Exception):
    """Root of the project's errors: the message names the condition, the value and what to do."""


class ConfigError(MsAutomlError, ValueError):
    """An unknown preset, arm, space or key, or a value outside its range."""


class DataError(MsAutomlError):
    """Data that is missing, damaged, or not what its task says it is."""


class NetworkError(MsAutomlError):
    """A network whose outputs do not fit the tasks it was built for."""


class BudgetError(MsAutomlError):
    """A budget smaller than what the comparison needs to begin."""


class TrackingError(MsAutomlError):
    """The MLflow store or server cannot be reached or written."""


class StartError(MsAutomlError):
    """No trial begins: the machine gives none a process."""


class DivergenceError(MsAutomlError):
    """A loss became NaN or infinite: the trial ends, the comparison goes on."""


def first_line(error: BaseException) -> str:
    """What an error says, in a line: one of ours by itself, somebody else's with its kind.

    >>> first_line(DataError("no images: check the folder")), first_line(KeyError("left"))
    ('no images: check the folder', "KeyError: 'left'")
    """
    line = (str(error).splitlines() or [""])[0]
    if isinstance(error, MsAutomlError):
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def unknown_name(kind: str, name: str, known: Sequence[str]) -> ConfigError:
    """Build the error for a name that is not in its table; it lists the names that are.

    >>> str(unknown_name("arm", "optna", ["meta", "optuna"]))
    "unknown arm 'optna': did you mean 'optuna'? Known: meta, optuna."
    """
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1)
    hint = f" did you mean '{close[0]}'?" if close else ""
    return ConfigError(f"unknown {kind} '{name}':{hint} Known: {', '.join(known)}.")


def require(conditions: Mapping[str, bool], settings: object) -> None:
    """Raise ConfigError for the conditions that do not hold, with the values of the settings that they name.

    Args:
        conditions: as they are written for a reader, ``0 <= momentum < 1``, and whether each holds.
        settings: has an attribute for every name in them that is a setting's.
    """
    broken = []
    for condition in (condition for condition, holds in conditions.items() if not holds):
        names = [name for name in re.findall(r"[a-z_]+", condition) if hasattr(settings, name)]
        values = ", ".join(f"{name}={getattr(settings, name)!r}" for name in names)
        broken.append(f"`{condition}` must hold, but got {values}")
    if broken:
        raise ConfigError("; ".join(broken))
