"""The one training and evaluation loop that every way of training uses.

A trial has two phases. In the *sparsifying* phase a rule may zero groups after each optimiser step (a prox, a
pruning). Then the pattern of zeros is frozen for good and the network trains on without shrinkage
('debiasing'), or every surviving weight would stay too small and a sparse model would look worse than it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ms_automl.budget import Cost, planned_cost
from ms_automl.data import Batch, MultiTaskData, Split
from ms_automl.errors import ConfigError, DivergenceError, unknown_name
from ms_automl.meta.outer import frozen_buffers
from ms_automl.models import MultiTaskNet
from ms_automl.sparsity import GROUPINGS, METRICS, build_groups, measure, prox_
from ms_automl.tasks import Task

Metrics = dict[str, float]
State = dict[str, Any]

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
        metric: of the proximal step, a key of :data:`~ms_automl.sparsity.METRICS`.
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
    grouping: str = "input_channel"
    metric: str = "euclidean"

    def __post_init__(self) -> None:
        checks = {
            "1 <= report_every <= steps": 1 <= self.report_every <= self.steps,
            "batch_size >= 2": self.batch_size >= 2,
            "eval_batch_size >= 1": self.eval_batch_size >= 1,
            "optimizer is adamw or sgd": self.optimizer in ("adamw", "sgd"),
            "lr > 0": self.lr > 0,
            "0 <= momentum < 1": 0 <= self.momentum < 1,
            "weight_decay >= 0": self.weight_decay >= 0,
            "0 <= warmup_share < 1": 0 <= self.warmup_share < 1,
            "0 < prox_share <= 1": 0 < self.prox_share <= 1,
        }
        for condition, holds in checks.items():
            if not holds:
                raise ConfigError(f"training: `{condition}` must hold, but got {self}")
        if self.grouping not in GROUPINGS:
            raise unknown_name("grouping", self.grouping, list(GROUPINGS))
        if self.metric not in METRICS:
            raise unknown_name("metric", self.metric, list(METRICS))
        if self.metric == "adam" and self.optimizer != "adamw":
            raise ConfigError(
                f"training.metric=adam is the metric of Adam's second moment, but got optimizer={self.optimizer}: "
                "set training.optimizer=adamw or training.metric=euclidean"
            )

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
        return planned_cost(
            steps=self.steps,
            batch_size=self.batch_size,
            reports=self.reports,
            val=len(data.val),
            test=len(data.test),
            outer_updates=outer_updates,
            products=products,
            probed=probes * self.probe_samples(data),
        )


class Trainable(Protocol):
    """A way of training. Built from plain arguments; driven by ``step`` until ``done``.

    ``save → load → step`` equals an uninterrupted run, bit for bit on CPU.
    """

    cost: Cost

    @property
    def done(self) -> bool:
        """Whether the last report was made."""
        ...

    def step(self) -> Metrics:
        """Train one report interval and evaluate."""
        ...

    def state_dict(self) -> State:
        """Everything that the rest of the run depends on: tensors, numbers, lists and dicts of them."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Restore :meth:`state_dict`."""
        ...


class BatchOrder:
    """Endless shuffled batches of indices: every sample once an epoch, incomplete batches dropped."""

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        if batch_size > size:
            raise ConfigError(f"batch_size must be at most the split's {size} samples, but got {batch_size}")
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(seed)
        self.size = size
        self.order = torch.empty(0, dtype=torch.int64)
        self.position = 0

    def next(self) -> Tensor:
        """Indices of the next batch."""
        if self.position + self.batch_size > len(self.order):
            self.order = torch.randperm(self.size, generator=self.generator)
            self.position = 0
        batch = self.order[self.position : self.position + self.batch_size]
        self.position += self.batch_size
        return batch

    def state_dict(self) -> State:
        """The shuffle and the place in it."""
        return {"order": self.order, "position": self.position, "generator": self.generator.get_state()}

    def load_state_dict(self, state: State) -> None:
        """Restore :meth:`state_dict`."""
        self.order, self.position = state["order"], state["position"]
        self.generator.set_state(state["generator"])


class TrainingLoop:
    """Trains a multi-task network and leaves room after each optimiser step for a rule that zeros groups.

    Args:
        data: train feeds θ; val is evaluated at every report; test once, after the last step.
        network: trained in place.
        settings: length, optimiser and phases.
        seed: of the data order.
    """

    def __init__(self, data: MultiTaskData, network: MultiTaskNet, settings: TrainingSettings, seed: int) -> None:
        self.data = data
        # Channels last: an eighth less time a step for small 3x3 convolutions on a CPU, and what a GPU likes.
        self.network: MultiTaskNet = network.to(memory_format=torch.channels_last)
        self.settings = settings
        self.groups = build_groups(network, settings.grouping, data.image_shape)
        self.optimizer = _optimizer(network, settings)
        self.order = BatchOrder(len(data.train), settings.batch_size, seed)
        self.cost = Cost()
        self.steps_done = 0
        self.batch: Batch  # of the step that was just taken
        self.pattern: Tensor | None = None  # [G] 1 where a group lives, once frozen
        self.lambdas: Callable[[], Tensor] | None = None  # [L] λ now, of the methods that have one

    @property
    def done(self) -> bool:
        """Whether every step was taken."""
        return self.steps_done >= self.settings.steps

    @property
    def lr(self) -> float:
        """η of the step that was just taken."""
        return self.settings.lr_at(self.steps_done)

    @property
    def phase(self) -> float:
        """Progress of the sparsifying phase, 0 at its first step and 1 at its last."""
        last = self.settings.prox_steps - 1
        return self.steps_done / last if last else 1.0

    def interval(
        self, sparsify: Callable[[], None] | None = None, backward: Callable[[Batch], None] | None = None
    ) -> Metrics:
        """Train up to the next report and evaluate.

        Args:
            sparsify: called after each optimiser step of the sparsifying phase; None zeros nothing.
            backward: leaves in ``grad`` what the optimiser steps along, given the step's training batch; None is
                :meth:`backward` over all tasks.

        Raises:
            DivergenceError: at the first loss that is NaN or infinite.
        """
        stop = min(self.steps_done + self.settings.report_every, self.settings.steps)
        self.network.train()
        while self.steps_done < stop:
            self._train_step(backward or self.backward)
            self._zero_groups(sparsify)
            self.steps_done += 1
        metrics = {"step": float(self.steps_done)} | self._measure()
        metrics |= self._evaluate("val", self.data.val)
        if self.done:
            metrics |= self._evaluate("test", self.data.test)
        return metrics

    def prox(self, threshold: Tensor) -> None:
        """The proximal step of what the settings group, in their metric.

        Args:
            threshold: [G] η λ sqrt(n), as :func:`~ms_automl.sparsity.thresholds` gives it.
        """
        prox_(self.groups, threshold, METRICS[self.settings.metric](self.optimizer, self.groups.weights))

    def _train_step(self, backward: Callable[[Batch], None]) -> None:
        self.batch = batch = self.data.train.batch(self.order.next())
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        backward(batch)
        self.optimizer.step()

    def backward(self, batch: Batch, tasks: Sequence[Task] | None = None, scale: float = 1.0) -> None:
        """Leave the gradient of scale · Σ_t w_t L_t in ``grad``, and count what it costs.

        Args:
            batch: samples of the train split.
            tasks: the t of the sum; None for all.
            scale: factor of the sum.

        Raises:
            DivergenceError: where the sum is NaN or infinite.
        """
        tasks = self.data.tasks if tasks is None else tasks
        losses = task_losses(tasks, self.network(batch.images), batch)
        total = scale * _weighted(tasks, losses)
        if not bool(torch.isfinite(total)):
            bad = {name: float(loss.detach()) for name, loss in losses.items()}
            raise DivergenceError(
                f"loss not finite at step {self.steps_done}{self._with_lambda()}: {bad}; try a lower training.lr"
            )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        self.cost.train += len(batch.images)

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Σ_t w_t L_t of the network's outputs on a batch: what a step descends."""
        return _weighted(self.data.tasks, task_losses(self.data.tasks, outputs, batch))

    def _zero_groups(self, sparsify: Callable[[], None] | None) -> None:
        if sparsify is None:
            return
        if self.pattern is None:
            sparsify()
            if self.steps_done == self.settings.prox_steps - 1:
                self.pattern = (self.groups.norms() > 0).to(self.groups.size.dtype)
        if self.pattern is not None:
            self.groups.scale_(self.pattern)  # the optimiser's momentum moves zeros: put them back

    def _measure(self) -> Metrics:
        sparsity = measure(self.groups)
        layers = {f"sparsity/layer/{name}": share for name, share in sparsity.layers.items()}
        shares = {"sparsity/group": sparsity.group, "sparsity/param": sparsity.param, "density": sparsity.density}
        return shares | layers | {f"lambda/{name}": value for name, value in self._lambda_by_layer().items()}

    def _lambda_by_layer(self) -> dict[str, float]:
        if self.lambdas is None:
            return {}
        return dict(zip(self.groups.names, self.lambdas().tolist(), strict=True))

    def _with_lambda(self) -> str:
        values = self._lambda_by_layer().values()
        if not values:
            return ""
        low, high = f"{min(values):.4g}", f"{max(values):.4g}"
        return f" with λ = {low}" if low == high else f" with λ from {low} to {high}"

    def _evaluate(self, name: str, split: Split) -> Metrics:
        metrics = evaluate(self.network, split, self.data.tasks, self.settings.eval_batch_size)
        self.cost.forward += len(split)
        return {f"{name}/{key}": value for key, value in self._finite(metrics, name).items()}

    def probe(self) -> Metrics:
        """Validation loss by task under batch statistics, on the split's first samples, as ``probe/<task>/loss``.

        In the middle of training the running averages of batch norm lag behind the weights, and the loss that
        they give jumps by tens of percent from report to report. Two runs are compared there without them.
        """
        samples, training = self.settings.probe_samples(self.data), self.network.training
        # Batches of nearly one size: a last one of a sample or two would have statistics of its own.
        batches = torch.arange(samples).tensor_split(math.ceil(samples / (4 * self.settings.batch_size)))
        sums = {task.name: 0.0 for task in self.data.tasks}
        self.network.eval()
        with torch.no_grad(), frozen_buffers(self.network):
            for indices in batches:
                batch = self.data.val.batch(indices)
                losses = task_losses(self.data.tasks, self.network(batch.images), batch)
                for name, loss in losses.items():
                    sums[name] += float(loss) * len(indices)
        self.network.train(training)
        self.cost.forward += samples
        return self._finite({f"probe/{name}/loss": total / samples for name, total in sums.items()}, "probe")

    def _finite(self, metrics: Metrics, what: str) -> Metrics:
        bad = {key: value for key, value in metrics.items() if key.endswith("/loss") and not math.isfinite(value)}
        if bad:
            raise DivergenceError(f"{what} loss not finite at step {self.steps_done}{self._with_lambda()}: {bad}")
        return metrics

    def state_dict(self) -> State:
        """Weights, buffers, optimiser, data order, random state, counters and the frozen pattern."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "steps_done": self.steps_done,
            "cost": self.cost.to_dict(),
            "pattern": self.pattern,
        }

    def load_state_dict(self, state: State) -> None:
        """Restore :meth:`state_dict`."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.order.load_state_dict(state["order"])
        torch.set_rng_state(state["torch_rng"])
        self.steps_done = state["steps_done"]
        for key, value in state["cost"].items():
            setattr(self.cost, key, value)
        self.pattern = state["pattern"]


def task_losses(tasks: Sequence[Task], outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """L_t of one batch by task name."""
    return {
        task.name: task.loss(outputs[task.name], batch.targets[task.name], batch.valid[task.name])
        for task in tasks
    }


def _weighted(tasks: Sequence[Task], losses: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([task.weight * losses[task.name] for task in tasks]).sum()


@torch.no_grad()
def evaluate(network: MultiTaskNet, split: Split, tasks: Sequence[Task], batch_size: int) -> Metrics:
    """Losses and metrics of a whole split, exact for any batch size.

    Returns:
        ``<task>/loss``, the mean over the split's valid labels, and ``<task>/<metric>``.
    """
    training = network.training
    network.eval()
    sums: dict[str, Tensor] = {}
    for start in range(0, len(split), batch_size):
        batch = split.batch(torch.arange(start, min(start + batch_size, len(split))))
        outputs = network(batch.images)
        for task in tasks:
            labels = (outputs[task.name], batch.targets[task.name], batch.valid[task.name])
            count = labels[2].sum().to(torch.float64)
            _add(sums, f"{task.name}/loss", torch.stack([task.loss(*labels).to(torch.float64) * count, count]))
            for name, metric in task.metrics.items():
                _add(sums, f"{task.name}/{name}", metric.statistic(*labels))
    network.train(training)
    values: Metrics = {}
    for task in tasks:
        total = sums[f"{task.name}/loss"]
        values[f"{task.name}/loss"] = float(total[0] / total[1].clamp(min=1))
        for name, metric in task.metrics.items():
            values[f"{task.name}/{name}"] = metric.value(sums[f"{task.name}/{name}"])
    return values


def _add(sums: dict[str, Tensor], key: str, value: Tensor) -> None:
    sums[key] = sums[key] + value if key in sums else value


def _optimizer(network: MultiTaskNet, settings: TrainingSettings) -> torch.optim.Optimizer:
    parameters = _decayed(network, settings.weight_decay)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=settings.lr, momentum=settings.momentum)
    return torch.optim.AdamW(parameters, lr=settings.lr)


def _decayed(network: MultiTaskNet, weight_decay: float) -> list[dict[str, Any]]:
    weights = [p for p in network.parameters() if p.ndim >= 2]
    others = [p for p in network.parameters() if p.ndim < 2]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
