"""What a proximal step costs against a training step: every grouping in both metrics, on one thread.

    python benchmarks/prox_cost.py --rounds 12

A round is a few dense training steps and then each proximal step, always from the same weights and with the
threshold that a share of the groups dies of (in a training a step kills far fewer; the more are near their end,
the more steps it takes to find the root of Adam's metric). Prints medians, and the median over rounds of
the share of the training step of the same round.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from importlib import metadata

import torch

from ms_automl.comparison.experiment import Experiment
from ms_automl.config import load_config
from ms_automl.sparsity import GROUPINGS, PROX_METRICS, measure, thresholds
from ms_automl.training import TrainingLoop

SEED = 1000


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="rooms")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=20, help="training steps a round")
    parser.add_argument("--dying", type=float, default=0.05, help="share of the groups that die, 0 to 1")
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = [(grouping, metric) for grouping in GROUPINGS for metric in PROX_METRICS]
    dense = _loop(args, args.rounds + 1, "input_channel", "euclidean")
    loops = {name: _loop(args, 1, *name) for name in names}
    for loop in loops.values():
        loop.interval()  # the optimiser's second moments are those of a training
    step: list[float] = []
    times: dict[tuple[str, str], list[float]] = {name: [] for name in names}
    zeros: dict[tuple[str, str], float] = {}
    for _ in range(args.rounds + 1):
        began = time.perf_counter()
        dense.interval()
        step.append((time.perf_counter() - began) / args.steps)
        for name, loop in loops.items():
            seconds, shares = zip(*(_prox(loop, args.dying) for _ in range(5)), strict=True)
            times[name].append(statistics.median(seconds))
            zeros[name] = shares[0]
    step = step[1:]  # the first round warms up
    print(f"{args.preset}, {args.rounds} rounds; a training step takes {1e3 * statistics.median(step):.1f} ms")
    print(f"torch {metadata.version('torch')}, Python {platform.python_version()}, {platform.machine()}")
    for (grouping, metric), values in times.items():
        share = statistics.median(a / b for a, b in zip(values[1:], step, strict=True))
        groups = len(loops[grouping, metric].sparsifier.groups.layer)
        print(
            f"{grouping:<15}{metric:<10}{groups:7d} groups, {zeros[grouping, metric]:4.0%} die"
            f"{1e3 * statistics.median(values[1:]):7.2f} ms, {share:5.1%} of a step"
        )


def _loop(args: argparse.Namespace, rounds: int, grouping: str, metric: str) -> TrainingLoop:
    # An evaluation ends each round: on one batch, so that it is 2 % of a round.
    settings = [
        "data.args.val=32",
        "data.args.test=32",
        f"training.grouping={grouping}",
        f"training.prox_metric={metric}",
    ]
    settings += [f"training.steps={rounds * args.steps}", f"training.report_every={args.steps}"]
    experiment = Experiment(load_config(args.preset, settings=settings))
    config = experiment.config.training
    return TrainingLoop(experiment.data(SEED), experiment.network(SEED), config, SEED)


@torch.no_grad()
def _prox(loop: TrainingLoop, dying: float) -> tuple[float, float]:
    """Seconds of one step, and the share of groups that it zeroes; the network stays as it was."""
    state = {name: value.clone() for name, value in loop.network.state_dict().items()}
    groups = loop.sparsifier.groups
    metric = PROX_METRICS[loop.settings.prox_metric](loop.optimizer, groups)
    scaled = groups.weights if metric is None else torch._foreach_mul(groups.weights, groups.blocks.split(metric))
    lengths = groups.inner(scaled, scaled).sqrt().sort().values
    threshold = torch.full_like(lengths, float(lengths[round(dying * (len(lengths) - 1))]))
    lambda_ = torch.ones(len(groups.names))
    began = time.perf_counter()
    thresholds(groups, lambda_, loop.lr)  # part of every step; its result is another λ's
    loop.sparsifier.prox(threshold)
    seconds, zeros = time.perf_counter() - began, measure(groups).group
    loop.network.load_state_dict(state)
    return seconds, zeros


if __name__ == "__main__":
    main()
