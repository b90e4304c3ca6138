"""MLflow stores that are there at once: making a database takes MLflow many seconds."""

import shutil
import tempfile
from functools import cache
from pathlib import Path

from ms_automl.callbacks.mlflow.opening import opened, sqlite


@cache
def _empty():
    folder = tempfile.TemporaryDirectory()
    file = Path(folder.name) / "mlflow.db"
    opened(f"sqlite:///{file}")
    return folder, file


def store(folder, name="mlflow.db"):
    """The address of a store without any experiment of ours, made in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / name).exists():
        shutil.copy(_empty()[1], folder / name)
    return sqlite(folder / name)
