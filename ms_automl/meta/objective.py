"""The one number every way of choosing λ is judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ms_automl.errors import ConfigError
from ms_automl.tasks import Task

Losses = Mapping[str, float]
"""L_t by task."""

REFERENCE_FLOOR = 0.01
"""Smallest reference loss: a near-zero cross-entropy must not make a ratio explode."""


@dataclass(frozen=True)
class Reference:
    """The dense reference of a seed, on the validation split.

    Attributes:
        losses: L_t^ref by task, after its last step.
        course: (step, L_t by task) at each of its reports, as ``TrainingLoop.probe`` measures them: what a
            network without zeros reaches by then.
    """

    losses: Losses
    course: Sequence[tuple[int, Losses]] = ()

    def rise(self, step: int, losses: Losses) -> float:
        """(1/T) Σ_t L_t / L_t^dense(step) - 1, against the dense reference at the same step.

        How far training has come falls out of the ratio, so that what is left is the cost of the zeros.

        Raises:
            ConfigError: where the reference was not measured at ``step``.
        """
        for when, dense in self.course:
            if when == step:
                return relative(losses, dense) - 1
        steps = ", ".join(str(when) for when, _ in self.course) or "none"
        raise ConfigError(
            f"the dense reference has no probe at step {step} (it has {steps}): train it with probe=True and the "
            "same steps and report_every"
        )


def relative(losses: Losses, references: Losses) -> float:
    """(1/T) Σ_t L_t / max(L_t^ref, :data:`REFERENCE_FLOOR`)."""
    ratios = [loss / max(references[task], REFERENCE_FLOOR) for task, loss in losses.items()]
    return sum(ratios) / len(ratios)


@dataclass(frozen=True)
class Objective:
    """J, lower is better, and which models may win.

    - ``tradeoff``: J = (1/T) Σ_t L_t / L_t^ref + price · density.
    - ``target``: J = (1/T) Σ_t L_t / L_t^ref among models with 1 - density ≥ target.

    L_t^ref is the loss of the dense reference of the same seed on the same split; density is the share of the
    trunk's penalised weights outside zero groups.

    Attributes:
        kind: which of the two.
        price: the exchange rate of the trade-off, ≥ 0; a density of 1 costs ``price`` relative losses.
        target: the parameter sparsity asked for, between 0 and 1.
    """

    kind: Literal["tradeoff", "target"] = "tradeoff"
    price: float = 1.0
    target: float = 0.44

    def __post_init__(self) -> None:
        if not 0 <= self.price < float("inf"):
            raise ConfigError(f"`price >= 0` must hold, but got price={self.price}")
        if not 0 < self.target < 1:
            raise ConfigError(f"`0 < target < 1` must hold, but got target={self.target}")

    def value(self, losses: Mapping[str, float], references: Mapping[str, float], density: float) -> float:
        """J for losses by task on one split, against the dense reference's on the same split."""
        ratio = relative(losses, references)
        return ratio + self.price * density if self.kind == "tradeoff" else ratio

    def violation(self, density: float) -> float:
        """By how much the sparsity misses the target; ≤ 0 where the model may win (always so in a trade-off)."""
        return 0.0 if self.kind == "tradeoff" else self.target - (1 - density)


def delta_m(tasks: Sequence[Task], values: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """Δm in %: mean over tasks of the mean over metrics of the signed relative change to the reference.

    Δm = 100 · (1/T) Σ_t (1/M_t) Σ_i s_ti (m_ti - m_ti^ref) / |m_ti^ref|, s = +1 where higher is better and -1
    where lower is (Maninis et al. 2019, arXiv 1904.08918, section 4). Positive is better than the reference.

    Args:
        tasks: the trained tasks.
        values: ``<task>/<metric>`` of the model, on one split.
        reference: the same of the dense reference.
    """
    means = []
    for task in tasks:
        changes = []
        for name, metric in task.metrics.items():
            base = reference[f"{task.name}/{name}"]
            sign = 1.0 if metric.direction == "max" else -1.0
            changes.append(sign * (values[f"{task.name}/{name}"] - base) / max(abs(base), 1e-12))
        means.append(sum(changes) / len(changes))
    return 100 * sum(means) / len(means)
