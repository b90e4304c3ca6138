"""Data looked at whole: every image and every label of every split, once, before anything trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ms_automl.data.checks import check_batch, check_data
from ms_automl.data.contract import MultiTaskData
from ms_automl.data.splits import AugmentedSplit, Batch, Split, sets_random_state
from ms_automl.data.streaming import fetched, same_random_state, streamed
from ms_automl.errors import DataError
from ms_automl.tasks import Task
from ms_automl.tasks.labels import cleared

Progress = Callable[[str, int, int], None]
"""A function that is told what is done, how much of it, and how much there is."""

_AGAIN = 8
"""Samples, spread over a split, that are read again."""
_AUGMENTED = 16
"""Training samples that are looked at as they are augmented."""


@dataclass(frozen=True)
class Findings:
    """What was seen of data that nothing is wrong with.

    Attributes:
        warnings: what is odd, a line each.
        partial: by task of which some labels do not count: a split, the number of a sample that has such labels,
            and of one that has others.
    """

    warnings: tuple[str, ...] = ()
    partial: Mapping[str, tuple[str, int, int]] = field(default_factory=dict)


def look(data: MultiTaskData, progress: Progress | None = None) -> Findings:
    """Look at every sample of every split, some at a time; random numbers are left as they were.

    Args:
        data: is read whole once.
        progress: is told after every batch.

    Raises:
        DataError: for NaN and infinity in images and in labels that count, class numbers that a task does not
            have, values other than 0 to 1 of a yes or no, a wrong shape or type, a sample that cannot be read or,
            but in train, is another one when it is read again, a task without a label that counts in some split,
            and one that is trained and has the same label in all of train; naming split, task, the first such
            sample and what it holds.
    """
    with same_random_state():
        check_data(data)
        tasks, shape = (*data.tasks, *data.unseen_tasks), data.image_shape
        seen: dict[str, dict[str, _Labels]] = {}
        for name, split in data.splits.items():
            labels = seen[name] = {task.name: _Labels(task) for task in tasks}
            for samples, batch in streamed(split, name):
                check_batch(name, batch, tasks, samples, shape)
                for task in tasks:
                    labels[task.name].add(batch, samples.start)
                if progress is not None:
                    progress(name, samples.stop, len(split))
            if name != "train" or sets_random_state(split):
                _check_again(name, split)
            if name == "train" and isinstance(split, AugmentedSplit):
                some = range(min(_AUGMENTED, len(split)))  # no look sees all that may be drawn
                check_batch(
                    "augmented train", fetched(split, "augmented train", some, augmented=True), tasks, some, shape
                )
            for task in tasks:
                if not labels[task.name].count:
                    raise DataError(
                        f"{name}, task '{task.name}': no label of its {len(split)} samples counts: give the split "
                        "labels of that task, or leave the task out"
                    )
        warnings: list[str] = []
        for task in tasks:
            warnings += _odd(task, {name: labels[task.name] for name, labels in seen.items()}, task in data.tasks)
        return Findings(tuple(warnings), _partial(seen))


def _check_again(name: str, split: Split) -> None:
    """Raise DataError where a sample is another one when it is read again: every arm is compared on them."""
    for index in torch.linspace(0, len(split) - 1, min(_AGAIN, len(split))).round().long().tolist():
        first, second = (_parts(fetched(split, name, range(index, index + 1))) for _ in range(2))
        for what, values in first.items():
            if not torch.equal(values.cpu(), second[what].cpu()):
                raise DataError(
                    f"{name}: the {what} in sample {index} is another one when it is read again: a split gives "
                    "the same sample for the same number; what is random belongs into `augmented` of train"
                )


def _parts(batch: Batch) -> dict[str, Tensor]:
    return {"image": batch.images} | {f"target of '{task}'": labels for task, labels in _counted(batch).items()}


def _counted(batch: Batch) -> dict[str, Tensor]:
    return {name: cleared(target, batch.valid[name]) for name, target in batch.targets.items()}


class _Labels:
    """What a task's labels are in a split, batch by batch."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.count = 0
        self.firsts: dict[int, int] = {}  # by class: the first sample that has it; no is 0 and yes is 1
        self.low = self.high = torch.empty(0)  # [C] of values
        self.least, self.most = 1.0, 0.0  # of probabilities of yes
        self.first_valid: int | None = None  # the first sample with a label that counts
        self.first_invalid: int | None = None  # and with one that does not
        self.strange = 0  # labels that count and are outside the task's domain
        self.first_strange = 0

    def add(self, batch: Batch, start: int) -> None:
        target, valid = batch.targets[self.task.name].cpu(), batch.valid[self.task.name].cpu()
        self.count += (count := int(valid.sum()))
        if count and self.first_valid is None:
            self.first_valid = start + _first(valid)
        if count < valid.numel() and self.first_invalid is None:
            self.first_invalid = start + _first(~valid)
        if not count:
            return
        if self.task.kind == "values":
            self._widen(target, valid)
            outside = _outside(self.task, target) & valid
            if not self.strange and bool(outside.any()):
                self.first_strange = start + _first(outside)
            self.strange += int(outside.sum())
        else:
            if self.task.kind == "binary":
                target = target.reshape(valid.shape)
                self.least = min(self.least, float(target[valid].min()))
                self.most = max(self.most, float(target[valid].max()))
                target = (target > 0.5).long()
            self._note(target, valid, start)

    def _widen(self, target: Tensor, valid: Tensor) -> None:
        target = target.flatten(2) if target.ndim > 2 else target[..., None]  # [B, C, P]
        valid = valid.reshape(target.shape if self.task.per_channel else (len(valid), 1, -1))
        low = target.masked_fill(~valid, torch.inf).amin((0, 2))
        high = target.masked_fill(~valid, -torch.inf).amax((0, 2))
        self.low = torch.minimum(self.low, low) if len(self.low) else low
        self.high = torch.maximum(self.high, high) if len(self.high) else high

    def _note(self, classes: Tensor, valid: Tensor, start: int) -> None:
        for number in torch.bincount(classes[valid]).nonzero()[:, 0].tolist():
            if number not in self.firsts:
                self.firsts[number] = start + _first((classes == number) & valid)

    @property
    def only(self) -> str | None:
        """What every label is; None where they differ."""
        if self.task.kind == "values":
            known = self.low <= self.high  # no label of a channel counts: it has no range
            same = bool((self.low == self.high)[known].all())
            return ", ".join(f"{value:g}" for value in self.low[known].tolist()) if same else None
        if self.task.kind == "binary":  # below a hundredth they are 0 to 255 taken for 0 to 1, say
            return "no" if self.most < 0.01 else "yes" if self.least > 0.99 else None
        return None if len(self.firsts) > 1 else f"class {next(iter(self.firsts))}"


_DOMAINS = {"positive": "0 or below, as no such value is", "unit": "no vectors of length 1"}


def _outside(task: Task, target: Tensor) -> Tensor:
    """Which labels of values [B, C, ...] are not what the task says they are: of valid's shape."""
    if task.per_channel:
        return (target <= 0) if task.domain == "positive" else torch.zeros_like(target, dtype=torch.bool)
    if task.domain == "positive":
        return (target <= 0).any(1)
    if task.domain == "unit":
        return (target.square().sum(1).sqrt() - 1).abs() > 0.02
    return torch.zeros_like(target[:, :1], dtype=torch.bool).any(1)


def _first(places: Tensor) -> int:
    return int(places.reshape(len(places), -1).any(1).nonzero()[0])


def _odd(task: Task, splits: Mapping[str, _Labels], trained: bool) -> list[str]:
    """What is odd about a task's labels, a line each.

    A class that training lacks is no error: a rare one may be, in a small split, and every arm is measured on the
    same labels. A task that has nothing to learn is one: its loss relative to dense is a ratio of two roundings.
    """
    lines = []
    for name, labels in splits.items():
        where = f"{name}, task '{task.name}': "
        if labels.only is not None and name == "train" and trained:
            raise DataError(
                f"{where}every label that counts is {labels.only}, so that there is nothing to learn: leave the "
                "task out, or take more samples"
            )
        if labels.only is not None:
            lines.append(f"{where}every label that counts is {labels.only}")
        if labels.strange:
            lines.append(
                f"{where}{labels.strange / labels.count:.2g} of the labels that count are "
                f"{_DOMAINS[task.domain]} (first in sample {labels.first_strange}): mark what is missing as not "
                "valid, and convert the rest"
            )
        missing = {
            number: first for number, first in labels.firsts.items() if number not in splits["train"].firsts
        }
        if missing and task.classes is not None:
            numbers = ", ".join(map(str, sorted(missing)))
            lines.append(
                f"{where}no sample of train has class {numbers} (first in sample {min(missing.values())})"
            )
    return lines


def _partial(seen: Mapping[str, Mapping[str, _Labels]]) -> dict[str, tuple[str, int, int]]:
    return {
        task: (name, labels.first_invalid, labels.first_valid)
        for name, split in reversed(list(seen.items()))  # of the splits that have any, the first
        for task, labels in split.items()
        if labels.first_invalid is not None and labels.first_valid is not None
    }
