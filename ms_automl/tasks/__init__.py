"""What a network learns: the shape of a task's head, its loss, its metrics, and which labels count."""

from ms_automl.tasks.builtin import binary, classification, depth, edges, normals, segmentation
from ms_automl.tasks.task import HeadSpec, Metric, Task

__all__ = [
    "HeadSpec",
    "Metric",
    "Task",
    "binary",
    "classification",
    "depth",
    "edges",
    "normals",
    "segmentation",
]
