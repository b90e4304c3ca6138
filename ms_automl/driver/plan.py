"""What a comparison will cost, before anything is spent: a simulation of it at the throughput of its trials."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from ms_automl.comparison.events import replay
from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.state import Comparison
from ms_automl.config import Config
from ms_automl.driver.assembly import check_batches, trial_cost
from ms_automl.driver.simulation import Outcome, Share, simulate
from ms_automl.driver.throughput import Throughput, throughput_of
from ms_automl.environment.arguments import folder_there
from ms_automl.errors import ConfigError
from ms_automl.samplers.arms import check_names


@dataclass(frozen=True)
class Plan:
    """What is still to be run of a comparison.

    Attributes:
        config: what is compared.
        outcome: on ``slots``.
        unhurried: on as many slots as ever have a trial.
        slots: trials at a time.
        trial_cost: what one fixed-λ trial costs, in the budget's unit.
        throughput: of the trials.
        model: bytes of a saved model.
        state: bytes that a trial leaves besides where it was stopped: another may go on from there.
        ended: trials that ended before.
    """

    config: Config
    outcome: Outcome
    unhurried: Outcome
    slots: int
    trial_cost: float
    throughput: Throughput
    model: int
    state: int
    ended: int

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

    Args:
        config: what is compared.
        data_dir: handed to the data factory.
        slots: trials at a time; None for one on each GPU, or one where there is none.
        tflops: 10^12 operations a second, to be assumed in the place of a measurement.
        resumed: folder of the comparison that goes on; None plans a whole one.

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
    comparison, ended_before, unhurried = _simulated(experiment, throughput, None, resumed)
    outcome = unhurried
    if slots < unhurried.concurrency:
        comparison, _, outcome = _simulated(experiment, throughput, slots, resumed)
    cost = trial_cost(experiment, comparison)
    return Plan(config, outcome, unhurried, slots, cost, throughput, *_bytes(experiment), ended_before)


def _simulated(
    experiment: Experiment, throughput: Throughput, slots: int | None, resumed: Path | None
) -> tuple[Comparison, int, Outcome]:
    """The comparison at its end, how many trials it had at its start, and what was between."""
    with TemporaryDirectory() as temporary:
        replayed = None if resumed is None else replay(resumed)
        comparison, outcome = simulate(experiment, throughput, slots, Path(temporary), replayed)
        return comparison, 0 if replayed is None else len(replayed.ended), outcome


def _bytes(experiment: Experiment) -> tuple[int, int]:
    """Bytes of a saved model, and of the state where a trial was stopped: the weights again, and moments."""
    network = experiment.network(experiment.config.first_seed)
    model = sum(value.nbytes for value in network.state_dict().values())
    moments = {"adamw": 2, "sgd": 1}[experiment.config.training.optimizer]
    return model, model + moments * sum(value.nbytes for value in network.parameters())


def plan_table(plan: Plan) -> Table:
    """What each arm runs and costs, all its seeds together."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("arm", "trials", "stopped", "retrained", "cost", "passes", "hours"):
        table.add_column(name, justify="left" if name == "arm" else "right", no_wrap=True)
    shares = {**plan.outcome.arms, "all": plan.outcome.whole}
    for name, share in shares.items():
        if name == "all":
            table.add_section()
        table.add_row(name, *_cells(share, plan.trial_cost))
    return table


def _cells(share: Share, trial_cost: float) -> list[str]:
    counts = [str(share.trials), str(share.stopped), str(share.retrainings)]
    return [*counts, f"{share.spent / trial_cost:.2f}x", f"{share.passes:,.0f}", _hours(share.device_seconds)]


def plan_lines(plan: Plan) -> list[str]:
    """What the table has no room for, a paragraph each."""
    config, outcome, unhurried = plan.config, plan.outcome, plan.unhurried
    resources, whole = config.resources, outcome.whole
    seeds = "1 seed" if config.seeds == 1 else f"{config.seeds} seeds"
    unit = {
        "passes": "passes, in units of one fixed-λ trial",
        "flops": "floating-point operations, in units of one fixed-λ trial",
        "device_seconds": "device seconds, in units of one dense trial",
    }[config.budget.unit]
    lines = [
        f"{seeds}. cost: {unit} ({_number(plan.trial_cost)}). hours: of the device that a trial trains on. "
        f"Each arm and seed runs {_at_a_time(resources.concurrency_per_run)}."
    ]
    if plan.ended:
        lines.insert(0, f"This is what is left to run: {plan.ended} trials have ended and are not in it.")
    if resources.gpus_per_trial:
        times = f" ({resources.gpus_per_trial:g} a trial)" if resources.gpus_per_trial != 1 else ""
        lines.append(f"GPU-hours: {_hours(whole.device_seconds * resources.gpus_per_trial)}{times}.")
    else:
        lines.append(f"core-hours: {_hours(whole.device_seconds * resources.cpus_per_trial)}.")
    busy = whole.device_seconds / (outcome.seconds * plan.slots) if outcome.seconds else 0.0
    slots = "1 slot" if plan.slots == 1 else f"{plan.slots} slots"
    lines.append(
        f"wall-clock: {_lasting(outcome.seconds)} on {slots} (--slots), which are busy {busy:.0%} of it; "
        f"{_lasting(unhurried.seconds)} on {unhurried.concurrency}, beyond which nothing gets faster."
    )
    lines.append(f"throughput: {plan.throughput.source}.")
    kept = f"{whole.trials + whole.retrainings} models of {_size(plan.model)}"
    if whole.stopped:
        kept += f", {whole.stopped} of them with a state of {_size(plan.state)} to go on from"
    lines.append(
        f"storage: {kept}: {_size(plan.stored)} where trials leave their models. While one runs, two states of "
        f"{_size(plan.state)} where it takes that long "
        f"(resources.checkpoint_every={resources.checkpoint_every:g} s). "
        "The selected model of each arm and seed again in --out and in MLflow."
    )
    lines.append("not known: " + "; ".join(_unknown(plan)) + ".")
    return lines


def _unknown(plan: Plan) -> list[str]:
    config = plan.config
    stopping = plan.outcome.stopping
    unknown = []
    if stopping:
        unknown.append(f"how many trials {' and '.join(stopping)} will stop, here by made-up losses")
    if config.budget.unit == "device_seconds":
        unknown.append("how many trials fit into the seconds that dense will take")
    return [
        *unknown,
        "whether other methods are as fast a pass as dense, and trials beside each other as one alone",
        "the start of Ray and of each slot's first trial (ten seconds and more), and reading data",
        "what fails and is run again",
        f"compacting and reporting at the end. Samplers took {plan.outcome.searcher_seconds:.1f} s when simulated",
    ]


def show(plan: Plan, console: Console) -> None:
    """Print a plan."""
    if not plan.outcome.concurrency:
        console.print(f"{plan.ended} trials have ended, and nothing is left to run.", highlight=False)
        return
    console.print(plan_table(plan))
    for line in plan_lines(plan):
        console.print(line, markup=False, highlight=False)


def _at_a_time(most: int) -> str:
    return "its trials one after another" if most == 1 else f"up to {most} trials at a time"


def _number(value: float) -> str:
    return f"{value:,.0f}" if 100 <= value < 1e9 else f"{value:.3g}"


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
