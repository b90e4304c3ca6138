"""What a comparison will cost, before anything is spent: a simulation of it at the throughput of its trials."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from ms_automl.comparison.events import Replay, replay
from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.run import Suggestion, Trial
from ms_automl.config import Config
from ms_automl.data import Subset
from ms_automl.driver.assembly import check_batches, trial_cost
from ms_automl.driver.simulation import Outcome, Passes, simulate
from ms_automl.environment.arguments import folder_there
from ms_automl.errors import ConfigError
from ms_automl.models import flops_of_a_sample
from ms_automl.samplers.arms import check_names
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
    """How fast trials are, in seconds; one throughput for all methods."""

    train: float  # a pass that trains
    forward: float  # a pass of evaluation, which is three samples
    setup: float  # from the grant of a device to the first step
    source: str  # how that is known

    def __call__(self, trial: Trial, passes: Passes, first: bool) -> float:
        """Seconds of a report interval (:data:`~ms_automl.driver.simulation.Seconds`)."""
        seconds = sum((self.forward if kind == "forward" else self.train) * n for kind, n in passes.items())
        return seconds + (self.setup if first else 0.0)


@dataclass(frozen=True)
class Plan:
    """What is still to be run of a comparison."""

    config: Config
    outcome: Outcome  # on so many slots
    unhurried: Outcome  # on as many slots as ever have a trial
    slots: int
    trial_cost: float  # of one fixed-λ trial, in the budget's unit
    throughput: Throughput
    ended: int  # trials that ended before
    model: int  # bytes of a saved model
    state: int  # bytes that a trial leaves besides where it was stopped: another may go on from there

    @property
    def stored(self) -> int:
        """Bytes of what trials leave: every one its model."""
        whole = self.outcome.whole
        return (whole.trials + whole.retrainings) * self.model + whole.stopped * self.state


def plan(
    config: Config,
    *,
    data_dir: Path | None = None,
    slots: int | None = None,
    tflops: float | None = None,
    resumed: Path | None = None,
) -> Plan:
    """Plan a comparison; nothing is trained but for the steps that measure the throughput, nothing is recorded.

    Without ``slots`` there is one on each GPU, or one where there is none. ``tflops``, 10^12 operations a second,
    are assumed in the place of a measurement. ``resumed`` is the folder of a comparison that goes on.

    Raises:
        MsAutomlError: for what the comparison itself would not begin with.
    """
    check_names(config)
    for name, value in (("slots", slots), ("tflops", tflops)):
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"`{name} > 0` must hold, but got {name}={value:g}")
    experiment = Experiment(config, folder_there("--data-dir", data_dir))
    check_batches(config, experiment.data(config.first_seed))
    throughput, gpus = throughput_of(experiment, tflops), config.resources.gpus_per_trial
    slots = slots or max(1, int(torch.cuda.device_count() / gpus) if gpus else 1)
    done = Replay() if resumed is None else replay(resumed)
    comparison, unhurried = simulate(experiment, throughput, None, copy.deepcopy(done))
    outcome = unhurried
    if slots < unhurried.concurrency:
        comparison, outcome = simulate(experiment, throughput, slots, copy.deepcopy(done))
    cost, ended = trial_cost(experiment, comparison), len(done.ended)
    return Plan(config, outcome, unhurried, slots, cost, throughput, ended, *_bytes(experiment))


def throughput_of(experiment: Experiment, tflops: float | None = None) -> Throughput:
    """The throughput of a comparison's trials.

    Where the device that a trial trains on is here, and no rate is given, the dense method takes some training
    steps on it and evaluates a batch. Else the operations of a pass and a rate say how long it lasts.
    """
    seed = experiment.config.first_seed
    present = experiment.config.resources.device.type == "cpu" or torch.cuda.is_available()
    if present and tflops is None:
        return _measured(experiment)
    train, forward = flops_of_a_sample(experiment.network(seed), experiment.data(seed).image_shape)
    rate = 1e12 * (tflops or TFLOPS)
    source = (
        f"{'' if present else 'no GPU here to measure on: '}{rate / 1e12:g} TFLOPS are assumed (--tflops), "
        f"which at {train / 1e9:.3g} GFLOP a pass are {rate / train:.0f} passes a second"
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
    data = loop.data
    part = Subset(data.val, torch.arange(min(config.training.eval_batch_size, len(data.val))))
    deadline = time.perf_counter() + PATIENCE
    steps, a_step = _median(lambda: _step(loop), STEPS, deadline, device)
    _, a_batch = _median(lambda: evaluate(loop.network, part, data.tasks, len(part)), 3, deadline, device)
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


def _bytes(experiment: Experiment) -> tuple[int, int]:
    """Bytes of a saved model, and of the state where a trial was stopped: the weights again, and moments."""
    network = experiment.network(experiment.config.first_seed)
    model = sum(value.nbytes for value in network.state_dict().values())
    moments = {"adamw": 2, "sgd": 1}[experiment.config.training.optimizer]
    return model, model + moments * sum(value.nbytes for value in network.parameters())


def show(plan: Plan, console: Console) -> None:
    """Print what each arm runs and costs, all its seeds together, and what a table has no room for."""
    if not plan.outcome.concurrency:
        console.print(f"{plan.ended} trials have ended, and nothing is left to run.", highlight=False)
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("arm", "trials", "stopped", "retrained", "cost", "passes", "hours"):
        table.add_column(name, justify="left" if name == "arm" else "right", no_wrap=True)
    for name, share in [*plan.outcome.arms.items(), ("all", plan.outcome.whole)]:
        if name == "all":
            table.add_section()
        counts = [str(share.trials), str(share.stopped), str(share.retrainings)]
        cost, hours = f"{share.spent / plan.trial_cost:.2f}x", _hours(share.device_seconds)
        table.add_row(name, *counts, cost, f"{share.passes:,.0f}", hours)
    console.print(table)
    for line in _lines(plan):
        console.print(line, markup=False, highlight=False)


def _lines(plan: Plan) -> Iterator[str]:
    config, outcome, unhurried = plan.config, plan.outcome, plan.unhurried
    resources, whole = config.resources, outcome.whole
    if plan.ended:
        yield f"This is what is left to run: {plan.ended} trials have ended and are not in it."
    seeds = "1 seed" if config.seeds == 1 else f"{config.seeds} seeds"
    unit = {
        "passes": "passes, in units of one fixed-λ trial",
        "flops": "floating-point operations, in units of one fixed-λ trial",
        "device_seconds": "device seconds, in units of one dense trial",
    }[config.budget.unit]
    amount = f"{plan.trial_cost:,.0f}" if 100 <= plan.trial_cost < 1e9 else f"{plan.trial_cost:.3g}"
    most = resources.concurrency_per_run
    yield (
        f"{seeds}. cost: {unit} ({amount}). hours: of the device that a trial trains on. Each arm and seed runs "
        f"{'its trials one after another' if most == 1 else f'up to {most} trials at a time'}."
    )
    if resources.gpus_per_trial:
        times = f" ({resources.gpus_per_trial:g} a trial)" if resources.gpus_per_trial != 1 else ""
        yield f"GPU-hours: {_hours(whole.device_seconds * resources.gpus_per_trial)}{times}."
    else:
        yield f"core-hours: {_hours(whole.device_seconds * resources.cpus_per_trial)}."
    busy = whole.device_seconds / (outcome.seconds * plan.slots) if outcome.seconds else 0.0
    slots = "1 slot" if plan.slots == 1 else f"{plan.slots} slots"
    yield (
        f"wall-clock: {_lasting(outcome.seconds)} on {slots} (--slots), which are busy {busy:.0%} of it; "
        f"{_lasting(unhurried.seconds)} on {unhurried.concurrency}, beyond which nothing gets faster."
    )
    yield f"throughput: {plan.throughput.source}."
    kept = f"{whole.trials + whole.retrainings} models of {_size(plan.model)}"
    if whole.stopped:
        kept += f", {whole.stopped} of them with a state of {_size(plan.state)} to go on from"
    yield (
        f"storage: {kept}: {_size(plan.stored)} where trials leave their models. While one runs, two states of "
        f"{_size(plan.state)} where it takes that long "
        f"(resources.checkpoint_every={resources.checkpoint_every:g} s). "
        "The selected model of each arm and seed again in --out and in MLflow."
    )
    unknown = [
        "whether other methods are as fast a pass as dense, and trials beside each other as one alone",
        "the start of Ray and of each slot's first trial (ten seconds and more), and reading data",
        "what fails and is run again",
        f"compacting and reporting at the end. Samplers took {outcome.searcher_seconds:.1f} s when simulated",
    ]
    if config.budget.unit == "device_seconds":
        unknown.insert(0, "how many trials fit into the seconds that dense will take")
    if outcome.stopping:
        unknown.insert(0, f"how many trials {' and '.join(outcome.stopping)} will stop, here by made-up losses")
    yield "not known: " + "; ".join(unknown) + "."


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2f}" if hours >= 0.005 else "<0.01"


def _lasting(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def _size(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"
