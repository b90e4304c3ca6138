"""Groups of weights that go together, the steps that drive them to zero, and measures of it."""

from ms_automl.sparsity.criteria import CRITERIA
from ms_automl.sparsity.groupings import GROUPINGS, build_groups, remark
from ms_automl.sparsity.groups import ChannelGroups, Groups
from ms_automl.sparsity.importance import (
    Importance,
    MagnitudeImportance,
    RandomImportance,
    TaylorImportance,
    cubic_ramp,
)
from ms_automl.sparsity.measures import Sparsity, measure
from ms_automl.sparsity.prox import prox_, proximal, selective_thresholds, shrink_factors, smallest, thresholds
from ms_automl.sparsity.prox_metric import PROX_METRICS

__all__ = [
    "CRITERIA",
    "GROUPINGS",
    "PROX_METRICS",
    "ChannelGroups",
    "Groups",
    "Importance",
    "MagnitudeImportance",
    "RandomImportance",
    "Sparsity",
    "TaylorImportance",
    "build_groups",
    "cubic_ramp",
    "measure",
    "prox_",
    "proximal",
    "remark",
    "selective_thresholds",
    "shrink_factors",
    "smallest",
    "thresholds",
]
