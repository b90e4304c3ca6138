"""The selected models of a comparison that has ended: from its folder, or from its records in MLflow."""

from __future__ import annotations

from pathlib import Path

from mlflow.exceptions import MlflowException

from ms_automl.callbacks.mlflow.artifacts import Artifacts
from ms_automl.callbacks.mlflow.opening import opened, tracking_uri
from ms_automl.errors import DataError


def selected_model(run_id: str, folder: Path | None, name: str, into: Path, uri: str | None = None) -> Path:
    """The folder of a selected model.

    Args:
        run_id: of the comparison in MLflow.
        folder: of the comparison; None where only its records are at hand.
        name: ``<arm>-<seed>``.
        into: where a model that comes from MLflow is put.
        uri: of the MLflow store; None for the present one.

    Raises:
        DataError: where there is none.
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
