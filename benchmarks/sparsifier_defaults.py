"""What the sparsifier's defaults cost: bounds that are measured, and a dense course that is foretold.

    python benchmarks/sparsifier_defaults.py --preset rooms --seeds 1000,1001 --json benchmarks/sparsifier.jsonl

For each seed a dense network, and then one training by `waterfill` under the preset's price each with: the
preset's bounds and the recorded dense course (the arm `meta`); measured bounds and the recorded course; measured
bounds and the foretold course. Prints J of each on both splits, and its zeros.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ms_automl.comparison.experiment import Experiment
from ms_automl.config import load_config
from ms_automl.environment.provenance import cpu_name, git_revision
from ms_automl.meta import Reference
from ms_automl.meta.rule import Rule
from ms_automl.sparsifier.goal import Goal
from ms_automl.training import Metrics, TrainingLoop
from trainables import Dense


def trained(experiment: Experiment, seed: int, rule: Callable[[TrainingLoop], Rule]) -> Metrics:
    """The last report of a training by a rule, which hears of each report as the arm `meta` does."""
    data, network = experiment.data(seed), experiment.network(seed)
    loop = TrainingLoop(data, network, experiment.config.training, seed)
    loop.sparsifier.rule = rule(loop)
    while True:
        metrics = loop.interval()
        if loop.sparsifier.pattern is None:
            probe = loop.probe()
            losses = {task.name: probe[f"probe/{task.name}/loss"] for task in data.tasks}
            loop.sparsifier.hear(losses, 1 - metrics["sparsity/param"])
        if loop.done:
            return metrics


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="rooms")
    parser.add_argument("--seeds", default="1000,1001,1002")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="as of ms_automl.search")
    parser.add_argument("--json", type=Path, help="append the figures to this file, a line each")
    args = parser.parse_args()
    torch.set_num_threads(1)
    experiment = Experiment(load_config(args.preset, settings=args.settings))
    config, objective = experiment.config, experiment.config.objective
    bounds = config.lambda_.low, config.lambda_.high
    for seed in map(int, args.seeds.split(",")):
        data = experiment.data(seed)
        names = [task.name for task in data.tasks]
        dense, course = Dense(data, experiment.network(seed), config.training, seed, probe=True), []
        while not dense.done:
            last = dense.step()
            course.append((int(last["step"]), {name: last[f"probe/{name}/loss"] for name in names}))
        reference = {split: Reference.of(last, names, split, course) for split in ("val", "test")}
        recorded = reference["val"]

        def goal(**given: Any) -> Callable[[TrainingLoop], Rule]:
            asked = Goal(price=objective.price, **given)
            return lambda loop: asked.build(
                loop.sparsifier.groups, loop.sparsifier.prox_steps, loop.sparsifier.prox
            )

        ways = {
            "bounds given, course recorded": goal(bounds=bounds, reference=recorded),
            "bounds measured, course recorded": goal(reference=recorded),
            "bounds measured, course foretold": goal(),
        }
        for name, rule in ways.items():
            metrics = trained(experiment, seed, rule)
            j = {
                split: one.relative({task: metrics[f"{split}/{task}/loss"] for task in names})
                + objective.price * objective.density(metrics)
                for split, one in reference.items()
            }
            zeros = 1 - objective.density(metrics)
            print(
                f"{args.preset} {seed}  {name:<34} J val {j['val']:.3f}  test {j['test']:.3f}  zeros {zeros:.1%}"
            )
            if args.json:
                row = {"preset": args.preset, "settings": args.settings, "seed": seed, "way": name, "zeros": zeros}
                row |= {"val": j["val"], "test": j["test"], "cpu": cpu_name(), "revision": git_revision()}
                with args.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row | {"torch": metadata.version("torch")}) + "\n")


if __name__ == "__main__":
    main()
