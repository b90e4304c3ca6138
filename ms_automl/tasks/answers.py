"""Tasks of yes or no: edges, and one or several attributes of an image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ms_automl.tasks.averages import average, mean_of
from ms_automl.tasks.task import HeadSpec, Metric, Task


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
    return Task(name, HeadSpec(1, dense=True), mean_of(_binary_cross_entropy), metrics, weight, kind="binary")


def binary(name: str, weight: float = 1.0) -> Task:
    """One yes or no per image: binary cross-entropy; accuracy and F1 at a threshold of probability 0.5."""
    return Task(
        name,
        HeadSpec(1, dense=False),
        mean_of(_binary_cross_entropy),
        {"accuracy": average(_binary_correct, "max", "share of images"), "f1": _F1},
        weight,
        kind="binary",
    )


def _each_cross_entropy(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(prediction, target, reduction="none")


def _each_correct(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    return ((prediction > 0) == (target > 0.5)).float()


def _each_overlap(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """[2, C]: labels that are yes and were found, and twice the mean of those that are and that were found."""
    found, wanted = (prediction > 0) & valid, (target > 0.5) & valid
    return torch.stack([(found & wanted).sum(0), found.sum(0) + wanted.sum(0)]).to(torch.float64)


def _macro_f1(overlap: Tensor) -> float:
    known = overlap[1] > 0
    return float((2 * overlap[0] / overlap[1])[known].mean())  # of none it is NaN


def multilabel(name: str, labels: int, weight: float = 1.0) -> Task:
    """Several yes or no per image, each of which may be unknown: attributes, findings.

    The target is [B, labels] of 0 and 1 (or probabilities), ``valid`` the same; loss is the mean binary
    cross-entropy over the labels that count. Metrics are accuracy, and F1 at a probability of 0.5: of all labels
    together, and the mean over labels (macro).

    Args:
        name: of the task.
        labels: how many there are.
        weight: of its loss.
    """
    metrics = {
        "accuracy": average(_each_correct, "max", "share of labels"),
        "f1": Metric(_each_overlap, lambda total: float(2 * total[0].sum() / total[1].sum()), "max", "F1"),
        "macro_f1": Metric(_each_overlap, _macro_f1, "max", "F1"),
    }
    head, loss = HeadSpec(labels, dense=False), mean_of(_each_cross_entropy)
    return Task(name, head, loss, metrics, weight, kind="binary", per_channel=True)
