"""Losses and metrics of one's own take the labels that count, and no others."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ms_automl.data import MultiTaskData, TensorSplit, inspect
from ms_automl.errors import DataError
from ms_automl.tasks import HeadSpec, Metric, Task


def mean_error(prediction, target, valid):
    return (prediction[:, 0] - target[:, 0]).abs()[valid].mean()


def count_and_sum(prediction, target, valid):
    return torch.stack([(prediction[:, 0] - target[:, 0]).abs()[valid].sum(), valid.sum()]).double()


def own(loss=mean_error, statistic=count_and_sum, kind="values", channels=1, dense=True):
    metrics = {"error": Metric(statistic, lambda total: float(total[0] / total[1]), "min", "m")}
    return Task("own", HeadSpec(channels, dense), loss, metrics, kind=kind)


def hits(prediction, target, valid):
    return torch.stack([(prediction.argmax(1) == target)[valid].sum(), valid.sum()]).double()


def nan_marks(prediction, target, valid):
    known = ~target.isnan()
    return (prediction - target)[known].abs().mean()


def fails(prediction, target, valid):
    raise RuntimeError("shapes do not match")


OWN = {
    "255 marks what does not count": (
        own(lambda p, t, v: F.cross_entropy(p, t, ignore_index=255), hits, kind="classes", channels=3),
        lambda shape: torch.where(torch.rand(shape) < 0.5, 255, 1),
        "its loss changes with labels that do not count, as sample 0 of train has some: leave them out by `valid`",
    ),
    "-100 marks what does not count": (
        own(lambda p, t, v: F.cross_entropy(p, t), hits, kind="classes", channels=3, dense=False),
        lambda shape: torch.where(torch.arange(shape[0]) % 2 > 0, -100, 1),
        "its loss changes with labels that do not count",
    ),
    "NaN marks what does not count": (
        own(nan_marks),
        lambda shape: torch.where(torch.rand(shape) < 0.5, math.nan, torch.rand(shape)),
        "its loss changes with labels that do not count",
    ),
    "the metric takes all": (
        own(statistic=lambda p, t, v: torch.stack([(p - t).abs().sum(), v.sum()]).double()),
        lambda shape: torch.where(torch.rand(shape) < 0.5, math.nan, torch.rand(shape)),
        "its metric 'error' changes with labels that do not count",
    ),
    "the loss fails": (
        own(fails),
        lambda shape: torch.where(torch.rand(shape) < 0.5, math.nan, torch.rand(shape)),
        r"its loss fails on sample 0 of train \(RuntimeError: shapes do not match\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OWN)
def test_an_own_loss_or_metric_that_takes_labels_that_do_not_count_is_refused(case):
    torch.manual_seed(0)
    task, make, message = OWN[case]
    splits = []
    for count in (6, 4, 4):
        target = make(task.target_shape(count, 4, 4))
        if task.kind == "classes":
            valid = (target >= 0) & (target < 3)
            target.reshape(-1)[valid.reshape(-1).nonzero()[::2, 0]] = 2
        else:
            valid = ~target.isnan().any(1)
        splits.append(TensorSplit(torch.randn(count, 2, 4, 4), {"own": target}, {"own": valid}))
    with pytest.raises(DataError, match=f"^task 'own': {message}"):
        inspect(MultiTaskData("own", *splits, tasks=[task]))
    if "fails" in message:
        return
    every = [TensorSplit(s.images, s.targets, {"own": torch.ones_like(s.valid["own"])}) for s in splits]
    for split in every:
        split.targets["own"] = split.targets["own"].nan_to_num(0.5).clamp(0, 2)
    inspect(MultiTaskData("own", *every, tasks=[task]))  # where all of them count, none is taken wrongly


LOSSES = {
    "one per sample": (lambda p, t, v: (p - t).abs().flatten(1).mean(1), r"its loss is a tensor of shape \(2,\)"),
    "a number": (lambda p, t, v: (p - t).abs().mean().item(), "its loss is a float, expected a scalar tensor"),
    "detached": (lambda p, t, v: (p.detach() - t).abs().mean(), "its loss has no gradient"),
    "nothing": (lambda p, t, v: None, "its loss is a NoneType"),
    "in place": (lambda p, t, v: p.sub_(t).abs().mean(), "its loss changes the prediction"),
}


def of_all_labels(task):
    splits = [
        TensorSplit(torch.randn(count, 2, 4, 4), {"own": torch.rand(count, 1, 4, 4) + 1}) for count in (6, 4, 4)
    ]
    return MultiTaskData("own", *splits, tasks=[task])


@pytest.mark.parametrize("case", LOSSES)
def test_a_loss_that_cannot_be_trained_on_is_refused_before_anything_trains(case):
    loss, message = LOSSES[case]
    with pytest.raises(DataError, match=f"^task 'own': {message}"):
        inspect(of_all_labels(own(loss)))


def test_a_metric_that_changes_the_prediction_or_has_no_statistic_is_refused():
    def halves(prediction, target, valid):
        return count_and_sum(prediction.mul_(0.5), target, valid)

    with pytest.raises(DataError, match="its metric 'error' changes the prediction"):
        inspect(of_all_labels(own(statistic=halves)))
    with pytest.raises(DataError, match="its metric 'error' has a float as statistic"):
        inspect(of_all_labels(own(statistic=lambda p, t, v: 1.0)))


@pytest.mark.parametrize("value", [lambda total: "0.5", lambda total: None, lambda total: total])
def test_a_metric_whose_value_is_no_number_is_refused(value):
    task = Task("own", HeadSpec(1, True), mean_error, {"error": Metric(count_and_sum, value, "min", "m")})
    with pytest.raises(DataError, match=r"^task 'own': the value of its metric 'error' is a .*, expected"):
        inspect(of_all_labels(task))


def test_a_metric_that_has_no_value_of_two_samples_is_served():
    def value(total):
        raise ZeroDivisionError("of so few there is none")

    task = Task("own", HeadSpec(1, True), mean_error, {"error": Metric(count_and_sum, value, "min", "m")})
    assert inspect(of_all_labels(task)) == ()


def test_a_metric_may_leave_torch():
    def by_numpy(prediction, target, valid):
        return torch.tensor([float(np.abs(prediction[:, 0].numpy() - target[:, 0].numpy()).sum()), 1.0]).double()

    assert inspect(of_all_labels(own(statistic=by_numpy))) == ()
