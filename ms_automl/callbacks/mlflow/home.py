"""Where the artifacts of an SQLite store lie: beside it, also when its folder was copied, renamed or moved.

MLflow keeps absolute paths of artifacts in the database. In a copy of a project they lead into the original, and
what is written by the copy would land there.
"""

from __future__ import annotations

import platform
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ms_automl.callbacks.mlflow.address import database
from ms_automl.errors import TrackingError

FOLDER = "mlruns"
PATHS = {"experiments": "artifact_location", "runs": "artifact_uri", "logged_models": "artifact_location"}
"""Tables of MLflow's, and their column that holds a path."""
HERE = {"localhost", "127.0.0.1", "::1", platform.node().lower()}


def location(uri: str, experiment: str) -> str | None:
    """Where an experiment that is made anew is to have its artifacts; None where its server decides."""
    file = database(uri)
    return None if file is None else (file.resolve().parent / FOLDER / experiment).as_uri()


def folder_of(address: str | None) -> Path | None:
    """The folder of artifacts on this machine that an address names; None for one elsewhere."""
    parts = urlsplit(address or "")
    if address and not parts.scheme:
        return Path(unquote(address))  # as MLflow reads it
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def owner(folder: Path, file: Path) -> Path | None:
    """The nearest database file above artifacts, called as a store's own or as MLflow calls its."""
    names = dict.fromkeys((file.name, file.resolve().name, "mlflow.db"))
    found = (above / name for above in folder.parents for name in names)
    return next((candidate for candidate in found if candidate.is_file()), None)


def settle(uri: str, experiment_id: str, recorded: str) -> str:
    """Have a store that was copied or moved keep an experiment's artifacts beside itself.

    Args:
        uri: of the store.
        experiment_id: of the experiment.
        recorded: where its artifacts are, as the store has it.

    Returns:
        What was done, in a line; empty where they are in their place.

    Raises:
        TrackingError: where they are another store's, and none are beside this one.
    """
    file, old = database(uri), folder_of(recorded)
    if file is None or old is None or _owns(file, old):
        return ""
    home, runs = file.resolve().parent, _runs(file, experiment_id)
    new = _beside(old, file, runs)
    if new is None:
        other = owner(old, file)
        if other is None and old.is_dir():
            return ""  # somebody has chosen that folder
        new = home / (FOLDER if other is None else old.parent.relative_to(other.parent)) / old.name
        if runs and other is not None and old.is_dir():
            raise TrackingError(
                f"the MLflow store {file} is a copy, and its artifacts are those of {other}, in {old}: copy that "
                f"folder to {new}"
            )
    _move(file, experiment_id, recorded, new.as_uri())
    return f"the MLflow store was moved from {old} to {file.parent}: its artifacts are those in {new}"


def check(uri: str, address: str) -> None:
    """Refuse to write artifacts where this store has none.

    Args:
        uri: of the store.
        address: of a run's artifacts.

    Raises:
        TrackingError: where the folder belongs to another store, or to another machine.
    """
    folder, file = folder_of(address), database(uri)
    if folder is None:
        return
    if file is not None:
        other = owner(folder, file)
        if other is not None and not _owns(file, folder):
            raise TrackingError(
                f"the run's artifacts are recorded in {folder}, beside the store {other}: nothing of "
                f"{file} is written there"
            )
    elif uri.startswith("http") and urlsplit(uri).hostname not in HERE and not folder.is_dir():
        raise TrackingError(
            f"the run's artifacts are recorded in {folder} of the machine that wrote them, which is not here: run "
            "this on that machine, or have its MLflow server serve artifacts (--artifacts-destination)"
        )


def _owns(file: Path, folder: Path) -> bool:
    """Whether artifacts lie beside a database file, and no other store's lies between."""
    nearest = owner(folder.resolve(), file) or owner(folder, file)
    if nearest is not None:
        return nearest.resolve() == file.resolve()
    return folder.resolve().is_relative_to(file.resolve().parent)


def _beside(old: Path, file: Path, runs: Sequence[str]) -> Path | None:
    """The folder beside a store that has artifacts of its runs, called as the recorded one was."""
    home, parts = file.resolve().parent, old.parts[1:]
    for first in range(len(parts)):
        new = home.joinpath(*parts[first:])
        if _owns(file, new) and any((new / run).is_dir() for run in runs):
            return new
    return None


def _runs(file: Path, experiment_id: str) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        found = connection.execute("SELECT run_uuid FROM runs WHERE experiment_id = ?", (experiment_id,))
        return [run for (run,) in found]


def _move(file: Path, experiment_id: str, old: str, new: str) -> None:
    """Put another beginning to the paths of an experiment, of its runs and of its models."""
    old = old.rstrip("/")
    try:
        with closing(sqlite3.connect(file, timeout=20)) as connection, connection:
            for table, column in PATHS.items():
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE experiment_id = ? AND ({column} = ? OR substr({column}, 1, ?) = ?)",
                    (new, len(old) + 1, experiment_id, old, len(old) + 1, f"{old}/"),
                )
    except sqlite3.Error as error:
        raise TrackingError(
            f"the MLflow store {file} was moved, and where its artifacts are now cannot be written into it "
            f"({error}): make the file writable"
        ) from error
