"""Everything that judges a model, and nowhere else: J, Δm against the dense reference, who is best, and rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ms_automl.comparison.ledger import Ledger
from ms_automl.comparison.run import Role, Run, Status, Trial
from ms_automl.meta import Objective, Reference, diagnostics
from ms_automl.meta.objective import delta_m, without_change
from ms_automl.meta.reference import learned
from ms_automl.tasks import Task

Metrics = Mapping[str, float]


class Judge:
    """Judges the trials of a comparison, by J over the trained tasks."""

    def __init__(self, objective: Objective, tasks: Sequence[Task]) -> None:
        self.objective = objective
        self.tasks = tasks
        self.references: dict[int, Trial] = {}  # by seed, once they have ended
        self.baselines: dict[int, Run] = {}  # of a network for each task, where it was trained

    def reference(self, seed: int) -> Reference | None:
        """The dense reference of a seed on the validation split, or None before it is trained."""
        dense = self.references.get(seed)
        return None if dense is None else self._reference(dense.metrics, "val", dense.course)

    def trouble(self, seed: int) -> str | None:
        """Why nothing can be held against the dense reference of a seed; None where it can."""
        dense = self.references.get(seed)
        return "the dense reference failed" if dense is None else self._reference(dense.metrics, "val").trouble

    def judge(self, run: Run, trial: Trial, metrics: Metrics) -> dict[str, float]:
        """J of what a trial has reported, and Δm where it has been tested; a dense reference gets its course."""
        if run.is_reference:
            trial.course[int(metrics["step"])] = self._losses(metrics, "probe")
        # The dense reference is relative to itself, and final values are what others are relative to.
        base = metrics if run.is_reference else self.references[run.seed].metrics
        judged = {"density": self.objective.density(metrics)}
        judged["val/objective"] = self._objective(metrics, base, "val")
        if any(key.startswith("test/") for key in metrics):
            judged["test/objective"] = self._objective(metrics, base, "test")
            judged["delta_m"] = delta_m(self.tasks, _split(metrics, "test"), _split(base, "test"))
        return judged

    def select(self, run: Run, trial: Trial, seconds: float) -> None:
        """Take in a trial that has ended: the reference, the run's best and its anytime curve."""
        if trial.status == Status.FINISHED and run.is_reference:
            self.references[run.seed] = trial
        if trial.status == Status.FINISHED and run.role is Role.BASELINE:
            self.baselines[run.seed] = run
        scored = trial.status in (Status.FINISHED, Status.STOPPED) and "val/objective" in trial.metrics
        if scored and trial.method in run.winners and self.better(trial, run.best):
            run.best = trial
        if run.best is not None and run.best.status == Status.FINISHED:
            best = run.best.metrics
            run.anytime.append((run.passes, best["val/objective"], best["test/objective"], seconds))

    def summary(self, trial: Trial) -> str:
        """What a trial reached, in a few words; '' where it reached nothing."""
        if "val/objective" not in trial.metrics:
            return ""
        density = trial.metrics["density"]
        sparsity = f"sparsity {zeros(density):>3}{' %' if density <= 1 else ' of the size'}"
        return f"J {trial.metrics['val/objective']:.3f}  {sparsity}"

    def better(self, trial: Trial, best: Trial | None) -> bool:
        """Whether a trial is to be selected in the place of another."""
        return best is None or self._rank(trial) < self._rank(best)

    def _rank(self, trial: Trial) -> tuple[bool, float, float]:
        """Lower is better: first whole trials, then what misses the target, then J on the validation split."""
        missed = max(0.0, self.objective.violation(trial.metrics["density"]))
        return trial.status != Status.FINISHED, missed, trial.metrics["val/objective"]

    def _reference(self, metrics: Metrics, split: str, course: Mapping[int, Metrics] | None = None) -> Reference:
        names = [task.name for task in self.tasks]
        return Reference.of(metrics, names, split, tuple((course or {}).items()), self.objective.loss_scale)

    def _losses(self, metrics: Metrics, split: str) -> dict[str, float]:
        return {task.name: metrics[f"{split}/{task.name}/loss"] for task in self.tasks}

    def _objective(self, metrics: Metrics, base: Metrics, split: str) -> float:
        reference = self._reference(base, split)
        return self.objective.value(self._losses(metrics, split), reference, self.objective.density(metrics))

    def row(self, run: Run, ledger: Ledger) -> dict[str, Any]:
        """A run's row of comparison.json: what its model reaches, what it cost, what a reader must know."""
        best, spent = run.best, ledger.totals(run.name)
        metrics = best.metrics if best else {}
        limit = ledger.limit(run.name)
        trials = run.trials
        return {
            "arm": run.arm,
            "seed": run.seed,
            "space": run.space,
            "status": self._status(run),
            "objective": metrics.get("val/objective"),
            "test_objective": metrics.get("test/objective"),
            "delta_m": _finite(metrics.get("delta_m")),
            **self._against_single(run),
            "density": metrics.get("density"),
            "sparsity_group": metrics.get("sparsity/group"),
            "sparsity_param": metrics.get("sparsity/param"),
            "macs_ratio": run.macs_ratio,
            "latency_ratio": run.latency_ratio,
            "lambda": _lambda_of(best),
            **self._retrained(run),
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
            "failed_trials": _count(trials, Status.FAILED),
            "stopped_trials": _count(trials, Status.STOPPED),
            "selected_trial": best.name if best else None,
            "note": "; ".join(self._notes(run)),
        }

    def _against_single(self, run: Run) -> dict[str, float | None]:
        """A model against a network for each task of its seed: Δm, and its share of their weights and work."""
        baseline, best = self.baselines.get(run.seed), run.best
        found: dict[str, float | None] = dict.fromkeys(("delta_m_single", "density_single", "macs_ratio_single"))
        if baseline is None or baseline.best is None or best is None or best.status != Status.FINISHED:
            return found
        found["delta_m_single"] = self._delta_m_single(run, best)
        found["density_single"] = best.metrics["density"] / baseline.best.metrics["density"]
        if run.macs_ratio is not None and baseline.macs_ratio:
            found["macs_ratio_single"] = run.macs_ratio / baseline.macs_ratio
        return found

    def _delta_m_single(self, run: Run, trial: Trial) -> float | None:
        """Δm of a trial's network against a network for each task of its seed; None where there is none."""
        baseline = self.baselines.get(run.seed)
        if baseline is None or baseline.best is None:
            return None
        metrics, base = (_split(one.metrics, "test") for one in (trial, baseline.best))
        return _finite(delta_m(self.tasks, metrics, base))

    def _retrained(self, run: Run) -> dict[str, Any]:
        names = {"objective": "val/objective", "test_objective": "test/objective", "delta_m": "delta_m"}
        names |= {"density": "density", "sparsity_param": "sparsity/param"}
        ended = [trial for trial in run.retrained if trial.status == Status.FINISHED]
        ended.sort(key=lambda trial: trial.index)
        return {
            "retrained": [
                {key: _finite(trial.metrics[name]) for key, name in names.items()}
                | {"delta_m_single": self._delta_m_single(run, trial), "training_seed": trial.training_seed}
                for trial in ended
            ],
            "retrained_objective": _mean([trial.metrics["val/objective"] for trial in ended]),
            "retrained_test_objective": _mean([trial.metrics["test/objective"] for trial in ended]),
        }

    def _status(self, run: Run) -> str:
        if run.best is None:
            return "failed"
        whole = run.closed and run.best.status == Status.FINISHED and self._reached(run.best)
        return "ok" if whole else "partial"

    def _notes(self, run: Run) -> list[str]:
        best, failed = run.best, _count(run.trials, Status.FAILED)
        notes = [run.note] if run.note else []
        if best is not None:
            if settings := best.params.get("training"):
                notes.append(", ".join(f"{key}={value:.4g}" for key, value in settings.items()))
            if not self._reached(best):
                notes.append(f"target sparsity {self.objective.target:g} not reached")
            if best.status == Status.STOPPED:
                notes.append("no trial came to its end")
            notes += dict.fromkeys([*best.warnings, *diagnostics.gone(1 - best.metrics["sparsity/param"])])
            if best.status == Status.FINISHED and best.checkpoint is None and run.closed:
                notes.append("its model was not stored: --resume trains it again")
        if failed:
            notes.append(f"{failed} trial{'s' if failed > 1 else ''} failed")
        trials = (*run.trials, *run.retrained)
        if lost := sum(trial.interruptions for trial in trials):
            went_on = any(trial.status != Status.FAILED for trial in trials)
            notes.append(f"{lost} process{'es' if lost > 1 else ''} lost{', others went on' if went_on else ''}")
        return notes

    def _reached(self, best: Trial) -> bool:
        return self.objective.violation(best.metrics["density"]) <= 1e-9


def zeros(density: float) -> str:
    """The share of zeros in percent; of what is larger than the dense network, how much larger."""
    return f"{100 * (1 - density):.0f}" if density <= 1 else f"x{density:.3g}"


def _split(metrics: Metrics, split: str) -> dict[str, float]:
    return {key.removeprefix(f"{split}/"): value for key, value in metrics.items() if key.startswith(f"{split}/")}


def _count(trials: Sequence[Trial], status: Status) -> int:
    return sum(trial.status == status for trial in trials)


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _finite(value: float | None) -> float | None:
    """A value, or None for what JSON cannot hold: a metric without a valid label is NaN, and Δm with it."""
    return value if value is not None and math.isfinite(value) else None


def _lambda_of(trial: Trial | None) -> dict[str, float] | list[dict[str, float]] | None:
    """λ by layer: one dict of constants, or a list of them, a knot each (LambdaSchedule)."""
    schedule = None if trial is None else trial.schedule or trial.params.get("schedule")
    if schedule is None:
        return None
    knots = [dict(zip(schedule["layers"], row, strict=True)) for row in schedule["values"]]
    return knots[0] if len(knots) == 1 else knots


def reference_lines(tasks: Sequence[Task], references: Mapping[int, Metrics]) -> list[str]:
    """What must be known of the dense references, given by seed, before any number: a line each."""
    nothing = "so what sparsity does to this task says nothing"
    left_out = "so Δm, a relative change, leaves it out"
    seeds: dict[tuple[str, str], list[str]] = {}  # by what is so, and what follows
    for seed, metrics in references.items():
        lines = []
        for task in tasks:
            line = f"{task.name}: dense is no better than a constant prediction"
            if not learned(metrics, task.name):
                lines.append((line, nothing))
            elif not learned(metrics, task.name, "test"):
                lines.append((f"{line} on the test split", nothing))
        zeros = without_change(tasks, _split(metrics, "test"))
        lines += [(f"{name}: dense has 0 on the test split", left_out) for name in zeros]
        for found in lines:
            seeds.setdefault(found, []).append(str(seed))
    return [f"{what} (seed {', '.join(numbers)}), {end}" for (what, end), numbers in seeds.items()]
