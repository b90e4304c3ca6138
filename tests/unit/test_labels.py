"""Own tasks, written as users write them: labels that do not count reach no loss, no gradient and no metric."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ms_automl.data import MultiTaskData, TensorSplit
from ms_automl.errors import DataError
from ms_automl.models import head_specs, small_resnet
from ms_automl.tasks import HeadSpec, Metric, Task, binary
from ms_automl.training import TrainingSettings, evaluate
from trainables import METHODS

SHORT = TrainingSettings(steps=4, batch_size=4, report_every=2)


def squared(prediction, target, valid):
    """The pattern of docs/own_data.md, with a square."""
    error = (prediction - target).square().mean(1)
    return torch.where(valid, error, 0.0).sum() / valid.sum().clamp(min=1)


def by_index(prediction, target, valid):
    """NaN where no label is valid: the mean of nothing."""
    return (prediction - target).abs().mean(1)[valid].mean()


def relative(prediction, target, valid):
    error = ((prediction - target).abs() / target).mean(1)
    return torch.where(valid, error, 0.0).sum() / valid.sum()


def logarithmic(prediction, target, valid):
    error = (F.softplus(prediction).log() - target.log()).square().mean(1)
    return torch.where(valid, error, 0.0).sum() / valid.sum()


def log_odds(prediction, target, valid):
    error = (prediction - target.logit()).square().mean(1)
    return (error * valid).sum() / valid.sum()


def entropy(prediction, target, valid):
    error = F.cross_entropy(prediction, target, reduction="none")
    return torch.where(valid, error, 0.0).sum() / valid.sum()


def gathered(prediction, target, valid):
    error = -prediction.log_softmax(1).gather(1, target[:, None])[:, 0]
    return error[valid].mean()


def mean_error(prediction, target, valid):
    error = (
        (prediction.argmax(1) != target) if target.dtype == torch.int64 else (prediction - target).abs().mean(1)
    )
    return torch.stack([error[valid].double().mean() * valid.sum(), valid.sum().double()])


def own(loss, dense, channels=2, kind="values"):
    metrics = {"error": Metric(mean_error, lambda total: float(total[0] / total[1]), "min", "ratio")}
    return Task("own", HeadSpec(channels, dense), loss, metrics, kind=kind)


VALUES = [squared, by_index, relative, logarithmic, log_odds]
CLASSES = [entropy, gathered]
CASES = [
    *(
        (own(loss, dense), junk)
        for loss in VALUES
        for dense in (True, False)
        for junk in (math.nan, math.inf, 0.0)
    ),
    *(
        (own(loss, dense, 3, "classes"), junk)
        for loss in CLASSES
        for dense in (True, False)
        for junk in (255, -1, -100)
    ),
]
each_case = pytest.mark.parametrize(
    ("task", "junk"), CASES, ids=lambda c: c.loss.function.__name__ if isinstance(c, Task) else str(c)
)


def labels(task, junk, none=()):
    """Prediction, targets with junk where they do not count, valid; no label counts in the samples `none`."""
    rng = torch.Generator().manual_seed(0)
    prediction = torch.randn(task.head.shape(4, 3, 3), generator=rng)
    shape, valid = task.target_shape(4, 3, 3), torch.rand(task.valid_shape(4, 3, 3), generator=rng) < 0.6
    valid[0] = True
    valid[list(none)] = False
    if task.kind == "classes":
        target = torch.randint(3, shape, generator=rng)
    else:
        target = torch.rand(shape, generator=rng) * 0.8 + 0.1
    spread = valid if target.ndim == valid.ndim else valid[:, None]
    return prediction, target.masked_fill(~spread, junk), valid


def gradient(task, prediction, target, valid):
    leaf = prediction.clone().requires_grad_()
    loss = task.loss(leaf, target, valid)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


@each_case
@pytest.mark.parametrize("none", [(), (1,), (1, 2, 3)], ids=["some", "a whole image", "three whole images"])
def test_an_own_loss_is_that_of_the_labels_that_count_whatever_the_others_hold(task, junk, none):
    prediction, target, valid = labels(task, junk, none)
    one, two = gradient(task, prediction, target, valid), gradient(task, *labels(task, 2, none))
    assert torch.isfinite(one[0]) and torch.isfinite(one[1]).all()
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    spread = valid if prediction.ndim == valid.ndim else valid[:, None]
    assert one[1].abs().sum() > 0 and not one[1].masked_select(~spread).any()


@each_case
def test_a_batch_of_which_no_label_counts_gives_an_own_task_nothing(task, junk):
    prediction, target, valid = labels(task, junk, none=(0, 1, 2, 3))
    loss, slope = gradient(task, prediction, target, valid)
    assert loss == 0 and not slope.any()
    empty = task.metrics["error"].statistic(prediction, target, valid)
    some = task.metrics["error"].statistic(*labels(task, junk))
    assert torch.isfinite(some).all()
    assert torch.equal(some + empty, some)  # a batch without labels leaves a split's metric as it is


@pytest.mark.parametrize("loss", VALUES)
def test_nan_at_labels_that_do_not_count_trains_as_any_number_there_does(loss):
    task = own(loss, dense=False)
    networks, reports = [], []
    for junk in (math.nan, 0.3):
        rng = torch.Generator().manual_seed(0)
        images = torch.randn(12, 2, 8, 8, generator=rng)
        target = torch.rand(12, 2, generator=rng) * 0.8 + 0.1
        valid = torch.arange(12) % 3 > 0
        target[~valid] = junk
        splits = [TensorSplit(images, {"own": target}, {"own": valid})] * 3
        data = MultiTaskData("own", *splits, tasks=[task])
        torch.manual_seed(0)
        network = small_resnet((2, 8, 8), head_specs([task]), width=4, hidden=4)
        method = METHODS["dense"].build(data, network, SHORT, 0)
        while not method.done:
            reports.append(method.step())
        networks.append(copy.deepcopy(network.state_dict()))
        assert math.isfinite(evaluate(network, data.val, [task], 1)["own/loss"])
    assert reports[:2] == reports[2:]
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])


def test_a_task_that_is_changed_still_clears_its_labels_once():
    task = own(squared, dense=False)
    assert replace(task, weight=2.0).loss == task.loss
    assert task.loss.function is squared


@pytest.mark.parametrize("name", ["loss", "a/b", ""])
def test_a_metric_whose_name_is_the_losses_or_none_is_refused(name):
    metric = next(iter(binary("x").metrics.values()))
    with pytest.raises(DataError, match=f"task 'x': a metric cannot be called '{name}'"):
        Task("x", HeadSpec(1, False), squared, {name: metric})
