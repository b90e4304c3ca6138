"""Data sets, all in one form."""

from ms_automl.data.contract import Batch, MultiTaskData, Split, TensorSplit, check_data

__all__ = ["Batch", "MultiTaskData", "Split", "TensorSplit", "check_data"]
