"""The tasks that ship: classes, depth, surface normals, edges, yes or no."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ms_automl.tasks.labels import LabelFunction as TaskFunction
from ms_automl.tasks.task import HeadSpec, Metric, Task


def _masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, values, torch.zeros_like(values)).sum() / valid.sum().clamp(min=1)


def _mean_of(per_label: TaskFunction) -> TaskFunction:
    def loss(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        return _masked_mean(per_label(prediction, target, valid), valid)

    return loss


def _average(per_label: TaskFunction, direction: Literal["max", "min"], unit: str) -> Metric:
    def statistic(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        values = per_label(prediction.detach(), target, valid).to(torch.float64)
        total = torch.where(valid, values, torch.zeros_like(values)).sum()
        return torch.stack([total, valid.sum().to(torch.float64)])

    def value(total: Tensor) -> float:
        return float(total[0] / total[1])  # 0/0 is NaN: no valid label

    return Metric(statistic, value, direction, unit)


# ---- classes: cross-entropy, mean intersection over union, accuracy -------------------------------------


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
        _mean_of(_cross_entropy),
        {
            "miou": Metric(_confusion, _mean_iou, "max", "mean IoU"),
            "pixel_accuracy": _average(_correct, "max", "share of pixels"),
        },
        weight,
        kind="classes",
    )


def classification(name: str, classes: int, weight: float = 1.0) -> Task:
    """Image classification: cross-entropy; accuracy."""
    return Task(
        name,
        HeadSpec(classes, dense=False),
        _mean_of(_cross_entropy),
        {"accuracy": _average(_correct, "max", "share of images")},
        weight,
        kind="classes",
    )


# ---- values: depth, normals, edges, attributes ----------------------------------------------------------


def _absolute(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    return (prediction - target).abs().mean(1)


def _relative(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    return ((prediction - target).abs() / target.clamp(min=1e-6)).mean(1)


def depth(name: str = "depth", weight: float = 1.0) -> Task:
    """Dense depth in metres: mean absolute error as loss and metric, mean relative error."""
    return Task(
        name,
        HeadSpec(1, dense=True),
        _mean_of(_absolute),
        {"abs_error": _average(_absolute, "min", "m"), "rel_error": _average(_relative, "min", "ratio")},
        weight,
        domain="positive",
    )


def _cosine(prediction: Tensor, target: Tensor) -> Tensor:
    # Three sums: F.cosine_similarity takes two strided norms, a tenth of a small network's step on a CPU.
    squares = prediction.square().sum(1) * target.square().sum(1)
    return (prediction * target).sum(1) * squares.clamp(min=1e-12).rsqrt()


def _one_minus_cosine(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    return 1 - _cosine(prediction, target)


def _angle(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    return torch.rad2deg(torch.acos(_cosine(prediction, target).clamp(-1, 1)))


def _within(degrees: float) -> TaskFunction:
    def share(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        return (_angle(prediction, target, valid) < degrees).float()

    return share


_ANGLES = 3600  # bins of 0.05 degrees


def _angle_counts(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    angles = _angle(prediction, target, valid)[valid].nan_to_num(180.0)
    bins = (angles * (_ANGLES / 180)).long().clamp(max=_ANGLES - 1)
    return torch.bincount(bins, minlength=_ANGLES).to(torch.float64)


def _median_angle(counts: Tensor) -> float:
    total = float(counts.sum())
    if total == 0:
        return float("nan")
    below = counts.cumsum(0)
    median = int(torch.searchsorted(below, total / 2))
    before = float(below[median] - counts[median])
    return (median + (total / 2 - before) / float(counts[median])) * 180 / _ANGLES


def normals(name: str = "normals", weight: float = 1.0, full: bool = False) -> Task:
    """Surface normals, unit vectors: 1 - cosine as loss; mean angle and share of pixels within 11.25°.

    Args:
        name: of the task.
        weight: of its loss.
        full: the five metrics of the NYU-v2 literature (Liu et al. 2019, arXiv 1803.10704, section 4.2): also the
            median angle (over the split, to 0.05°) and the shares within 22.5° and 30°.
    """
    metrics = {
        "mean_angle": _average(_angle, "min", "degrees"),
        "within_11": _average(_within(11.25), "max", "share of pixels"),
    }
    if full:
        metrics |= {
            "median_angle": Metric(_angle_counts, _median_angle, "min", "degrees"),
            "within_22": _average(_within(22.5), "max", "share of pixels"),
            "within_30": _average(_within(30.0), "max", "share of pixels"),
        }
    return Task(name, HeadSpec(3, dense=True), _mean_of(_one_minus_cosine), metrics, weight, domain="unit")


def _binary_cross_entropy(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    logits = prediction[:, 0]
    return F.binary_cross_entropy_with_logits(logits, target.reshape(logits.shape), reduction="none")


def _overlap(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    found = (prediction[:, 0] > 0) & valid
    wanted = (target.reshape(found.shape) > 0.5) & valid
    return torch.stack([(found & wanted).sum(), found.sum() + wanted.sum()]).to(torch.float64)


def _binary_correct(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    logits = prediction[:, 0]
    return ((logits > 0) == (target.reshape(logits.shape) > 0.5)).float()


_F1 = Metric(_overlap, lambda total: float(2 * total[0] / total[1]), "max", "F1")


_THRESHOLDS = 99  # 0.01, 0.02, …, 0.99, as the boundary benchmark has them


def _by_probability(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """[2, 100]: how many valid labels, no and yes, have a probability below, between or above the thresholds."""
    known = prediction[:, 0].nan_to_num()  # of a network that diverged the loss says so
    bins = (known.sigmoid() * (_THRESHOLDS + 1)).long().clamp(max=_THRESHOLDS)
    wanted = (target.reshape(bins.shape) > 0.5).long()
    counts = torch.bincount((wanted * (_THRESHOLDS + 1) + bins)[valid], minlength=2 * (_THRESHOLDS + 1))
    return counts.reshape(2, -1).to(torch.float64)


def _best_f1(counts: Tensor) -> float:
    found = counts.flip(1).cumsum(1)[:, :-1]  # labels above each threshold, the highest first
    twice = found.sum(0) + counts[1].sum()
    scores = (2 * found[1] / twice)[twice > 0]
    return float(scores.max()) if len(scores) else float("nan")


_ODS_F1 = Metric(_by_probability, _best_f1, "max", "ODS F1")


def edges(name: str = "edges", weight: float = 1.0) -> Task:
    """Dense binary edges: binary cross-entropy; F1 over the split at its best threshold, and at probability 0.5.

    The first is the boundary literature's optimal dataset scale (ODS; Arbelaez et al. 2011, section 3), here pixel
    by pixel: a found edge counts where it is, not within some pixels of there. With few positive pixels a
    calibrated network's probabilities stay low, and F1 at 0.5 says more about that than about its edges.
    """
    metrics = {"ods_f1": _ODS_F1, "f1": _F1}
    return Task(name, HeadSpec(1, dense=True), _mean_of(_binary_cross_entropy), metrics, weight, kind="binary")


def binary(name: str, weight: float = 1.0) -> Task:
    """One yes or no per image: binary cross-entropy; accuracy and F1 at a threshold of probability 0.5."""
    return Task(
        name,
        HeadSpec(1, dense=False),
        _mean_of(_binary_cross_entropy),
        {"accuracy": _average(_binary_correct, "max", "share of images"), "f1": _F1},
        weight,
        kind="binary",
    )
