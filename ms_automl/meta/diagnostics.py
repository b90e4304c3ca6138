"""What a run that learns λ says about itself where something is wrong with its end."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from ms_automl.meta.reference import Losses, Reference
from ms_automl.meta.step import Evaluation

COLLAPSE = 1.0
"""A rise of the validation loss over the dense network's that no sparsity is worth: twice its loss."""
GONE = 0.02
"""A density at which nothing much is left to train."""


def ceiling(evaluation: Evaluation, reference: Reference, lambdas: Tensor, low: float) -> tuple[float, str] | None:
    """Where the network has collapsed: the log λ to stay below from now on, half of the largest, and a line on it.

    Sparsity answers λ with a delay, so that an estimate that sees the harm late would raise λ to the end.

    Args:
        evaluation: a report of the sparsifying phase.
        reference: the dense reference.
        lambdas: [L] λ in force.
        low: λ is never held below it.
    """
    if reference.rise(evaluation.step, evaluation.losses) <= COLLAPSE:
        return None
    reached = float(lambdas.max())
    held = max(low, reached / 2)
    line = (
        f"the network collapsed by step {evaluation.step}, so λ was held at {held:.3g} and below from there on "
        f"(it had reached {reached:.3g})"
    )
    return math.log(held), line


def end(losses: Losses, density: float, reference: Reference) -> list[str]:
    """What is wrong with a trained network.

    Args:
        losses: L_t on the validation split.
        density: share of the penalised weights outside zero groups.
        reference: the dense reference.
    """
    lines, relative = gone(density), reference.relative(losses)
    if relative > 1 + COLLAPSE:
        lines.append(f"the network collapsed: {_collapsed(relative, reference)}")
    return lines


def _collapsed(relative: float, reference: Reference) -> str:
    if reference.scale == "skill":
        return "on validation it is worse than a constant prediction"
    return f"its validation loss is {relative:.1f} times the dense network's"


def gone(density: float) -> list[str]:
    """A line where next to nothing is left of a network, whichever way it came about.

    Args:
        density: share of the penalised weights outside zero groups.
    """
    if density >= GONE:
        return []
    return [f"the network is all but gone: {100 * (1 - density):.1f} % of the weights that λ acts on are zero"]


def at_bounds(names: Sequence[str], lambdas: Tensor, bounds: tuple[float, float]) -> list[str]:
    """A line for each bound that λ of some layers lies at.

    Args:
        names: L layers.
        lambdas: [L] λ.
        bounds: (low, high); a low of 0 is none.
    """
    lines = []
    for word, bound in zip(("lower", "upper"), bounds, strict=True):
        near = 1e-3 * bound
        there = [name for name, value in zip(names, lambdas.tolist(), strict=True) if abs(value - bound) < near]
        if there:
            shown = ", ".join(there[:3]) + (f" and {len(there) - 3} more" if len(there) > 3 else "")
            lines.append(f"λ ended at its {word} bound {bound:g} in {shown}: widen lambda.low and lambda.high")
    return lines
