"""What a task is: the shape of its head, its loss, its metrics, and which labels count.

Every loss and metric takes ``prediction``, ``target`` and ``valid``. Shapes, for a batch of B images H x W
and a head of C channels:

=============  =================  ==================  ===============
kind of task   prediction         target              valid (bool)
=============  =================  ==================  ===============
dense classes  [B, C, H, W]       [B, H, W] int64     [B, H, W]
dense values   [B, C, H, W]       [B, C, H, W] float  [B, H, W]
dense binary   [B, C, H, W]       [B, C, H, W] float  [B, H, W]
image classes  [B, C]             [B] int64           [B]
image ordinal  [B, C]             [B] int64           [B]
image values   [B, C]             [B, C] float        [B]
image binary   [B, 1]             [B] float           [B]
=============  =================  ==================  ===============

Ordinal classes are the C + 1 levels 0 to C, of which a prediction has the logits of 'above 0', …, 'above C - 1'.
With ``per_channel`` the labels of a position count one by one, as several yes or no do: ``valid`` then has the
target's shape, [B, C, H, W] or [B, C], and an image's binary target is [B, C].

Losses are means over valid labels and exactly 0 (with a gradient of 0) where a batch has none. Metrics are
pairs of an additive statistic and a function of its sum, so that a split of any size is measured exactly,
batch by batch. Whatever targets hold where ``valid`` is False is replaced before a loss or a metric sees it
(:mod:`ms_automl.tasks.labels`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Literal

from torch import Tensor

from ms_automl.errors import DataError
from ms_automl.tasks.labels import CountedLoss, CountedStatistic
from ms_automl.tasks.labels import LabelFunction as TaskFunction

LONGEST = 100
"""Letters of the name of a task or a metric: MLflow keeps 250 of ``test/<task>/<metric>``."""


def count(name: str, value: object, least: int) -> int:
    """A whole number, also of numpy's; DataError for what is none, or is too small."""
    if type(value) is bool or not isinstance(value, Integral) or value < least:
        raise DataError(f"`{name} >= {least}` must hold, but got {name}={value!r}")
    return int(value)


@dataclass(frozen=True)
class HeadSpec:
    """What a network must emit for one task.

    Attributes:
        channels: C, the number of output channels.
        dense: True for one output per pixel, [B, C, H, W]; False for one per image, [B, C].
    """

    channels: int
    dense: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", count("channels", self.channels, 1))

    def shape(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        """Shape of the prediction for ``batch`` images of ``height`` x ``width`` pixels."""
        return (batch, self.channels, height, width) if self.dense else (batch, self.channels)


@dataclass(frozen=True)
class Metric:
    """A metric of a whole split: ``value(Σ_batches statistic(batch))``.

    Attributes:
        statistic: additive float64 tensor of one batch.
        value: the metric as a function of the summed statistic; NaN where no label was valid.
        direction: whether a higher or a lower value is better.
        unit: unit of the value as a plot axis states it.
    """

    statistic: TaskFunction
    value: Callable[[Tensor], float]
    direction: Literal["max", "min"]
    unit: str

    def __post_init__(self) -> None:
        if self.direction not in ("max", "min"):
            raise DataError(f"a metric's direction is 'max' or 'min', but got {self.direction!r}")
        for what, function in (("statistic", self.statistic), ("value", self.value)):
            if not callable(function):
                raise DataError(f"a metric's {what} must be a function, but is a {type(function).__name__}")
        if not isinstance(self.statistic, CountedStatistic):
            object.__setattr__(self, "statistic", CountedStatistic(self.statistic))


@dataclass(frozen=True)
class Task:
    """One task of a multi-task network.

    Attributes:
        name: letters, digits and underscores; names the head, the metrics and the columns.
        head: what the network must emit.
        loss: mean over valid labels, a scalar tensor.
        metrics: by name, each with its direction.
        weight: factor of the task's loss in the training sum (METHOD: Σ_t weight_t L_t).
        kind: what the target is, used to check it before training.
        domain: of values, what they should be: above 0, or vectors [C] of length 1; others are named before
            anything trains.
        per_channel: whether labels of one position count one by one, channel by channel.
    """

    name: str
    head: HeadSpec
    loss: TaskFunction
    metrics: Mapping[str, Metric]
    weight: float = 1.0
    kind: Literal["classes", "ordinal", "values", "binary"] = field(default="values", kw_only=True)
    domain: Literal["any", "positive", "unit"] = field(default="any", kw_only=True)
    per_channel: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise DataError(f"task name '{self.name}' must be letters, digits and underscores")
        self._check_parts()
        for metric in (self.name, *self.metrics):
            if len(metric) > LONGEST:
                raise DataError(
                    f"the name '{metric[:20]}...' has {len(metric)} letters, at most {LONGEST} are kept"
                )
        for metric in self.metrics:
            if metric == "loss" or not re.fullmatch(r"[\w.\-: ]+", metric):
                raise DataError(
                    f"task '{self.name}': a metric cannot be called '{metric}': name it otherwise than the loss, "
                    "in letters, digits, underscores, hyphens, dots, colons and spaces"
                )
        if not isinstance(self.weight, int | float) or not 0 < self.weight < float("inf"):
            raise DataError(f"task '{self.name}': `0 < weight < inf` must hold, but got weight={self.weight}")
        if not isinstance(self.loss, CountedLoss):
            object.__setattr__(self, "loss", CountedLoss(self.loss))

    def _check_parts(self) -> None:
        known = {"kind": ("classes", "ordinal", "values", "binary"), "domain": ("any", "positive", "unit")}
        for name, values in known.items():
            if (given := getattr(self, name)) not in values:
                raise DataError(f"task '{self.name}': {name} is one of {', '.join(values)}, but got {given!r}")
        if not isinstance(self.head, HeadSpec) or not callable(self.loss):
            raise DataError(f"task '{self.name}': its head must be a HeadSpec, and its loss a function")
        if self.kind == "ordinal" and self.head.dense:
            raise DataError(f"task '{self.name}': ordinal classes are of an image, so its head is not dense")
        if self.per_channel and (self.classes is not None or self.domain == "unit"):
            what = "unit vectors" if self.classes is None else "classes"
            raise DataError(f"task '{self.name}': {what} count as one label, so per_channel must be False")
        if not isinstance(self.metrics, Mapping) or not all(isinstance(m, Metric) for m in self.metrics.values()):
            raise DataError(f"task '{self.name}': its metrics must be a mapping from names to Metric")
        if not self.metrics:
            raise DataError(f"task '{self.name}' has no metric: give at least one, Δm compares them")

    @property
    def classes(self) -> int | None:
        """How many classes there are, numbered from 0; None where targets are no classes."""
        return {"classes": self.head.channels, "ordinal": self.head.channels + 1}.get(self.kind)

    def target_shape(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        """Shape of a batch of this task's targets."""
        single = self.classes is not None or (
            self.kind == "binary" and not self.head.dense and not self.per_channel
        )
        channels = () if single else (self.head.channels,)
        return (batch, *channels, *self._positions(height, width))

    def valid_shape(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        """Shape of a batch of this task's validity mask."""
        if self.per_channel:
            return self.target_shape(batch, height, width)
        return (batch, *self._positions(height, width))

    def _positions(self, height: int, width: int) -> tuple[int, ...]:
        return (height, width) if self.head.dense else ()
