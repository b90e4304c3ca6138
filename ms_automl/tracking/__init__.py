"""The rim to MLflow: one writer in the driver; parent, arm and trial runs, each ended with the right status."""

from ms_automl.tracking.address import public
from ms_automl.tracking.opening import short_timeouts
from ms_automl.tracking.tracker import Tracker

__all__ = ["Tracker", "public", "short_timeouts"]
