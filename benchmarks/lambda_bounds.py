"""Do measured bounds of λ span from no zeros to all? On the presets, and at a factor 3 in steps, rate and width.

    python benchmarks/lambda_bounds.py --json benchmarks/lambda_bounds.jsonl

For each case a dense training that measures u / η (docs/protocol.md, 'Bounds of λ'), then one λ for all layers at
multiples of it. A line for each training is appended to the file, and what is there is not done again. Seed 1000,
which serves nothing else.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from rows import Row, append_row, read_rows

from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.run import Suggestion
from ms_automl.config import load_config
from ms_automl.meta import LambdaSchedule
from ms_automl.meta.meter import RESISTANCE

SEED = 1000
CASES: dict[str, tuple[str, ...]] = {
    "rooms": (),
    "multimnist": (),
    "elpv": (),
    "rooms, lr / 3": ("training.lr=0.001",),
    "rooms, lr x 3": ("training.lr=0.009",),
    "rooms, steps / 3": ("training.steps=300", "training.report_every=30"),
    "rooms, steps x 3": ("training.steps=2700", "training.report_every=270"),
    "rooms, width / 3": ("network.args.width=10",),
    "rooms, SGD": ("training.optimizer=sgd", "training.lr=0.05"),
}
MULTIPLES = (0.5, 1.0, 1.5, 2.0, 3.0)
MORE = {"rooms, SGD": (5.0, 8.0, 20.0, 50.0)}


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="append the figures to this file, a line each")
    parser.add_argument("--cases", default=";".join(CASES), help="by semicolon")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for case in args.cases.split(";"):
        preset, settings = case.partition(",")[0], CASES[case]
        experiment = Experiment(load_config(preset, settings=[f"first_seed={SEED}", "lambda=auto", *settings]))
        known = {row["multiple"]: row for row in read_rows(args.json) if row["case"] == case}
        if 0.0 not in known:
            dense = trained(experiment, Suggestion("dense", {"probe": True}, {}))
            dense["bounds/step"] /= RESISTANCE[experiment.config.training.optimizer]  # u / η itself
            known[0.0] = dense | {"case": case, "multiple": 0.0}
            append_row(args.json, known[0.0])
        unit = known[0.0]["bounds/step"]
        layers = experiment.layers(experiment.network(SEED))
        for multiple in (one for one in (*MULTIPLES, *MORE.get(case, ())) if one not in known):
            schedule = LambdaSchedule.constant(dict.fromkeys(layers, multiple * unit))
            row = trained(experiment, Suggestion("fixed_lambda", {"schedule": schedule.to_dict()}, {}))
            losses = [key for key in row if key.endswith("/loss")]
            row["loss"] = sum(row[key] / known[0.0][key] for key in losses) / len(losses)
            append_row(args.json, row | {"case": case, "multiple": multiple})


def trained(experiment: Experiment, suggestion: Suggestion) -> Row:
    """Zeros and validation losses of a training, and what a dense one has measured."""
    began = time.perf_counter()
    trial, _ = experiment.build(suggestion, SEED)
    while not trial.done:
        report = trial.step()
    kept: dict[str, Any] = {key: value for key, value in report.items() if key.startswith("bounds/")}
    kept |= {key: value for key, value in report.items() if key.startswith("val/") and key.endswith("/loss")}
    print(f"{suggestion.method}: zeros {100 * (1 - report['density']):.1f} %", flush=True)
    return kept | {"zeros": 1 - report["density"], "seconds": round(time.perf_counter() - began, 1)}


if __name__ == "__main__":
    main()
