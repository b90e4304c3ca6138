"""The one number every way of choosing λ is judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from ms_automl.errors import STRICT, ConfigError, require, unknown_name
from ms_automl.meta.reference import Losses, Reference, Scale

if TYPE_CHECKING:
    from ms_automl.tasks import Task


Kind = Literal["tradeoff", "target"]
CostKind = Literal["weights", "penalised_weights"]


@dataclass(frozen=True)
class Objective:
    """J, lower is better, and which models may win.

    - ``tradeoff``: J = R + price · density.
    - ``target``: J = R among models with 1 - density ≥ target.

    R is the loss relative to the dense reference of the same seed on the same split, 1 for dense itself, in one
    of two scales (:class:`~ms_automl.meta.reference.Reference`); density is the share of weights outside zero
    groups, and sparsity the rest.

    Attributes:
        kind: which of the two.
        price: the exchange rate of the trade-off, ≥ 0; a density of 1 costs ``price`` relative losses.
        target: the sparsity asked for, between 0 and 1.
        cost: what density is a share of: ``weights``, all parameters of the trunk; ``penalised_weights``, those
            that λ can act on. Comparisons of versions that knew the latter alone go on with it.
        scale: of the relative loss; ``auto`` is the ratio until somebody who knows the data decides.
    """

    kind: Kind = "tradeoff"
    price: float = 1.0
    target: float = 0.44
    scale: Literal["auto", "ratio", "skill"] = "auto"
    cost: CostKind = "weights"
    __pydantic_config__: ClassVar = STRICT

    def __post_init__(self) -> None:
        known = {"kind": get_args(Kind), "scale": ("auto", *get_args(Scale)), "cost": get_args(CostKind)}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise unknown_name(f"objective.{name}", str(getattr(self, name)), values)
        conditions = {"0 <= price < inf": 0 <= self.price < float("inf"), "0 < target < 1": 0 < self.target < 1}
        require(conditions, self)

    @property
    def loss_scale(self) -> Scale:
        """The scale of the relative loss, decided."""
        return "skill" if self.scale == "skill" else "ratio"

    def density(self, metrics: Mapping[str, float]) -> float:
        """Density of a model by ``cost``: 1 - ``sparsity/trunk`` or 1 - ``sparsity/param`` of what is reported.

        Of several networks (``networks``) the sum of theirs.
        """
        density = 1 - metrics["sparsity/trunk" if self.cost == "weights" else "sparsity/param"]
        return density * metrics.get("networks", 1.0)

    def value(self, losses: Losses, reference: Reference, density: float) -> float:
        """J for losses by task on one split, against the dense reference on the same split and in J's scale.

        Raises:
            ConfigError: for a reference in another scale.
        """
        if reference.scale != self.loss_scale:
            raise ConfigError(f"J is measured by '{self.loss_scale}', but its reference by '{reference.scale}'")
        relative = reference.relative(losses)
        return relative + self.price * density if self.kind == "tradeoff" else relative

    def violation(self, density: float) -> float:
        """By how much the sparsity misses the target; ≤ 0 where the model may win (always so in a trade-off)."""
        return 0.0 if self.kind == "tradeoff" else self.target - (1 - density)


def delta_m(tasks: Sequence[Task], values: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """Δm in %: mean over tasks of the mean over metrics of the signed relative change to the reference.

    Δm = 100 · (1/T) Σ_t (1/M_t) Σ_i s_ti (m_ti - m_ti^ref) / |m_ti^ref|, s = +1 where higher is better and -1
    where lower is (Maninis et al. 2019, arXiv 1904.08918, section 4). Positive is better than the reference. A
    metric whose reference is 0 has no relative change and is left out (:func:`without_change`); NaN where all are.

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
            if base != 0:
                changes.append(sign * (values[f"{task.name}/{name}"] - base) / abs(base))
        if changes:
            means.append(sum(changes) / len(changes))
    return 100 * sum(means) / len(means) if means else float("nan")


def without_change(tasks: Sequence[Task], reference: Mapping[str, float]) -> list[str]:
    """The metrics that Δm leaves out, ``<task>/<metric>``: the reference's value is 0.

    Args:
        tasks: the trained tasks.
        reference: as above.
    """
    names = [f"{task.name}/{name}" for task in tasks for name in task.metrics]
    return [name for name in names if reference[name] == 0]
