"""Everything that judges a model, and nowhere else: J, Δm against the dense reference, and who is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ms_automl.comparison.run import Run, Status, Trial
from ms_automl.meta import Objective, Reference
from ms_automl.meta.objective import delta_m
from ms_automl.tasks import Task


class Judge:
    """Judges the trials of a comparison.

    Args:
        objective: J.
        tasks: the trained tasks.

    Attributes:
        references: the trial of each seed's dense reference, once it has ended.
    """

    def __init__(self, objective: Objective, tasks: Sequence[Task]) -> None:
        self.objective = objective
        self.tasks = tasks
        self.references: dict[int, Trial] = {}

    def reference(self, seed: int) -> Reference | None:
        """The dense reference of a seed on the validation split, or None before it is trained."""
        dense = self.references.get(seed)
        return None if dense is None else self._reference(dense.metrics, "val", dense.course)

    def trouble(self, seed: int) -> str | None:
        """Why nothing can be held against the dense reference of a seed; None where it can."""
        dense = self.references.get(seed)
        return "the dense reference failed" if dense is None else self._reference(dense.metrics, "val").trouble

    def judge(self, run: Run, trial: Trial, metrics: Mapping[str, float]) -> dict[str, float]:
        """J of what a trial has reported, and Δm where it has been tested; a dense reference gets its course."""
        if run.is_reference:
            trial.course[int(metrics["step"])] = self._losses(metrics, "probe")
        # The dense reference is relative to itself, and final values are what others are relative to.
        base = metrics if run.is_reference else self.references[run.seed].metrics
        judged = {"val/objective": self._objective(metrics, base, "val")}
        if any(key.startswith("test/") for key in metrics):
            judged["test/objective"] = self._objective(metrics, base, "test")
            judged["delta_m"] = delta_m(self.tasks, _split(metrics, "test"), _split(base, "test"))
        return judged

    def select(self, run: Run, trial: Trial, seconds: float) -> None:
        """Take in a trial that has ended: the reference, the run's best and its anytime curve."""
        if trial.status == Status.FINISHED and run.is_reference:
            self.references[run.seed] = trial
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
        return f"J {trial.metrics['val/objective']:.3f}  sparsity {100 * trial.metrics['sparsity/param']:3.0f} %"

    def better(self, trial: Trial, best: Trial | None) -> bool:
        """Whether a trial is to be selected in the place of another."""
        return best is None or self._rank(trial) < self._rank(best)

    def _rank(self, trial: Trial) -> tuple[bool, float, float]:
        """Lower is better: first whole trials, then what misses the target, then J on the validation split."""
        missed = max(0.0, self.objective.violation(trial.metrics["density"]))
        return trial.status != Status.FINISHED, missed, trial.metrics["val/objective"]

    def _reference(
        self, metrics: Mapping[str, float], split: str, course: Mapping[int, dict[str, float]] | None = None
    ) -> Reference:
        """What a dense trial's metrics say of a split."""
        names = [task.name for task in self.tasks]
        return Reference.of(metrics, names, split, tuple((course or {}).items()), self.objective.loss_scale)

    def _losses(self, metrics: Mapping[str, float], split: str) -> dict[str, float]:
        return {task.name: metrics[f"{split}/{task.name}/loss"] for task in self.tasks}

    def _objective(self, metrics: Mapping[str, float], base: Mapping[str, float], split: str) -> float:
        reference = self._reference(base, split)
        return self.objective.value(self._losses(metrics, split), reference, metrics["density"])


def _split(metrics: Mapping[str, float], split: str) -> dict[str, float]:
    return {key.removeprefix(f"{split}/"): value for key, value in metrics.items() if key.startswith(f"{split}/")}
