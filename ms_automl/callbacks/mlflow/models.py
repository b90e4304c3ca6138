"""Networks in MLflow's ONNX flavour: no pickle in them, and no torch to load them."""

from __future__ import annotations

import hashlib
import shutil
import weakref
from collections.abc import Iterable
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, Schema, TensorSpec

from ms_automl.callbacks.mlflow.artifacts import Artifacts

if TYPE_CHECKING:
    import onnx

DIGEST = "ms_automl.digest"
WHOLE = 2**31
"""Bytes that one file of ONNX can hold."""


def save_onnx(model: onnx.ModelProto, folder: Path) -> None:
    """Write ``model.onnx``, and the same as an MLflow model in ``mlflow/``."""
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    mlflow.onnx.save_model(model, str(folder / "mlflow"), **_form(model))


class LoggedOnnx:
    """A network to be logged as the model of a run, once, however often that is tried.

    MLflow's own ``log_model`` writes to the run and experiment that the calling program has made its own.

    Args:
        model: with its batch axis free.
        name: of the model.
    """

    def __init__(self, model: onnx.ModelProto, name: str) -> None:
        self.name, self.digest = name, digest(model)
        self.folder = Path(mkdtemp(prefix="ms-automl-"))
        self.clean = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        # In one file where that can be: others are called by chance, and only their owner may read them.
        external = model.ByteSize() >= WHOLE
        mlflow.onnx.save_model(model, str(self.folder / "model"), save_as_external_data=external, **_form(model))

    def log(self, client: MlflowClient, artifacts: Artifacts, experiment: str, run_id: str) -> None:
        """Log the network below a run that has no such model yet.

        Args:
            client: of the store.
            artifacts: of the store.
            experiment: id of the run's.
            run_id: of the run.
        """
        made = self._logged(client, experiment, run_id) or client.create_logged_model(
            experiment, name=self.name, source_run_id=run_id, tags={DIGEST: self.digest}
        )
        outputs = client.get_run(run_id).outputs
        if made.model_id not in {one.model_id for one in (outputs.model_outputs if outputs else ())}:
            client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
        if made.status != "READY":
            folder = self.folder / "model"
            about = Model.load(str(folder))
            about.artifact_path, about.run_id = made.artifact_location, run_id
            about.model_uuid = about.model_id = made.model_id
            about.save(str(folder / "MLmodel"))
            artifacts.put_model(made, folder)
            client.finalize_logged_model(made.model_id, "READY")
        self.clean()

    def _logged(self, client: MlflowClient, experiment: str, run_id: str) -> LoggedModel | None:
        """The run's model with these weights."""
        found = client.search_logged_models([experiment], f"tags.`{DIGEST}` = '{self.digest}'")
        return next((model for model in found if model.source_run_id == run_id), None)


def digest(model: onnx.ModelProto) -> str:
    """16 hex digits for names and values of a network's weights: the same wherever it was exported."""
    total = hashlib.sha256()
    for tensor in sorted(model.graph.initializer, key=lambda one: one.name):
        total.update(tensor.name.encode() + repr(list(tensor.dims)).encode() + tensor.raw_data)
    return total.hexdigest()[:16]


def _form(model: onnx.ModelProto) -> dict[str, Any]:
    """What is needed to use a model without this project."""
    return {"signature": _signature(model), "pip_requirements": ["onnxruntime>=1.20"]}


def _signature(model: onnx.ModelProto) -> ModelSignature:
    """Names, types and shapes of the inputs and outputs; -1 where an axis is free."""

    def schema(values: Iterable[onnx.ValueInfoProto]) -> Schema:
        specs: list[ColSpec | TensorSpec] = []
        for value in values:
            axes = [axis.dim_value or -1 for axis in value.type.tensor_type.shape.dim]
            specs.append(TensorSpec(np.dtype("float32"), tuple(axes), value.name))
        return Schema(specs)

    return ModelSignature(inputs=schema(model.graph.input), outputs=schema(model.graph.output))
