"""Datasets by name. Every factory takes ``(seed, data_dir=None, *, train, val, test)``, sizes by keyword."""

from __future__ import annotations

from collections.abc import Callable

from ms_automl.data.celebamask import celebamask
from ms_automl.data.checks import check_data
from ms_automl.data.contract import MultiTaskData
from ms_automl.data.device import on_device
from ms_automl.data.elpv import elpv
from ms_automl.data.labelled import Subset, labelled
from ms_automl.data.memo import inspect
from ms_automl.data.multimnist import multimnist
from ms_automl.data.nyuv2 import nyuv2
from ms_automl.data.rooms import rooms
from ms_automl.data.splits import AugmentedSplit, Batch, Split, TensorSplit, training_batch
from ms_automl.data.streaming import streamed
from ms_automl.data.trials import trials

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
    "inspect",
    "labelled",
    "multimnist",
    "nyuv2",
    "on_device",
    "rooms",
    "streamed",
    "training_batch",
    "trials",
]

DATASETS: dict[str, Callable[..., MultiTaskData]] = {
    "rooms": rooms,
    "multimnist": multimnist,
    "elpv": elpv,
    "nyuv2": nyuv2,
    "celebamask": celebamask,
}
