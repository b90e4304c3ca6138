"""The rim to MLflow: one writer in the driver; parent, arm and trial runs, each ended with the right status."""

from ms_automl.callbacks.mlflow.opening import short_timeouts
from ms_automl.callbacks.mlflow.tracker import Tracker

__all__ = ["Tracker", "short_timeouts"]
