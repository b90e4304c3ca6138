"""Arrays that are made once and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ms_automl.errors import DataError

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


def cache_folder() -> Path:
    """``$MS_AUTOML_CACHE``, else ``$XDG_CACHE_HOME/ms_automl``, else ``~/.cache/ms_automl``.

    Raises:
        DataError: for a user without a home.
    """
    own, base = os.environ.get("MS_AUTOML_CACHE"), os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(own).expanduser() if own else Path(base).expanduser() / "ms_automl"
    except RuntimeError as error:
        raise DataError(
            "this user has no home folder for the cache: set MS_AUTOML_CACHE to a folder that can be written"
        ) from error


def cache_file(name: str, version: int, arguments: Mapping[str, Any], folder: Path | None = None) -> Path:
    """Where :func:`cached` keeps the arrays: ``{folder}/{name}-v{version}-{hash of the arguments}.npz``."""
    text = json.dumps(arguments, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return (folder or cache_folder()) / f"{name}-v{version}-{digest}.npz"


def cached(
    name: str,
    version: int,
    arguments: Mapping[str, Any],
    make: Callable[[], Arrays],
    folder: Path | None = None,
) -> Arrays:
    """The arrays ``make()`` returns, made at most once per name, version and arguments.

    A file that is damaged (every array carries a checksum) is made again and replaced. Files are replaced
    in one step, so processes that make the same arrays at once do not disturb each other.

    Args:
        name: begins the file's name.
        version: raise it when ``make`` changes what it returns for the same arguments.
        arguments: all that the arrays depend on, as JSON can hold it.
        make: makes the arrays.
        folder: where to keep them; the user's cache folder if None.

    Raises:
        DataError: where the folder cannot be written.
    """
    path = cache_file(name, version, arguments, folder)
    stored = _read(path)
    return stored if stored is not None else _write(path, make)


def _read(path: Path) -> Arrays | None:
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            return {name: content[name] for name in content.files}
    except Exception:  # a damaged zip raises almost anything: BadZipFile, EOFError, RuntimeError, zlib.error
        return None


def _write(path: Path, make: Callable[[], Arrays]) -> Arrays:
    # The temporary file comes first: an unwritable folder must not cost the making.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            arrays = make()
            try:
                np.savez(file, allow_pickle=False, **arrays)
                file.flush()
                Path(temporary).replace(path)
            except OSError as error:
                raise _unwritable(path.parent, error) from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    return arrays


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write the cache folder {folder} ({error.strerror or error}): "
        "set MS_AUTOML_CACHE to a folder that can be written"
    )
