"""Datasets by name. Every factory takes ``(seed, data_dir=None, *, train, val, test)``, sizes by keyword."""

from __future__ import annotations

from collections.abc import Callable

from ms_automl.data.celebamask import celebamask
from ms_automl.data.contract import (
    AugmentedSplit,
    Batch,
    MultiTaskData,
    Split,
    TensorSplit,
    check_data,
    training_batch,
)
from ms_automl.data.device import on_device
from ms_automl.data.elpv import elpv
from ms_automl.data.labelled import Subset, labelled
from ms_automl.data.multimnist import multimnist
from ms_automl.data.nyuv2 import nyuv2
from ms_automl.data.rooms import rooms

__all__ = [
    "DATASETS",
    "AugmentedSplit",
    "Batch",
    "MultiTaskData",
    "Split",
    "Subset",
    "TensorSplit",
    "celebamask",
    "check_data",
    "elpv",
    "labelled",
    "multimnist",
    "nyuv2",
    "on_device",
    "rooms",
    "training_batch",
]

DATASETS: dict[str, Callable[..., MultiTaskData]] = {
    "rooms": rooms,
    "multimnist": multimnist,
    "elpv": elpv,
    "nyuv2": nyuv2,
    "celebamask": celebamask,
}
