"""What a run has come to: its row of ``comparison.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ms_automl.comparison.ledger import Ledger
from ms_automl.comparison.run import Run, Status, Trial
from ms_automl.meta import Objective, diagnostics
from ms_automl.meta.objective import without_change
from ms_automl.meta.reference import learned
from ms_automl.tasks import Task


def row_of(run: Run, ledger: Ledger, objective: Objective) -> dict[str, Any]:
    """A run's row: what its selected model reaches, what it cost, and what a reader must know.

    Args:
        run: the arm and seed.
        ledger: what work was charged to.
        objective: J.
    """
    best, spent = run.best, ledger.totals(run.name)
    metrics = best.metrics if best else {}
    limit = ledger.limit(run.name)
    trials = run.trials
    return {
        "arm": run.arm,
        "seed": run.seed,
        "space": run.space,
        "status": _status(run, objective),
        "objective": metrics.get("val/objective"),
        "test_objective": metrics.get("test/objective"),
        "delta_m": _finite(metrics.get("delta_m")),
        "sparsity_group": metrics.get("sparsity/group"),
        "sparsity_param": metrics.get("sparsity/param"),
        "macs_ratio": run.macs_ratio,
        "latency_ratio": run.latency_ratio,
        "lambda": _lambda_of(best),
        **_retrained(run),
        "unit": ledger.unit.name,
        "limit": limit if math.isfinite(limit) else None,
        "spent": spent.spent,
        "overshoot": ledger.overshoot(run.name),
        "passes": spent.passes,
        "lost_passes": spent.lost_passes,
        "device_seconds": spent.device_seconds,
        "training_seconds": sum(trial.busy_seconds - trial.evaluation_seconds for trial in trials),
        "evaluation_seconds": sum(trial.evaluation_seconds for trial in trials),
        "startup_seconds": spent.device_seconds - sum(trial.busy_seconds for trial in trials),
        "wall_seconds": sum(trial.seconds for trial in trials),
        "searcher_seconds": spent.searcher_seconds,
        "trials": len(trials),
        "failed_trials": sum(trial.status == Status.FAILED for trial in trials),
        "stopped_trials": sum(trial.status == Status.STOPPED for trial in trials),
        "selected_trial": best.name if best else None,
        "note": "; ".join(_notes(run, objective)),
    }


def _reached(best: Trial, objective: Objective) -> bool:
    return objective.violation(best.metrics["density"]) <= 1e-9


def _status(run: Run, objective: Objective) -> str:
    if run.best is None:
        return "failed"
    whole = run.closed and run.best.status == Status.FINISHED and _reached(run.best, objective)
    return "ok" if whole else "partial"


def _notes(run: Run, objective: Objective) -> list[str]:
    best, failed = run.best, sum(trial.status == Status.FAILED for trial in run.trials)
    notes = [run.note] if run.note else []
    if best is not None and not _reached(best, objective):
        notes.append(f"target sparsity {objective.target:g} not reached")
    if best is not None and best.status == Status.STOPPED:
        notes.append("no trial came to its end")
    if best is not None:
        notes += dict.fromkeys([*best.warnings, *diagnostics.gone(best.metrics["density"])])
    if best is not None and best.status == Status.FINISHED and best.checkpoint is None and run.closed:
        notes.append("its model was not stored: --resume trains it again")
    if failed:
        notes.append(f"{failed} trial{'s' if failed > 1 else ''} failed")
    trials = (*run.trials, *run.retrained)
    if lost := sum(trial.interruptions for trial in trials):
        went_on = any(trial.status != Status.FAILED for trial in trials)
        notes.append(f"{lost} process{'es' if lost > 1 else ''} lost{', others went on' if went_on else ''}")
    return notes


def _retrained(run: Run) -> dict[str, Any]:
    names = {"objective": "val/objective", "test_objective": "test/objective", "delta_m": "delta_m"}
    names["sparsity_param"] = "sparsity/param"
    ended = [trial for trial in run.retrained if trial.status == Status.FINISHED]
    ended.sort(key=lambda trial: trial.index)
    entries = [{key: _finite(trial.metrics[name]) for key, name in names.items()} for trial in ended]
    for entry, trial in zip(entries, ended, strict=True):
        entry["training_seed"] = trial.training_seed
    return {
        "retrained": entries,
        "retrained_objective": _mean([trial.metrics["val/objective"] for trial in ended]),
        "retrained_test_objective": _mean([trial.metrics["test/objective"] for trial in ended]),
    }


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _finite(value: float | None) -> float | None:
    """A value, or None for what JSON cannot hold: a metric without a valid label is NaN, and Δm with it."""
    return value if value is not None and math.isfinite(value) else None


def _lambda_of(trial: Trial | None) -> dict[str, float] | list[dict[str, float]] | None:
    """λ by layer: one dict of constants, or a list of them, a knot each (LambdaSchedule)."""
    if trial is None:
        return None
    schedule = trial.schedule or trial.params.get("schedule")
    if schedule is None:
        return None
    knots = [dict(zip(schedule["layers"], row, strict=True)) for row in schedule["values"]]
    return knots[0] if len(knots) == 1 else knots


def reference_lines(tasks: Sequence[Task], references: Mapping[int, Mapping[str, float]]) -> list[str]:
    """What must be known of the dense references before any number, a line each.

    Args:
        tasks: the trained tasks.
        references: metrics of the dense trial by seed.
    """
    nothing, left_out = (
        "so what sparsity does to this task says nothing",
        "so Δm, a relative change, leaves it out",
    )
    seeds: dict[tuple[str, str], list[str]] = {}  # by what is so, and what follows
    for seed, metrics in references.items():
        lines = []
        for task in tasks:
            line = f"{task.name}: dense is no better than a constant prediction"
            if not learned(metrics, task.name):
                lines.append((line, nothing))
            elif not learned(metrics, task.name, "test"):
                lines.append((f"{line} on the test split", nothing))
        tested = {key.removeprefix("test/"): value for key, value in metrics.items() if key.startswith("test/")}
        lines += [(f"{name}: dense has 0 on the test split", left_out) for name in without_change(tasks, tested)]
        for found in lines:
            seeds.setdefault(found, []).append(str(seed))
    return [f"{what} (seed {', '.join(numbers)}), {end}" for (what, end), numbers in seeds.items()]
