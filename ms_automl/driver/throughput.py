"""How long the passes of a trial take: measured on this machine's device, or worked out from an assumed rate."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.run import Suggestion, Trial
from ms_automl.data import Batch, Split
from ms_automl.driver.script import Passes
from ms_automl.models import flops_of_a_sample
from ms_automl.training import TrainingLoop, evaluate

TFLOPS = 10.0
"""10^12 floating-point operations a second that a GPU which is not here is taken to sustain over a whole training:
a cautious guess and no measurement, a small part of what data sheets promise, as it is with small batches."""
PATIENCE = 15.0
"""Seconds after which no further step is measured."""
STEPS = 30
"""Steps that are measured, at most."""


@dataclass(frozen=True)
class Throughput:
    """How fast trials are; one throughput for all methods.

    Attributes:
        train: seconds of a pass that trains.
        forward: seconds of a pass of evaluation, which is three samples.
        setup: seconds from the grant of a device to the first step.
        source: how that is known.
    """

    train: float
    forward: float
    setup: float
    source: str

    def startup(self, trial: Trial) -> float:
        """Seconds from the grant of a device to the first step."""
        return self.setup

    def interval(self, trial: Trial, passes: Passes) -> float:
        """Seconds of a report interval that makes these passes."""
        return sum((self.forward if kind == "forward" else self.train) * n for kind, n in passes.items())


def throughput_of(experiment: Experiment, tflops: float | None = None) -> Throughput:
    """The throughput of a comparison's trials.

    Where the device that a trial trains on is here, the dense method takes some training steps on it and evaluates
    a batch. Where it is not, the operations of a pass and a rate say how long it lasts.

    Args:
        experiment: what trials are built from.
        tflops: 10^12 operations a second, to be assumed in the place of a measurement; None for :data:`TFLOPS`
            where there is nothing to measure.
    """
    device = experiment.config.resources.device
    present = device.type == "cpu" or torch.cuda.is_available()
    return _measured(experiment) if present and tflops is None else _assumed(experiment, tflops or TFLOPS, present)


def _assumed(experiment: Experiment, tflops: float, present: bool) -> Throughput:
    seed = experiment.config.first_seed
    train, forward = flops_of_a_sample(experiment.network(seed), experiment.data(seed).image_shape)
    rate = tflops * 1e12
    source = (
        f"{'' if present else 'no GPU here to measure on: '}{tflops:g} TFLOPS are assumed (--tflops), which at "
        f"{train / 1e9:.3g} GFLOP a pass are {rate / train:.0f} passes a second"
    )
    return Throughput(train / rate, 3 * forward / rate, 0.0, source)


def _measured(experiment: Experiment) -> Throughput:
    config = experiment.config
    torch.set_num_threads(config.resources.cpus_per_trial)  # as in a trial
    for _ in range(2):  # the first time reads the data and loads libraries
        began = time.perf_counter()
        method, _ = experiment.build(Suggestion("dense", {}, {}), config.first_seed, None)
        setup = time.perf_counter() - began
    loop, device = method.loop, config.resources.device
    part = FirstSamples(loop.data.val, min(config.training.eval_batch_size, len(loop.data.val)))
    deadline = time.perf_counter() + PATIENCE
    steps, a_step = _median(lambda: _step(loop), STEPS, deadline, device)
    _, a_batch = _median(lambda: evaluate(loop.network, part, loop.data.tasks, len(part)), 3, deadline, device)
    train, sample = a_step / loop.settings.batch_size, a_batch / len(part)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine's CPU"
    count = "a dense training step" if steps == 1 else f"{steps} dense training steps"
    source = (
        f"{count} and an evaluation of {len(part)} samples on {where}, just now: "
        f"{1 / train:.0f} passes a second in training, {1 / sample:.0f} samples a second in evaluation"
    )
    return Throughput(train, 3 * sample, setup, source)


def _step(loop: TrainingLoop) -> None:
    for group in loop.optimizer.param_groups:
        group["lr"] = 0.0  # the time is wanted, and not where the steps lead
    loop.network.train()
    loop.backward(loop.feed.next())
    loop.optimizer.step()


def _median(run: Callable[[], object], most: int, deadline: float, device: torch.device) -> tuple[int, float]:
    """How often it ran, and the median of its seconds; the first time counts only where there is no other."""
    taken: list[float] = []
    while len(taken) <= most and (not taken or time.perf_counter() < deadline):
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
    counted = taken[1:] or taken
    return len(counted), statistics.median(counted)


class FirstSamples:
    """The first samples of a split.

    Args:
        split: the whole of it.
        samples: how many.
    """

    def __init__(self, split: Split, samples: int) -> None:
        self.split = split
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def batch(self, indices: Tensor) -> Batch:
        """The samples at ``indices``, an int64 tensor of shape [B]."""
        return self.split.batch(indices)
