"""What the scale of J does to the order of the arms and to the level that is learned.

    python benchmarks/scales.py --preset rooms --prices 1,0.25

Judges the finished trials in benchmarks/runs in both scales, each arm by the trial that it would have selected,
and lists the trainings that learned λ under `skill`. What TPE suggested, it suggested for the ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from ms_automl.comparison.experiment import Experiment
from ms_automl.config import load_config
from ms_automl.meta import Objective, Reference
from ms_automl.training import constant_losses

RUNS = Path(__file__).parent / "runs"
Row = dict[str, Any]

Judged = tuple[float, float, float]
"""J on validation, J on test, density."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="rooms")
    parser.add_argument("--prices", default="1,0.25")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the rows")
    args = parser.parse_args()
    found = {int(path.stem): _rows(path) for path in sorted((args.runs / args.preset).glob("?.jsonl"))}
    constants = {seed: _constants(args.preset, seed) for seed in found}
    for price in map(float, args.prices.split(",")):
        print(f"\n`{args.preset}`, price {price:g}\n")
        print(
            "| arm | seeds x trials | J, ratio | zeros | J, skill | zeros |\n| :-- | --: | --: | --: | --: | --: |"
        )
        for label in dict.fromkeys(row["label"] for rows in found.values() for row in rows):
            if _told(label, price):
                print(_line(label, price, found, constants))
    for seed, rows in found.items():
        for row in rows:
            if "objective.scale=skill" in row["label"] and row["method"] == "meta_sparsity":
                price = row["settings"]["objective"]["price"]
                zeros = 100 * (1 - row["density"])
                print(
                    f"learned under skill, seed {seed}, price {price:g}: J {row['objective']:.3f}, {zeros:.1f} %"
                )


def _rows(path: Path) -> list[Row]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if not row["error"]]


def _constants(preset: str, seed: int) -> dict[str, float]:
    experiment = Experiment(load_config(preset))
    return constant_losses(experiment.data(seed), experiment.config.training.eval_batch_size)


def _told(label: str, price: float) -> bool:
    """Whether an arm's trials do not depend on J, or were suggested for the ratio at this price or at 1."""
    return label.count("/") == 2 and label.endswith(("/tradeoff", "/tradeoff:1", f"/tradeoff:{price:g}"))


def _line(label: str, price: float, found: dict[int, list[Row]], constants: dict[int, dict[str, float]]) -> str:
    cells, trials = [], 0
    for scale in ("ratio", "skill"):
        best: list[Judged] = []
        for seed, rows in found.items():
            dense = next(row for row in rows if row["label"] == "dense")["metrics"] | constants[seed]
            own = [
                _judged(row, dense, Objective("tradeoff", price, scale=scale))
                for row in rows
                if row["label"] == label
            ]
            trials = max(trials, len(own))
            best += [min(own)] if own else []
        cells += [
            f"{statistics.mean(one[1] for one in best):.3f}",
            f"{100 * (1 - statistics.mean(one[2] for one in best)):.0f} %",
        ]
    return f"| {label.removesuffix('/tradeoff')} | {len(best)} x {trials} | {' | '.join(cells)} |"


def _judged(row: Row, dense: dict[str, Any], objective: Objective) -> Judged:
    metrics = row["metrics"]
    tasks = [key.split("/")[1] for key in metrics if key.startswith("val/") and key.endswith("/loss")]
    values = []
    for split in ("val", "test"):
        reference = Reference.of(dense, tasks, split, scale=objective.loss_scale)
        losses = {task: metrics[f"{split}/{task}/loss"] for task in tasks}
        values.append(objective.value(losses, reference, row["density"]))
    return values[0], values[1], row["density"]


if __name__ == "__main__":
    main()
