"""Losses and metrics of one's own, tried before anything trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real

import torch
from torch import Tensor

from ms_automl.data.contract import MultiTaskData
from ms_automl.data.splits import Split
from ms_automl.data.streaming import same_random_state
from ms_automl.errors import DataError
from ms_automl.tasks import Task
from ms_automl.tasks.labels import CountedLoss, CountedStatistic, LabelFunction, cleared

_SAFE = (0.25, 0.75)
"""Two values of which a reciprocal, a logarithm and a logit are finite."""


def check_functions(data: MultiTaskData, partial: Mapping[str, tuple[str, int, int]]) -> None:
    """Try the losses and metrics of every task on two samples and a random prediction.

    A loss must be a scalar with a gradient, and a metric a number; neither may change the prediction, which the
    next one is given too. Where a task has labels that do not count, each is taken twice of samples that have
    some, with two different values in their place: one that changes takes them for labels. So does one that knows
    them by what they held, by 255 or NaN, for that is cleared.

    Args:
        data: of the tasks.
        partial: by task, where labels are that do not count (:class:`~ms_automl.data.inspection.Findings`).

    Raises:
        DataError: naming the task, and what of it changes, or fails.
    """
    for task in (*data.tasks, *data.unseen_tasks):
        split, *samples = partial.get(task.name, ("train", 0, min(1, len(data.train) - 1)))
        with same_random_state():
            _check_functions(task, data.splits[split], split, sorted(set(samples)))


def _check_functions(task: Task, split: Split, name: str, samples: Sequence[int]) -> None:
    batch = split.batch(torch.tensor(samples))
    target, valid = batch.targets[task.name].cpu(), batch.valid[task.name].cpu()
    fills = _SAFE if task.classes is None else (0, task.classes - 1)
    torch.manual_seed(0)
    prediction = torch.randn(task.head.shape(len(samples), *batch.images.shape[2:]))
    functions: dict[str, LabelFunction] = {"loss": _own(task.loss)}
    functions |= {f"metric '{name}'": _own(metric.statistic) for name, metric in task.metrics.items()}
    values = {f"metric '{name}'": metric.value for name, metric in task.metrics.items()}
    changed: set[str] = set()
    for what, function in functions.items():
        try:
            found = []
            for fill in fills:
                torch.manual_seed(0)
                given = prediction.clone()
                if what == "loss":  # as in training; metrics are measured without gradients
                    given = given.requires_grad_() * 1  # of a leaf nobody could change a thing
                found.append(function(given, cleared(target, valid, fill), valid))
                if not torch.equal(given, prediction):
                    changed.add(what)
        except Exception as error:  # whatever a function of the user's own raises
            numbers = " and ".join(map(str, samples))
            raise DataError(
                f"task '{task.name}': its {what} fails on sample {numbers} of {name} "
                f"({type(error).__name__}: {error})"
            ) from error
        if what in changed:
            raise DataError(
                f"task '{task.name}': its {what} changes the prediction that it is given, which others are given "
                "too: leave in-place operations on it out"
            )
        first, second = found
        if what == "loss":
            _check_loss(task, first)
        else:
            _check_metric(task, what, values[what], first)
        if not torch.allclose(first, second, equal_nan=True):
            raise DataError(
                f"task '{task.name}': its {what} changes with labels that do not count, as sample "
                f"{samples[0]} of {name} has some: leave them out by `valid`; no ignore_index and no NaN marks "
                "them, for what they hold is cleared"
            )


def _check_metric(task: Task, what: str, value: Callable[[Tensor], object], statistic: object) -> None:
    """Whether a metric's value is a number, where so few samples have one; elsewhere evaluation says it."""
    if not isinstance(statistic, Tensor):
        raise DataError(
            f"task '{task.name}': its {what} has a {type(statistic).__name__} as statistic, not a tensor"
        )
    try:
        found = value(statistic)
    except Exception:  # of two samples there may be none
        return
    if not isinstance(found, Real) and not (isinstance(found, Tensor) and found.numel() == 1):
        raise DataError(
            f"task '{task.name}': the value of its {what} is a {type(found).__name__}, expected a number"
        )


def _check_loss(task: Task, loss: object) -> None:
    """Whether a loss can be trained on."""
    if not isinstance(loss, Tensor) or loss.ndim or not loss.is_floating_point():
        found = (
            f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        )
        raise DataError(
            f"task '{task.name}': its loss is {found}, expected a scalar tensor, the mean over the labels that "
            "count"
        )
    if not loss.requires_grad:
        raise DataError(
            f"task '{task.name}': its loss has no gradient, so that nothing would be learned: take it of the "
            "prediction itself, without detach, item or no_grad"
        )


def _own(function: LabelFunction) -> LabelFunction:
    return function.function if isinstance(function, CountedLoss | CountedStatistic) else function
