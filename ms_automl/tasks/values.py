"""Tasks of values: depth, surface normals, numbers and places of an image, heat maps."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ms_automl.errors import unknown_name
from ms_automl.tasks.averages import average, mean_of
from ms_automl.tasks.labels import LabelFunction as TaskFunction
from ms_automl.tasks.task import HeadSpec, Metric, Task, count


def _absolute(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    return (prediction - target).abs().mean(1)


def _relative(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    return ((prediction - target).abs() / target.clamp(min=1e-6)).mean(1)


def depth(name: str = "depth", weight: float = 1.0) -> Task:
    """Dense depth in metres: mean absolute error as loss and metric, mean relative error."""
    return Task(
        name,
        HeadSpec(1, dense=True),
        mean_of(_absolute),
        {"abs_error": average(_absolute, "min", "m"), "rel_error": average(_relative, "min", "ratio")},
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
        "mean_angle": average(_angle, "min", "degrees"),
        "within_11": average(_within(11.25), "max", "share of pixels"),
    }
    if full:
        metrics |= {
            "median_angle": Metric(_angle_counts, _median_angle, "min", "degrees"),
            "within_22": average(_within(22.5), "max", "share of pixels"),
            "within_30": average(_within(30.0), "max", "share of pixels"),
        }
    return Task(name, HeadSpec(3, dense=True), mean_of(_one_minus_cosine), metrics, weight, domain="unit")


# ---- numbers of an image, each of which may be unknown --------------------------------------------------


def _each_absolute(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    return (prediction - target).abs()


def _each_squared(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    return (prediction - target).square()


def _root_of(mean: Metric) -> Metric:
    return Metric(mean.statistic, lambda total: mean.value(total) ** 0.5, mean.direction, mean.unit)


_LOSSES = {"absolute": _each_absolute, "squared": _each_squared}


def regression(
    name: str,
    channels: int = 1,
    weight: float = 1.0,
    *,
    loss: Literal["absolute", "squared"] = "absolute",
    unit: str = "target units",
) -> Task:
    """Numbers of an image, each of which may be unknown: ages, poses, counts.

    The target is [B, channels], ``valid`` the same. Bring channels to one scale: their errors are averaged.

    Args:
        name: of the task.
        channels: how many numbers there are.
        weight: of its loss.
        loss: mean ``absolute`` or ``squared`` error over the labels that count.
        unit: of the metrics, mean absolute error and the root of the mean squared one.
    """
    if not isinstance(loss, str) or loss not in _LOSSES:
        raise unknown_name("loss", str(loss), list(_LOSSES))
    metrics = {
        "abs_error": average(_each_absolute, "min", unit),
        "rmse": _root_of(average(_each_squared, "min", unit)),
    }
    return Task(name, HeadSpec(channels, dense=False), mean_of(_LOSSES[loss]), metrics, weight, per_channel=True)


# ---- places: coordinates of points, and maps with a peak at each ----------------------------------------


def _distances(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """[2] sum of the distances of points whose two coordinates count, and how many there are."""
    points = (prediction.detach() - target).reshape(len(target), -1, 2).to(torch.float64).square().sum(2).sqrt()
    known = valid.reshape((*points.shape, 2)).all(2)
    return torch.stack([torch.where(known, points, 0.0).sum(), known.sum().to(torch.float64)])


def _mean(total: Tensor) -> float:
    return float(total[0] / total[1])


def keypoints(name: str, points: int, weight: float = 1.0, unit: str = "target units") -> Task:
    """Coordinates of some points of an image, each of which may be unknown (hidden, out of sight).

    The target is [B, 2 · points], x and y of the first point first, ``valid`` the same; loss is the mean absolute
    error of the coordinates that count, the metric the mean distance of points, in the target's unit.

    Args:
        name: of the task.
        points: how many there are.
        weight: of its loss.
        unit: of coordinates: pixels, image widths.
    """
    metrics = {"distance": Metric(_distances, _mean, "min", unit)}
    head, loss = HeadSpec(2 * count("points", points, 1), dense=False), mean_of(_each_absolute)
    return Task(name, head, loss, metrics, weight, per_channel=True)


def _peak_distances(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """[2] sum over the maps that count of the distance of their highest pixels, and how many there are."""
    width, known = target.shape[-1], valid.flatten(2)
    places = [maps.flatten(2).masked_fill(~known, -torch.inf).argmax(2) for maps in (prediction, target)]
    across, down = ((places[0] % width) - (places[1] % width)), (places[0] // width) - (places[1] // width)
    distance = (across.square() + down.square()).to(torch.float64).sqrt()
    some = known.any(2)
    return torch.stack([torch.where(some, distance, 0.0).sum(), some.sum().to(torch.float64)])


def heatmaps(name: str, maps: int, weight: float = 1.0) -> Task:
    """A map for each of some points, with a peak where it is (Xiao et al. 2018, arXiv 1804.06208, section 3).

    The target is [B, maps, H, W], ``valid`` the same, False for the map of a point that is unknown. Loss is the
    mean squared error over the pixels that count; metrics are that and the distance of the highest pixels.

    Args:
        name: of the task.
        maps: how many points there are.
        weight: of its loss.
    """
    metrics = {
        "peak_distance": Metric(_peak_distances, _mean, "min", "pixels"),
        "squared_error": average(_each_squared, "min", "squared target units"),
    }
    return Task(name, HeadSpec(maps, dense=True), mean_of(_each_squared), metrics, weight, per_channel=True)
