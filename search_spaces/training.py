"""Training settings that a search chooses besides λ, or in which λ is learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ms_automl.errors import ConfigError, unknown_name
from search_spaces.space import Parameter

USUAL: dict[str, Callable[[float], str]] = {
    "training.lr": lambda value: f"{value / 10!r}..{value * 10!r}",
    "training.weight_decay": lambda value: "1e-6..0.1",
    "training.batch_size": lambda value: f"{max(2, value // 2)},{value},{2 * value}",
    "training.momentum": lambda value: "0.5..0.99",
    "training.warmup_share": lambda value: "0..0.3",
    "training.prox_share": lambda value: "0.5..0.9",
}
"""What can be searched, and where it is searched, given its value, where nobody says."""
WHOLE = ("training.batch_size",)
"""Whole numbers, of which choices are named."""


def training(tune: Mapping[str, Any], base: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """A parameter for each setting; on a log scale where the range spans a decade or more.

    Args:
        tune: by key ``"LOW..HIGH"``, choices as ``"A,B,C"`` or a list, or None for the usual range.
        base: by key the values that the settings have.

    Raises:
        ConfigError: for a setting that cannot be searched, or what is no range.
    """
    return tuple(_parameter(key, given, base) for key, given in tune.items())


def _parameter(key: str, given: Any, base: Mapping[str, Any]) -> Parameter:
    if key not in USUAL:
        raise unknown_name("setting to tune", key, list(USUAL))
    text = ",".join(map(str, given)) if isinstance(given, list | tuple) else str("" if given is None else given)
    text = text or USUAL[key](base[key])
    ends = text.split("..")
    try:
        values = [float(part) for part in (ends if len(ends) == 2 else text.split(","))]
    except ValueError:
        raise ConfigError(
            f"tune {key}: a range is LOW..HIGH and choices are A,B,C, in numbers, but got '{text}'"
        ) from None
    if len(ends) == 2 and key not in WHOLE:
        low, high = values
        if not low < high:
            raise ConfigError(f"tune {key}: `LOW < HIGH` must hold, but got '{text}'")
        return Parameter(key, low, high, "log" if low > 0 and high >= 10 * low else "linear")
    if len(ends) == 2 or (key in WHOLE and any(value != int(value) for value in values)):
        raise ConfigError(f"tune {key}: name its choices, whole numbers as in {key}=8,16,32, but got '{text}'")
    if len(set(values)) < 2:
        raise ConfigError(f"tune {key}: at least two choices, or a range LOW..HIGH, but got '{text}'")
    return Parameter(key, min(values), max(values), "linear", tuple(values))
