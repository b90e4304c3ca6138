"""Files of MLflow runs and models, put where they belong whatever else has been done in this process.

MLflow remembers a run's folder by the run's id for the whole process, and two stores may hold the same run: a
project and its copy.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from mlflow.entities import LoggedModel
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri

from ms_automl.callbacks.mlflow.home import check


class Artifacts:
    """Reads and writes artifacts of one store.

    Args:
        client: of the store.
        uri: of the store.
    """

    def __init__(self, client: MlflowClient, uri: str) -> None:
        self.client, self.uri = client, uri

    def put(self, run_id: str, folder: Path, name: str) -> None:
        """Add a folder's files to a run, as ``name``.

        Raises:
            TrackingError: where they would land among those of another store.
        """
        self._written(self._address(run_id)).log_artifacts(str(folder), name)

    def put_json(self, run_id: str, content: dict[str, Any], name: str) -> None:
        """Add one JSON file to a run; TrackingError where it would land in another store."""
        repository = self._written(self._address(run_id))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / name
            file.write_text(json.dumps(content, indent=2, default=str), encoding="utf-8")
            repository.log_artifact(str(file))

    def put_model(self, model: LoggedModel, folder: Path) -> None:
        """Add the files of a logged model; TrackingError where they would land in another store."""
        self._written(model.artifact_location).log_artifacts(str(folder))

    def names(self, run_id: str, folder: str | None = None) -> set[str]:
        """What a run has at its top, or in one of its folders."""
        return {item.path for item in self._at(self._address(run_id)).list_artifacts(folder)}

    def fetch(self, run_id: str, name: str, into: Path) -> Path:
        """A copy of a file or folder of a run's."""
        return Path(self._at(self._address(run_id)).download_artifacts(name, str(into)))

    def read_json(self, run_id: str, name: str) -> dict[str, Any]:
        """The content of a JSON file of a run's."""
        with tempfile.TemporaryDirectory() as folder:
            content: dict[str, Any] = json.loads(self.fetch(run_id, name, Path(folder)).read_text("utf-8"))
        return content

    def _address(self, run_id: str) -> str:
        return str(self.client.get_run(run_id).info.artifact_uri)

    def _written(self, address: str) -> Any:
        check(self.uri, address)
        return self._at(address)

    def _at(self, address: str) -> Any:  # an ArtifactRepository, whose methods have no types
        whole = add_databricks_profile_info_to_artifact_uri(address, self.uri)  # type: ignore[no-untyped-call]
        return get_artifact_repository(whole, tracking_uri=self.uri)
