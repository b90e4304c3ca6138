"""Groups of weights that go together, the steps that drive them to zero, and measures of it."""

from ms_automl.sparsity.groups import ChannelGroups
from ms_automl.sparsity.importance import CRITERIA, Importance, MagnitudeImportance, TaylorImportance, cubic_ramp
from ms_automl.sparsity.measures import Sparsity, measure
from ms_automl.sparsity.prox import prox_, proximal, shrink_factors, smallest, thresholds

__all__ = [
    "CRITERIA",
    "ChannelGroups",
    "Importance",
    "MagnitudeImportance",
    "Sparsity",
    "TaylorImportance",
    "cubic_ramp",
    "measure",
    "prox_",
    "proximal",
    "shrink_factors",
    "smallest",
    "thresholds",
]
