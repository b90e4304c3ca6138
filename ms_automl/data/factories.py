"""Data by name or by ``pkg.module:function``: the presets' and the user's own, through one door."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ms_automl.data import DATASETS, MultiTaskData, check_data
from ms_automl.errors import ConfigError, MsAutomlError, unknown_name

OWN: dict[str, Callable[..., Any]] = {}
"""Factories that a program has handed over as functions, by the name under which they are recorded."""


def resolve(kind: str, name: str, known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """The function that a factory's name stands for.

    Args:
        kind: ``data`` or ``network``, for the error.
        name: a key of :data:`OWN` or ``known``, or ``pkg.module:function``; the module must be importable.
        known: built-in factories.
    """
    if name in OWN:
        return OWN[name]
    if name.startswith("object:"):
        raise ConfigError(
            f"{kind} was handed over as an object ('{name}'), and no other process has it: hand it over again by "
            f"`{kind}=`, or begin with a function in a module of your own ('pkg.module:function'), which transfer "
            "and export can call too"
        )
    if ":" not in name:
        if name not in known:
            raise ConfigError(f"{unknown_name(f'{kind}.factory', name, list(known))} Or pkg.module:function.")
        return known[name]
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever a module of the user's own does
        hint = "; run from the folder that holds it, or put that folder on PYTHONPATH"
        if module_name.endswith(".py") or "/" in module_name:
            hint = "; it is written as in an import statement: pkg.module:function"
        raise ConfigError(
            f"{kind}.factory '{name}': cannot import '{module_name}' ({type(error).__name__}: {error})"
            f"{hint if isinstance(error, ImportError) else ''}"
        ) from error
    function: Any = module
    for part in function_name.split("."):  # a method of an object, too
        function = getattr(function, part, None)
    if not callable(function) and module_name == "__main__":
        raise ConfigError(
            f"{kind}.factory '{name}' is a function of the script that made the comparison: do this in that "
            "script, from Python, or put the function into a module of its own"
        )
    if not callable(function):
        where = getattr(module, "__file__", None) or "of Python's own"
        raise ConfigError(f"{kind}.factory '{name}': {module_name} has no function {function_name} ({where})")
    return function  # type: ignore[no-any-return]


def build_data(name: str, args: Mapping[str, Any], *, seed: int, data_dir: Path | None) -> MultiTaskData:
    """Call a data factory as ``factory(seed, data_dir, **args)`` and check what it returns."""
    factory = resolve("data", name, DATASETS)
    data: MultiTaskData = called("data", name, factory, (seed, data_dir), args)
    check_data(data)
    return data


def called(
    kind: str, name: str, factory: Callable[..., Any], given: Sequence[Any], args: Mapping[str, Any]
) -> Any:
    """What a factory makes of what every factory is given, and of its own arguments, whatever their names are."""
    for taken in _first_names(factory, len(given)):
        if taken in args:
            raise ConfigError(
                f"{kind}.args: '{taken}' is given to {kind}.factory '{name}' by the comparison itself: leave it "
                "out, or call the factory's own argument otherwise"
            )
    try:
        return factory(*given, **args)
    except MsAutomlError:
        raise
    except (Exception, SystemExit) as error:  # a script that ends itself must not end the comparison
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        were = ", ".join(f"{key}={value!r}" for key, value in args.items()) or "none"
        raise ConfigError(f"{kind}.factory '{name}': {reason}; {kind}.args were: {were}") from error


def _first_names(factory: Callable[..., Any], count: int) -> list[str]:
    """Names of a factory's first parameters, those that could be given by name as well."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # a callable without a signature
        return []
    return [
        parameter.name for parameter in [*parameters][:count] if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
