"""Networks in MLflow's ONNX flavour: no pickle in them, and no torch to load them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from mlflow.entities import LoggedModelOutput
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from ms_automl.callbacks.mlflow.artifacts import Artifacts

if TYPE_CHECKING:
    import onnx

DIGEST = "ms_automl.digest"
WHOLE = 2**31
"""Bytes that one file of ONNX can hold."""


def save_onnx(model: onnx.ModelProto, folder: Path) -> None:
    """Write ``model.onnx``, and the same as an MLflow model in ``mlflow/``."""
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    _save(model, folder / "mlflow")


def log_onnx(model: onnx.ModelProto, name: str, artifacts: Artifacts, experiment: str, run_id: str) -> None:
    """Log a network, its batch axis free, as the model of a run, once, however often that is tried.

    MLflow's own ``log_model`` writes to the run and experiment that the calling program has made its own.
    """
    client, digest = artifacts.client, _digest(model)
    found = client.search_logged_models([experiment], f"tags.`{DIGEST}` = '{digest}'")
    made = next((one for one in found if one.source_run_id == run_id), None)
    if made is None:
        tags = {DIGEST: digest}
        made = client.create_logged_model(experiment, name=name, source_run_id=run_id, tags=tags)
    outputs = client.get_run(run_id).outputs
    if made.model_id not in {one.model_id for one in (outputs.model_outputs if outputs else ())}:
        client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    if made.status == "READY":
        return
    about = Model(made.artifact_location, run_id, model_uuid=made.model_id, model_id=made.model_id)
    with TemporaryDirectory() as folder:
        # In one file where that can be: others are called by chance, and only their owner may read them.
        external = model.ByteSize() >= WHOLE
        _save(model, Path(folder, "model"), mlflow_model=about, save_as_external_data=external)
        artifacts.put_at(made.artifact_location, Path(folder, "model"))
    client.finalize_logged_model(made.model_id, "READY")


def _digest(model: onnx.ModelProto) -> str:
    """16 hex digits for names and values of a network's weights: the same wherever it was exported."""
    total = hashlib.sha256()
    for tensor in sorted(model.graph.initializer, key=lambda one: one.name):
        total.update(tensor.name.encode() + repr(list(tensor.dims)).encode() + tensor.raw_data)
    return total.hexdigest()[:16]


def _save(model: onnx.ModelProto, folder: Path, **options: Any) -> None:
    needed = ["onnxruntime>=1.20"]  # to use it without this project
    mlflow.onnx.save_model(model, str(folder), signature=_signature(model), pip_requirements=needed, **options)


def _signature(model: onnx.ModelProto) -> ModelSignature:
    """Names, types and shapes of the inputs and outputs; -1 where an axis is free."""

    def schema(values: Iterable[onnx.ValueInfoProto]) -> Schema:
        shapes = {v.name: [axis.dim_value or -1 for axis in v.type.tensor_type.shape.dim] for v in values}
        return Schema([TensorSpec(np.dtype("float32"), tuple(shape), name) for name, shape in shapes.items()])

    return ModelSignature(inputs=schema(model.graph.input), outputs=schema(model.graph.output))
