"""Datasets by name. Every factory takes ``(seed, data_dir=None, *, train, val, test)``, sizes by keyword."""

from __future__ import annotations

from collections.abc import Callable

from ms_automl.data.contract import Batch, MultiTaskData, Split, TensorSplit, check_data
from ms_automl.data.elpv import elpv
from ms_automl.data.labelled import Subset, labelled
from ms_automl.data.multimnist import multimnist
from ms_automl.data.rooms import rooms

__all__ = [
    "DATASETS",
    "Batch",
    "MultiTaskData",
    "Split",
    "Subset",
    "TensorSplit",
    "check_data",
    "elpv",
    "labelled",
    "multimnist",
    "rooms",
]

DATASETS: dict[str, Callable[..., MultiTaskData]] = {"rooms": rooms, "multimnist": multimnist, "elpv": elpv}
