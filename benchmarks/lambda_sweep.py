"""Where λ begins and ends to matter on a preset's data: one constant λ for all layers, on a seed not used again.

    python benchmarks/lambda_sweep.py --preset rooms --seed 1000 --lambdas 0.01,0.03,0.1,0.3,1

Prints a line per trial; a preset's bounds are two decades around the rise of sparsity that it shows.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch

from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.run import Suggestion
from ms_automl.config import load_config
from ms_automl.meta import LambdaSchedule, Reference


def main() -> None:
    """Run the sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="rooms")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--methods", default="dense,fixed,meta,pruned")
    parser.add_argument("--lambdas", default="0.03,0.05,0.1,0.2,0.3")
    parser.add_argument("--levels", default="0.3,0.6,0.8")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(args.preset, settings=[*args.settings, f"first_seed={args.seed}"])
    experiment = Experiment(config)
    layers = experiment.layers(experiment.network(args.seed))
    objective, reference = config.objective, None
    tasks = experiment.data(args.seed).tasks
    trials: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "dense": [("dense", {"probe": True})],
        "meta": [("meta_sparsity", {})],
    }
    trials["fixed"] = [
        ("fixed_lambda", {"schedule": LambdaSchedule.constant(dict.fromkeys(layers, float(value))).to_dict()})
        for value in args.lambdas.split(",")
    ]
    trials["pruned"] = [("pruned", {"level": float(level)}) for level in args.levels.split(",")]
    for method, params in (trial for name in args.methods.split(",") for trial in trials[name]):
        began = time.perf_counter()
        trial, _ = experiment.build(Suggestion(method, params, {}), args.seed, reference)
        course = []
        while not trial.done:
            metrics = trial.step()
            losses = {task.name: metrics[f"val/{task.name}/loss"] for task in tasks}
            probe = {task.name: metrics.get(f"probe/{task.name}/loss", 0.0) for task in tasks}
            course.append((int(metrics["step"]), probe))
            curve = {key: round(value, 3) for key, value in metrics.items() if key.startswith("val/")}
            if method == "dense":
                print("  ", int(metrics["step"]), json.dumps(curve), flush=True)
        reference = reference or Reference.of(
            metrics, [task.name for task in tasks], "val", course, objective.loss_scale
        )
        row = {
            "method": method,
            "lambda": params.get("schedule", {}).get("values", [[None]])[0][0],
            "level": params.get("level"),
            "J": round(objective.value(losses, reference, metrics["density"]), 4),
            "ratio": round(objective.value(losses, reference, metrics["density"]) - metrics["density"], 4),
            "sparsity_param": round(metrics["sparsity/param"], 3),
            "sparsity_group": round(metrics["sparsity/group"], 3),
            "layers": [round(v, 2) for k, v in metrics.items() if k.startswith("sparsity/layer")],
            "lambdas": [round(v, 3) for k, v in metrics.items() if k.startswith("lambda/")],
            "losses": {k: round(v, 4) for k, v in losses.items()},
            "seconds": round(time.perf_counter() - began, 1),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
