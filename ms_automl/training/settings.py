"""How a trial trains: its length, optimiser and phases, the same for every arm of a comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from ms_automl.errors import STRICT, ConfigError, require, unknown_name

if TYPE_CHECKING:
    from ms_automl.data import MultiTaskData
    from ms_automl.models.cost import Cost

Grouping = Literal["input_channel", "output_channel", "coupled", "weight"]
"""Keys of :data:`~ms_automl.sparsity.GROUPINGS`, which takes torch to be read."""
ProxMetric = Literal["euclidean", "adam"]
"""Keys of :data:`~ms_automl.sparsity.PROX_METRICS`."""
Weighting = Literal[
    "equal", "uncertainty", "random", "dwa", "chebyshev", "famo",
    "upgrad", "pcgrad", "cagrad", "mgda", "imtl-g", "aligned-mtl", "nash-mtl",
]  # fmt: skip
"""Keys of :data:`~ms_automl.training.weighting.WEIGHTINGS`."""

PROBE = 512
"""Validation samples on which two runs are compared in the middle of training, at most."""


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how fast a trial trains; the same for every arm of a comparison.

    Attributes:
        steps: optimiser steps of a trial.
        batch_size: samples a step.
        optimizer: ``adamw`` (arXiv 1711.05101) or ``sgd`` with momentum.
        lr: peak learning rate: linear warm-up, then a cosine to 0.
        momentum: of ``sgd``.
        weight_decay: decoupled in AdamW, part of the gradient in SGD; on weights of two or more dimensions only.
        warmup_share: share of the steps over which the learning rate rises.
        prox_share: share of the steps that the sparsifying phase takes; the rest is debiasing.
        report_every: steps between two reports (an evaluation on the validation split each).
        eval_batch_size: samples a forward in evaluation; changes no result.
        grouping: which weights go to zero together, a key of :data:`~ms_automl.sparsity.GROUPINGS`.
        prox_metric: of the proximal step, a key of :data:`~ms_automl.sparsity.PROX_METRICS`.
        weighting: of the tasks' losses, a key of :data:`~ms_automl.training.weighting.WEIGHTINGS`.
        precision: of a forward and its gradient: ``float32``, or ``bfloat16`` by autocast with float32 weights.
        micro_batch: samples of a forward, whose gradients are added up; None is the whole batch. The sum is the
            batch's gradient, but for batch norm, which sees a micro-batch at a time. Out of memory halves it.
        prefetch: batches that are read ahead in a thread of their own; 0 reads each when it is needed.
        compile: whether forward and backward are compiled (``torch.compile``), which takes about a minute at the
            start of a trial.
    """

    steps: int = 600
    batch_size: int = 32
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 3e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_share: float = 0.05
    prox_share: float = 0.75
    report_every: int = 100
    eval_batch_size: int = 128
    grouping: Grouping = "input_channel"
    prox_metric: ProxMetric = "euclidean"
    weighting: Weighting = "equal"
    precision: Literal["float32", "bfloat16"] = "float32"
    micro_batch: int | None = None
    prefetch: int = 0
    compile: bool = False
    __pydantic_config__: ClassVar = STRICT

    def __post_init__(self) -> None:
        conditions = {
            "steps >= 1": self.steps >= 1,
            "report_every >= 1": self.report_every >= 1,
            "report_every <= steps": self.report_every <= max(1, self.steps),
            "batch_size >= 2": self.batch_size >= 2,
            "eval_batch_size >= 1": self.eval_batch_size >= 1,
            "optimizer is adamw or sgd": self.optimizer in ("adamw", "sgd"),
            "lr > 0": self.lr > 0,
            "0 <= momentum < 1": 0 <= self.momentum < 1,
            "weight_decay >= 0": self.weight_decay >= 0,
            "0 <= warmup_share < 1": 0 <= self.warmup_share < 1,
            "0 < prox_share <= 1": 0 < self.prox_share <= 1,
            "precision is float32 or bfloat16": self.precision in ("float32", "bfloat16"),
            "micro_batch >= 2": self.micro_batch is None or self.micro_batch >= 2,
            "prefetch >= 0": self.prefetch >= 0,
        }
        require(conditions, self)
        for name, kind in (("grouping", Grouping), ("prox_metric", ProxMetric), ("weighting", Weighting)):
            if getattr(self, name) not in get_args(kind):
                raise unknown_name(name, getattr(self, name), list(get_args(kind)))
        if self.prox_metric == "adam" and self.optimizer != "adamw":
            raise ConfigError(
                f"training.prox_metric=adam is that of Adam's second moment, but got optimizer={self.optimizer}: "
                "set training.optimizer=adamw or training.prox_metric=euclidean"
            )

    def under(self, values: Mapping[str, float]) -> TrainingSettings:
        """These settings with others in the place of some, by key (``training.lr``).

        Another batch size takes as many steps more or less as leave the samples of a trial, and its reports, what
        they were.

        Raises:
            ConfigError: for a value out of range.
        """
        changes: dict[str, Any] = {key.removeprefix("training."): value for key, value in values.items()}
        if (size := changes.get("batch_size")) is not None:
            changes["batch_size"], ratio = int(size), self.batch_size / size
            every, before = max(1, round(self.report_every * ratio)), self.reports - 1
            last = max(1, round((self.steps - before * self.report_every) * ratio))
            changes |= {"report_every": every, "steps": before * every + min(last, every)}
        if changes.get("momentum") is not None and self.optimizer != "sgd":
            raise ConfigError("training.momentum is of sgd: set training.optimizer=sgd, or do not tune it")
        return replace(self, **changes)

    @property
    def prox_steps(self) -> int:
        """Steps of the sparsifying phase."""
        return max(1, round(self.prox_share * self.steps))

    @property
    def reports(self) -> int:
        """Reports of a whole trial; the last one comes at its end."""
        return math.ceil(self.steps / self.report_every)

    def lr_at(self, step: int) -> float:
        """Learning rate of step 0, 1, …, steps - 1."""
        warmup = round(self.warmup_share * self.steps)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        progress = (step - warmup) / max(1, self.steps - warmup)
        return self.lr * 0.5 * (1 + math.cos(math.pi * progress))

    @property
    def sparsifying_reports(self) -> int:
        """Reports before the zeros are frozen."""
        return (self.prox_steps - 1) // self.report_every

    def probe_samples(self, data: MultiTaskData) -> int:
        """Validation samples of one :meth:`TrainingLoop.probe`."""
        return min(PROBE, len(data.val))

    def cost(self, data: MultiTaskData, outer_updates: int = 0, products: int = 0, probes: int = 0) -> Cost:
        """What a whole trial on ``data`` costs.

        Args:
            data: what it trains on.
            outer_updates: outer batches that λ's gradient is taken on.
            products: Hessian-vector products, each on one training batch.
            probes: calls of :meth:`TrainingLoop.probe`.
        """
        from ms_automl.models.cost import planned_cost
        from ms_automl.training.weighting import forwards_besides

        return planned_cost(
            steps=self.steps,
            batch_size=self.batch_size,
            reports=self.reports,
            val=len(data.val),
            test=len(data.test),
            outer_updates=outer_updates,
            products=products,
            probed=probes * self.probe_samples(data),
            besides=forwards_besides(self.weighting, len(data.tasks)),
        )
