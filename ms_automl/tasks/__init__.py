"""What a network learns: the shape of a task's head, its loss, its metrics, and which labels count."""

from ms_automl.tasks.answers import binary, edges, multilabel
from ms_automl.tasks.classes import classification, ordinal, segmentation
from ms_automl.tasks.task import HeadSpec, Metric, Task
from ms_automl.tasks.values import depth, heatmaps, keypoints, normals, regression

__all__ = [
    "HeadSpec",
    "Metric",
    "Task",
    "binary",
    "classification",
    "depth",
    "edges",
    "heatmaps",
    "keypoints",
    "multilabel",
    "normals",
    "ordinal",
    "regression",
    "segmentation",
]
