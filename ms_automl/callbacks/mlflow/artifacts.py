"""Files of MLflow runs and models, put where they belong.

MLflow remembers a run's folder by the run's id for the whole process, and two stores may hold the same run: a
project and its copy. It also keeps absolute paths in the database, which in a copy lead into the original. What is
an SQLite store's lies beside it, also when its folder was copied, renamed or moved.
"""

from __future__ import annotations

import json
import platform
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlsplit

from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from ms_automl.callbacks.mlflow.opening import database, opened, tracking_uri
from ms_automl.errors import DataError, TrackingError

FOLDER = "mlruns"
PATHS = {"experiments": "artifact_location", "runs": "artifact_uri", "logged_models": "artifact_location"}
"""Tables of MLflow's, and their column that holds a path."""
HERE = {"localhost", "127.0.0.1", "::1", platform.node().lower()}


class Artifacts:
    """Reads and writes artifacts of one store; TrackingError where they would land among those of another."""

    def __init__(self, client: MlflowClient, uri: str) -> None:
        self.client, self.uri = client, uri

    def put(self, run_id: str, folder: Path, name: str | None = None) -> None:
        """Add a folder's files to a run, as ``name`` or at its top."""
        self.put_at(self._address(run_id), folder, name)

    def put_at(self, address: str, folder: Path, name: str | None = None) -> None:
        """Add a folder's files at the address of a run's or a model's artifacts."""
        check(self.uri, address)
        self._at(address).log_artifacts(str(folder), name)

    def put_json(self, run_id: str, content: dict[str, Any], name: str) -> None:
        """Add one JSON file to a run."""
        with TemporaryDirectory() as folder:
            Path(folder, name).write_text(json.dumps(content, indent=2, default=str), encoding="utf-8")
            self.put(run_id, Path(folder))

    def names(self, run_id: str, folder: str | None = None) -> set[str]:
        """What a run has at its top, or in one of its folders."""
        return {item.path for item in self._at(self._address(run_id)).list_artifacts(folder)}

    def fetch(self, run_id: str, name: str, into: Path) -> Path:
        """A copy of a file or folder of a run's."""
        return Path(self._at(self._address(run_id)).download_artifacts(name, str(into)))

    def read_json(self, run_id: str, name: str) -> dict[str, Any]:
        """The content of a JSON file of a run's."""
        with TemporaryDirectory() as folder:
            return dict(json.loads(self.fetch(run_id, name, Path(folder)).read_text("utf-8")))

    def _address(self, run_id: str) -> str:
        return str(self.client.get_run(run_id).info.artifact_uri)

    def _at(self, address: str) -> Any:  # an ArtifactRepository, whose methods have no types
        return get_artifact_repository(address, tracking_uri=self.uri)


def selected_model(run_id: str, folder: Path | None, name: str, into: Path, uri: str | None = None) -> Path:
    """The folder of a comparison's selected model ``<arm>-<seed>``; DataError where there is none.

    Where only the comparison's records are at hand, and no folder, it is fetched from MLflow.
    """
    if folder is not None:
        model = folder / "best" / name
        if not (model / "model.json").is_file():
            raise DataError(f"{model} holds no model: give the comparison's MLflow run id, or restore the folder")
        return model
    uri = tracking_uri(uri)
    client = opened(uri, writes=False)
    try:
        experiment = client.get_run(run_id).info.experiment_id
        wanted = f"tags.`ms_automl.comparison` = '{run_id}' and attributes.run_name = '{name}'"
        (run,) = client.search_runs([experiment], wanted)
        into.mkdir(parents=True, exist_ok=True)
        return Artifacts(client, uri).fetch(run.info.run_id, "model", into)
    except (MlflowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"MLflow run {run_id} has no model of {name} ({reason})") from error


def location(uri: str, experiment: str) -> str | None:
    """Where an experiment that is made anew is to have its artifacts; None where its server decides."""
    file = database(uri)
    return None if file is None else (file.resolve().parent / FOLDER / experiment).as_uri()


def folder_of(address: str) -> Path | None:
    """The folder of artifacts on this machine that an address names; None for one elsewhere."""
    parts = urlsplit(address)
    if parts.scheme not in ("", "file"):
        return None
    return Path(unquote(parts.path if parts.scheme else address))  # as MLflow reads it


def settle(uri: str, experiment_id: str, recorded: str) -> str:
    """Have a store that was copied or moved keep an experiment's artifacts beside itself; what was done, or ''.

    TrackingError where they are another store's, and none beside this one.
    """
    file, old = database(uri), folder_of(recorded)
    if file is None or old is None or _owns(file, old):
        return ""
    with closing(sqlite3.connect(file)) as connection:
        found = connection.execute("SELECT run_uuid FROM runs WHERE experiment_id = ?", (experiment_id,))
        runs = [run for (run,) in found]
    new = _beside(old, file, runs)
    if new is None:
        other = _owner(old, file)
        if other is None and old.is_dir():
            return ""  # somebody has chosen that folder
        new = file.resolve().parent / FOLDER / old.name
        if runs and old.is_dir():
            raise TrackingError(
                f"the MLflow store {file} is a copy, and its artifacts are those of {other}, in {old}: copy that "
                f"folder to {new}"
            )
    _move(file, experiment_id, recorded.rstrip("/"), new.as_uri())
    return f"the MLflow store was moved from {old} to {file.parent}: its artifacts are those in {new}"


def check(uri: str, address: str) -> None:
    """TrackingError where the folder at an address of artifacts is another store's, or another machine's."""
    folder, file = folder_of(address), database(uri)
    if folder is None:
        return
    if file is not None:
        other = _owner(folder, file)
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


def _owner(folder: Path, file: Path) -> Path | None:
    """The nearest database file above artifacts, called as a store's own or as MLflow calls its."""
    names = dict.fromkeys((file.name, file.resolve().name, "mlflow.db"))
    found = (above / name for above in folder.parents for name in names)
    return next((candidate for candidate in found if candidate.is_file()), None)


def _owns(file: Path, folder: Path) -> bool:
    """Whether artifacts lie beside a database file, and no other store's lies between."""
    nearest = _owner(folder.resolve(), file) or _owner(folder, file)
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


def _move(file: Path, experiment_id: str, old: str, new: str) -> None:
    """Put another beginning to the paths of an experiment, of its runs and of its models."""
    try:
        with closing(sqlite3.connect(file, timeout=20)) as connection, connection:
            for table, column in PATHS.items():
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE experiment_id = ? AND substr({column} || '/', 1, ?) = ?",
                    (new, len(old) + 1, experiment_id, len(old) + 1, f"{old}/"),
                )
    except sqlite3.Error as error:
        raise TrackingError(
            f"the MLflow store {file} was moved, and where its artifacts are now cannot be written into it "
            f"({error}): make the file writable"
        ) from error
