"""What a step costs: dense, fixed λ, meta-learned λ and pruning, interleaved in one run on one thread.

    python benchmarks/step_cost.py --rounds 12 --learners forward,unrolled

Prints the median step time of each method, its spread (first to third quartile), and the median over rounds of
its ratio to the fixed-λ step of the same round: the machine's noise falls out of the ratio.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from importlib import metadata

import torch

from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.run import Suggestion
from ms_automl.config import load_config
from ms_automl.meta import LambdaSchedule, Reference

SEED = 1000


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="rooms")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=20, help="steps a round")
    parser.add_argument("--learners", default="forward", help="ways of learning λ, separated by commas")
    args = parser.parse_args()
    torch.set_num_threads(1)
    total = (args.rounds + 1) * args.steps
    # An evaluation ends each round: on one batch, so that it is 2 % of a round.
    settings = ["training.prox_share=1", "data.args.val=32", "data.args.test=32"]
    settings += [f"training.steps={total}", f"training.report_every={args.steps}"]
    config = load_config(args.preset, settings=settings)
    experiment = Experiment(config)
    layers = experiment.layers(experiment.network(SEED))
    bounds = experiment.bounds(None)  # the presets state them
    start = (bounds.low * bounds.high) ** 0.5
    suggestions = {
        "dense": Suggestion("dense", {}, {}),
        "fixed": Suggestion(
            "fixed_lambda", {"schedule": LambdaSchedule.constant(dict.fromkeys(layers, start)).to_dict()}, {}
        ),
        "pruned": Suggestion("pruned", {"level": 0.5}, {}),
    }
    ones = {task.name: 1.0 for task in experiment.data(SEED).tasks}
    reference = Reference(ones, [(step, ones) for step in range(0, total + 1, args.steps)])
    trials = {name: experiment.build(s, SEED, reference)[0] for name, s in suggestions.items()}
    for learner in args.learners.split(","):
        learning = Experiment(load_config(args.preset, settings=[*settings, f"meta.learner={learner}"]))
        trials[learner] = learning.build(Suggestion("meta_sparsity", {}, {}), SEED, reference)[0]
    times: dict[str, list[float]] = {name: [] for name in trials}
    for _ in range(args.rounds + 1):
        for name, trial in trials.items():
            began = time.perf_counter()
            trial.step()
            times[name].append((time.perf_counter() - began) / args.steps)
    kept = {name: values[1:] for name, values in times.items()}  # the first round warms up
    versions = f"torch {metadata.version('torch')}, Python {platform.python_version()}, {platform.machine()}"
    print(f"{args.preset}, {args.rounds} rounds of {args.steps} steps")
    print(versions)
    for name, values in kept.items():
        low, middle, high = statistics.quantiles(values, n=4)
        ratio = statistics.median(a / b for a, b in zip(values, kept["fixed"], strict=True))
        print(
            f"{name:<22}{1e3 * middle:7.1f} ms a step ({1e3 * low:.1f} to {1e3 * high:.1f}), {ratio:.2f} x fixed"
        )


if __name__ == "__main__":
    main()
