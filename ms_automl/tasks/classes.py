"""Tasks of classes, by pixel and by image, and of levels that have an order."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ms_automl.tasks.averages import average, mean_of
from ms_automl.tasks.task import HeadSpec, Metric, Task, count


def _cross_entropy(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    return F.cross_entropy(prediction, target, reduction="none")


def _correct(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    return (prediction.argmax(1) == target).float()


def _confusion(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    classes = prediction.shape[1]
    pairs = target[valid] * classes + prediction.argmax(1)[valid]
    return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes).to(torch.float64)


def _mean_iou(confusion: Tensor) -> float:
    hit = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - hit
    return float((hit / union)[union > 0].mean())


def segmentation(name: str, classes: int, weight: float = 1.0) -> Task:
    """Dense classification: pixel-wise cross-entropy; mIoU over a split's confusion matrix, accuracy."""
    return Task(
        name,
        HeadSpec(classes, dense=True),
        mean_of(_cross_entropy),
        {
            "miou": Metric(_confusion, _mean_iou, "max", "mean IoU"),
            "pixel_accuracy": average(_correct, "max", "share of pixels"),
        },
        weight,
        kind="classes",
    )


def classification(name: str, classes: int, weight: float = 1.0) -> Task:
    """Image classification: cross-entropy; accuracy."""
    return Task(
        name,
        HeadSpec(classes, dense=False),
        mean_of(_cross_entropy),
        {"accuracy": average(_correct, "max", "share of images")},
        weight,
        kind="classes",
    )


# ---- levels: cross-entropy of every threshold, error in levels ------------------------------------------


def _thresholds(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    above = target[:, None] > torch.arange(prediction.shape[1], device=target.device)
    return F.binary_cross_entropy_with_logits(prediction, above.to(prediction.dtype), reduction="none").mean(1)


def _level_error(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    return ((prediction > 0).sum(1) - target).abs().float()


def _level_correct(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    return ((prediction > 0).sum(1) == target).float()


def ordinal(name: str, levels: int, weight: float = 1.0) -> Task:
    """One of some levels 0, 1, … that have an order, per image: grades, ages by decade.

    The head says of each of the levels - 1 thresholds whether the level lies above it; loss is the mean of their
    binary cross-entropies (all-threshold; Rennie and Srebro 2005, section 2.3), a prediction how many are passed.
    Metrics are the mean absolute error, in levels, and accuracy.

    Args:
        name: of the task.
        levels: how many there are, at least two.
        weight: of its loss.
    """
    return Task(
        name,
        HeadSpec(count("levels", levels, 2) - 1, dense=False),
        mean_of(_thresholds),
        {
            "abs_error": average(_level_error, "min", "levels"),
            "accuracy": average(_level_correct, "max", "share of images"),
        },
        weight,
        kind="ordinal",
    )
