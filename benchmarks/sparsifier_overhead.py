"""What a sparsifier adds to a step of a plain training loop, beside others' tools, interleaved on one thread.

    pip install torch-pruning torchao
    python benchmarks/sparsifier_overhead.py --rounds 20

The network of `rooms`, trained by a plain loop. Prints the median step of each method, and the median and
quartiles over rounds of its ratio to the plain loop's of the same round: the machine's noise falls out of the
ratio. Tools that are not installed are left out, and said.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ms_automl.comparison.experiment import Experiment
from ms_automl.config import load_config
from ms_automl.environment.provenance import cpu_name, git_revision
from ms_automl.meta import LambdaSchedule
from ms_automl.sparsifier import Sparsifier
from ms_automl.sparsifier.scope import image_shape_of
from ms_automl.sparsity import build_groups
from ms_automl.training import task_losses, weighted

SEED = 1000
Step = Callable[[], None]


class Plain:
    """A training loop as anybody writes it; what a method adds comes before or after the optimiser's step."""

    def __init__(self, experiment: Experiment) -> None:
        self.data, self.network = experiment.data(SEED), experiment.network(SEED).train()
        self.settings = experiment.config.training
        self.optimizer: Any = torch.optim.AdamW(self.network.parameters(), lr=self.settings.lr)
        self.example = self.data.train.batch(torch.arange(1)).images
        self.before: Step = lambda: None
        self.after: Step = lambda: None
        self.taken = 0

    def step(self) -> None:
        """One step."""
        size = self.settings.batch_size
        first = self.taken * size % (len(self.data.train) - size)
        batch = self.data.train.batch(torch.arange(first, first + size))
        self.optimizer.zero_grad()
        loss: Any = weighted(self.data.tasks, task_losses(self.data.tasks, self.network(batch.images), batch))
        loss.backward()
        self.before()
        self.optimizer.step()
        self.after()
        self.taken += 1


def sparsified(loop: Plain, steps: int, **goal: Any) -> Plain:
    """With ours."""
    goal |= {"prox_share": 1, "grouping": "input_channel"}
    sparsifier = Sparsifier(loop.network, loop.optimizer, example=loop.example, steps=steps, **goal)
    loop.after = sparsifier.step
    return loop


def scheduled(loop: Plain, steps: int) -> Plain:
    """With ours and a given λ."""
    names = build_groups(loop.network, "input_channel", image_shape_of(loop.example)).names
    return sparsified(loop, steps, schedule=LambdaSchedule.constant(dict.fromkeys(names, 0.05)))


def torch_pruning(loop: Plain, steps: int, kind: str) -> Plain:
    """With a regulariser of Torch-Pruning (arXiv 2301.12900, 2012.09243)."""
    tp = importlib.import_module("torch_pruning")

    heads = [
        layer for head in loop.network.heads.values() for layer in head.modules() if isinstance(layer, nn.Conv2d)
    ]
    pruner = getattr(tp.pruner, kind)(
        loop.network,
        loop.example,
        importance=tp.importance.GroupMagnitudeImportance(),
        pruning_ratio=0.5,
        ignored_layers=heads,
    )

    def regularize() -> None:
        if hasattr(pruner, "update_reg") and loop.taken % 10 == 0:
            pruner.update_reg()
        pruner.regularize(loop.network)

    loop.before = regularize
    return loop


def torchao(loop: Plain, steps: int) -> Plain:
    """With torchao's optimiser that takes a proximal step of the group lasso, of filters."""
    pat = importlib.import_module("torchao.prototype.pat.optim")

    weights = [conv.weight for conv in loop.network.penalised().values()]
    ids = {id(weight) for weight in weights}
    others = [parameter for parameter in loop.network.parameters() if id(parameter) not in ids]
    pruned = {"prox_type": "ProxGroupLasso", "group_type": "Dim0Grouper", "reg_lambda": 0.05}
    groups: list[dict[str, Any]] = [{"params": weights, **pruned}, {"params": others}]
    loop.optimizer = pat.PruneOptimizer(torch.optim.AdamW(groups, lr=loop.settings.lr))
    return loop


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="rooms")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20, help="steps a round")
    parser.add_argument("--json", help="append the figures to this file, a line each")
    args = parser.parse_args()
    torch.set_num_threads(1)
    experiment, total = Experiment(load_config(args.preset)), (args.rounds + 1) * args.steps
    ways: dict[str, Callable[[], Plain]] = {
        "plain": lambda: Plain(experiment),
        "sparsifier, target": lambda: sparsified(Plain(experiment), total, target=0.6),
        "sparsifier, given λ": lambda: scheduled(Plain(experiment), total),
        "Torch-Pruning GroupNorm": lambda: torch_pruning(Plain(experiment), total, "GroupNormPruner"),
        "Torch-Pruning GrowingReg": lambda: torch_pruning(Plain(experiment), total, "GrowingRegPruner"),
        "torchao group lasso": lambda: torchao(Plain(experiment), total),
    }
    loops: dict[str, Plain] = {}
    for name, build in ways.items():
        try:
            loops[name] = build()
        except ImportError as error:
            print(f"{name} is left out: {error}")
    times: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(args.rounds + 1):
        for name, loop in loops.items():
            began = time.perf_counter()
            for _ in range(args.steps):
                loop.step()
            times[name].append((time.perf_counter() - began) / args.steps)
    print(f"{args.preset}, {args.rounds} rounds of {args.steps} steps")
    print(f"torch {metadata.version('torch')}, {cpu_name()}")
    for name, values in times.items():
        ratios = [one / plain for one, plain in zip(values[1:], times["plain"][1:], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name:<26}{1e3 * statistics.median(values[1:]):8.2f} ms{middle:8.3f} ({low:.3f} to {high:.3f})")
        if args.json:
            row = {
                "preset": args.preset,
                "rounds": args.rounds,
                "method": name,
                "ms": 1e3 * statistics.median(values[1:]),
            }
            row |= {"ratio": middle, "low": low, "high": high, "cpu": cpu_name(), "revision": git_revision()}
            row |= {"torch": metadata.version("torch"), "python": platform.python_version()}
            with Path(args.json).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
