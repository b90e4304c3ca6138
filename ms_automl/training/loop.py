"""The one training loop: batches, steps, reports."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from ms_automl.data import Batch, MultiTaskData, Split
from ms_automl.errors import DivergenceError
from ms_automl.models import MultiTaskNet, frozen_buffers
from ms_automl.models.copying import channels_last
from ms_automl.models.cost import Cost
from ms_automl.sparsifier.base import GroupSparsifier
from ms_automl.sparsity import build_groups
from ms_automl.tasks import Task
from ms_automl.training.evaluation import Metrics, evaluate, task_losses
from ms_automl.training.feed import Feed, State
from ms_automl.training.finite import Seen, Watch, why, why_of_split
from ms_automl.training.optimizer import optimizer_of
from ms_automl.training.settings import TrainingSettings
from ms_automl.training.weighting import WEIGHTINGS, Losses, forwards_besides

T = TypeVar("T")


class TrainingLoop:
    """Trains a multi-task network, and after each optimiser step a sparsifier zeroes groups by its rule.

    Args:
        data: train feeds θ; val is evaluated at every report; test once, after the last step.
        network: trained in place.
        settings: length, optimiser and phases.
        seed: of the data order, and of what is drawn for an augmented sample.

    Attributes:
        sparsifier: of the network; its rule is to be set before the first step.
    """

    def __init__(self, data: MultiTaskData, network: MultiTaskNet, settings: TrainingSettings, seed: int) -> None:
        self.data = data
        self.network = channels_last(network)
        self.settings = settings
        groups = build_groups(network, settings.grouping, data.image_shape)
        network.precision = settings.precision
        if settings.compile:
            torch.compiler.reset()  # a process compiles a forward eight times and then no more: begin anew
            network.compile()  # in place: parameters and their names stay
        self.weighting = WEIGHTINGS[settings.weighting](network, data, settings.batch_size, seed + 2)
        self.optimizer = optimizer_of(network, settings)
        self.sparsifier = GroupSparsifier(
            groups,
            self.optimizer,
            steps=settings.steps,
            prox_share=settings.prox_share,
            prox_metric=settings.prox_metric,
        )
        self.feed = Feed(data.train, settings.batch_size, seed, settings.prefetch)
        self.micro_batch = settings.micro_batch or settings.batch_size
        self.eval_batch = settings.eval_batch_size
        self.probe_batch = 4 * settings.batch_size
        self.cost = Cost()
        self.passes = 1  # of a sample, in passes through one network
        self.steps_done = 0
        self.batch: Batch  # of the step that was just taken
        self.evaluation_seconds = 0.0  # of this process: no part of the state
        device = next(network.parameters()).device
        # Looking at a loss waits for the GPU to compute it: there it is looked at when a report is due.
        self.patient = device.type != "cpu"
        self.watch = Watch(data.tasks, device)
        self.device = device
        self.frozen: nn.Module | None = None  # the part of the network that does not train
        self.errors = False  # whether the last evaluation has the losses' standard errors

    @property
    def done(self) -> bool:
        """Whether every step was taken."""
        return self.steps_done >= self.settings.steps

    @property
    def lr(self) -> float:
        """η of the step that was just taken."""
        return self.settings.lr_at(self.steps_done)

    def interval(self, backward: Callable[[Batch], None] | None = None) -> Metrics:
        """Train up to the next report and evaluate.

        Args:
            backward: leaves in ``grad`` what the optimiser steps along, given the step's training batch; None is
                :meth:`backward` over all tasks.

        Raises:
            DivergenceError: at the first loss that is NaN or infinite.
        """
        stop = min(self.steps_done + self.settings.report_every, self.settings.steps)
        self.network.train()
        if self.frozen is not None:
            self.frozen.eval()
        while self.steps_done < stop:
            self._train_step(backward or self.backward)
            self.sparsifier.step()
            self.weighting.look_back(self._losses_again)
            self.steps_done += 1
        if trouble := self.watch.why():
            raise self._diverged(f"loss not finite by step {self.steps_done}", trouble)
        metrics = {"step": float(self.steps_done)} | self.sparsifier.measure()
        if self.micro_batch < self.settings.batch_size:
            metrics["micro_batch"] = float(self.micro_batch)
        metrics |= self._evaluate("val", self.data.val)
        if self.done:
            metrics |= self._evaluate("test", self.data.test)
        return metrics

    def freeze(self, part: nn.Module) -> None:
        """Leave a part of the network as it is from here on: its weights and its batch-norm averages.

        Args:
            part: of the network; before the first step.
        """
        self.frozen = part.requires_grad_(False)
        self.optimizer = optimizer_of(self.network, self.settings)
        self.sparsifier.watch(self.optimizer)

    def _train_step(self, backward: Callable[[Batch], None]) -> None:
        self.batch = batch = self.feed.next()
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        self.weighting.begin()
        backward(batch)
        self.optimizer.step()

    def backward(self, batch: Batch, tasks: Sequence[Task] | None = None, scale: float = 1.0) -> None:
        """Leave the gradient of scale · Σ_t w_t L_t in ``grad``, and count what it costs.

        Where the memory does not suffice, the micro-batch is halved for good, and the step begins again.

        Args:
            batch: samples of the train split.
            tasks: the t of the sum; None for all.
            scale: factor of the sum.

        Raises:
            DivergenceError: where the sum is NaN or infinite.
            torch.OutOfMemoryError: where two samples are too many.
        """
        tasks = self.data.tasks if tasks is None else tasks
        self.within_memory(batch, lambda parts: self._accumulate(batch, parts, tasks, scale))

    def within_memory(self, batch: Batch, work: Callable[[list[Batch]], T]) -> T:
        """Do some work on the micro-batches of a batch; again on smaller ones, for good, where memory runs out.

        Args:
            batch: of any size.
            work: is given parts of the batch, which may be all of it.

        Raises:
            torch.OutOfMemoryError: where two samples are too many.
        """
        while True:
            try:
                return work(batch.split(-(-len(batch.images) // self.micro_batch)))
            except torch.OutOfMemoryError:
                if self.micro_batch < 4:
                    raise
                self.micro_batch = min(self.micro_batch, len(batch.images)) // 2

    def _accumulate(self, batch: Batch, parts: list[Batch], tasks: Sequence[Task], scale: float) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        for index, part in enumerate(parts):
            outputs = self.network(part.images)
            losses = task_losses(tasks, outputs, part)
            seen = Seen(tasks, outputs, part, losses)
            share = len(part.images) / len(batch.images)
            if share < 1:  # a mean over the part's labels counts as much as it has of the batch's labels
                losses = {name: part.label_share(batch, name) * loss for name, loss in losses.items()}
            total = scale * self.weighting.total(tasks, losses, share)
            self._look(total, [seen])
            first, last = index == 0, index == len(parts) - 1
            self.weighting.backward(total, tasks, losses, scale, first=first, last=last)
            self.weighting.observe(losses)
        self._charge(len(batch.images))
        besides = forwards_besides(self.settings.weighting, len(tasks))
        self.cost.forward += besides * self.passes * len(batch.images)

    @torch.no_grad()
    def _losses_again(self) -> Losses:
        """L_t of the step's batch with the weights after the step."""
        found: dict[str, Tensor] = {}
        with frozen_buffers(self.network):
            for part in self.batch.split(-(-len(self.batch.images) // self.micro_batch)):
                losses = task_losses(self.data.tasks, self.network(part.images), part)
                for name, loss in losses.items():
                    found[name] = found.get(name, 0.0) + part.label_share(self.batch, name) * loss
        return found

    def descend(self, total: Tensor, seen: Sequence[Seen], samples: int) -> None:
        """Leave the gradient of a loss in ``grad``, and count what it costs.

        Args:
            total: the loss.
            seen: what its terms were taken on, for the error.
            samples: that it was taken on. With a frozen trunk they count as forward passes: a head's own
                backward is small beside the trunk's.

        Raises:
            DivergenceError: where the loss is NaN or infinite.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self._look(total, seen)
        total.backward()  # type: ignore[no-untyped-call]
        self._charge(samples)

    def _look(self, total: Tensor, seen: Sequence[Seen]) -> None:
        if self.patient:
            self.watch.look(total, seen)
        elif not bool(torch.isfinite(total)):
            raise self._diverged(f"loss not finite at step {self.steps_done}", why(seen))

    def _charge(self, samples: int) -> None:
        if self.frozen is self.network.trunk:
            self.cost.forward += self.passes * samples
        else:
            self.cost.train += self.passes * samples

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """What a step descends, of the network's outputs on a batch."""
        return self.weighting.total(self.data.tasks, task_losses(self.data.tasks, outputs, batch))

    def _with_lambda(self) -> str:
        values = self.sparsifier.lambdas().values()
        if not values:
            return ""
        low, high = f"{min(values):.4g}", f"{max(values):.4g}"
        return f" with λ = {low}" if low == high else f" with λ from {low} to {high}"

    def _evaluate(self, name: str, split: Split) -> Metrics:
        began, errors = time.perf_counter(), self.errors and self.done
        while True:
            try:
                metrics = evaluate(self.network, split, self.data.tasks, self.eval_batch, errors=errors)
                break
            except torch.OutOfMemoryError:
                if self.eval_batch == 1:
                    raise
                self.eval_batch = min(self.eval_batch, len(split)) // 2  # changes no result
        self.cost.forward += self.passes * len(split)
        self.evaluation_seconds += time.perf_counter() - began
        if any(not math.isfinite(metrics[f"{task.name}/loss"]) for task in self.data.tasks):
            self.network.eval()
            trouble = why_of_split(self.network, split, self.data.tasks, self.eval_batch)
            raise self._diverged(f"{name} loss not finite at step {self.steps_done}", trouble)
        return {f"{name}/{key}": value for key, value in metrics.items()}

    def probe(self) -> Metrics:
        """Validation loss by task under batch statistics, on the split's first samples, as ``probe/<task>/loss``.

        In the middle of training the running averages of batch norm lag behind the weights, and the loss that
        they give jumps by tens of percent from report to report. Two runs are compared there without them.
        """
        began = time.perf_counter()
        samples, training = self.settings.probe_samples(self.data), self.network.training
        self.network.eval()
        while True:
            try:
                losses = self._probed(samples)
                break
            except torch.OutOfMemoryError:
                if self.probe_batch < 4:
                    raise
                self.probe_batch = min(self.probe_batch, samples) // 2
        self.network.train(training)
        self.cost.forward += self.passes * samples
        self.evaluation_seconds += time.perf_counter() - began
        return {f"probe/{name}/loss": loss for name, loss in losses.items()}

    @torch.no_grad()
    def _probed(self, samples: int) -> dict[str, float]:
        sums = {task.name: 0.0 for task in self.data.tasks}
        with frozen_buffers(self.network):
            # Batches of nearly one size: a last one of a sample or two would have statistics of its own.
            for indices in torch.arange(samples).tensor_split(math.ceil(samples / self.probe_batch)):
                batch = self.data.val.batch(indices)
                outputs = self.network(batch.images)
                losses = task_losses(self.data.tasks, outputs, batch)
                for name, loss in losses.items():
                    sums[name] += float(loss) * len(indices)
                if not all(map(math.isfinite, sums.values())):
                    trouble = why([Seen(self.data.tasks, outputs, batch, losses)])
                    raise self._diverged(f"probe loss not finite at step {self.steps_done}", trouble)
        return {name: total / samples for name, total in sums.items()}

    def _diverged(self, what: str, trouble: str) -> DivergenceError:
        return DivergenceError(f"{what}{self._with_lambda()}: {trouble}")

    def state_dict(self) -> State:
        """Weights, buffers, optimiser, data order, random state, counters, and what the sparsifier knows."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "feed": self.feed.state_dict(),
            "micro_batch": self.micro_batch,
            "torch_rng": torch.get_rng_state(),
            "device_rng": self._device_rng(),
            "steps_done": self.steps_done,
            "cost": self.cost.to_dict(),
            "sparsifier": self.sparsifier.state_dict(),
            "weighting": self.weighting.state_dict(),
        }

    def _device_rng(self) -> Tensor | None:
        """Of a GPU, which draws what dropout leaves out there."""
        return torch.cuda.get_rng_state() if self.device.type == "cuda" else None

    def load_state_dict(self, state: State, rule: State | None = None) -> None:
        """Restore :meth:`state_dict`.

        Args:
            state: of a loop.
            rule: the rule's, of a trial that began with a version whose loops had no sparsifier.
        """
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.feed.load_state_dict(state["feed"])
        self.micro_batch = state["micro_batch"]
        torch.set_rng_state(state["torch_rng"])
        if state["device_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["device_rng"])
        self.steps_done = state["steps_done"]
        for key, value in state["cost"].items():
            setattr(self.cost, key, value)
        self.weighting.load_state_dict(state.get("weighting", {}))
        if "sparsifier" in state:
            self.sparsifier.load_state_dict(state["sparsifier"])
        else:
            earlier = {"taken": state["steps_done"], "pattern": state["pattern"], "rule": rule or {}}
            self.sparsifier.load_state_dict(earlier)
