"""Masks by magnitude that are taken off again: every weight may come back in between."""

from __future__ import annotations

from typing import Any

import torch

from ms_automl.meta.rule import Rule
from ms_automl.meta.step import TrainingStep
from ms_automl.rivals.base import RivalInputs, remove
from ms_automl.sparsity.groups import Groups
from ms_automl.sparsity.ranked import l2


class Masks(Rule):
    """Over spans of steps the shortest groups of every layer are held at zero; between them all train.

    Args:
        groups: the groups.
        level: share of the weights to be zero, about the same of every layer.
        spans: (first, end) of each span in steps of the sparsifying phase; its groups are chosen at its first.
        freezes: whether the zeros of the last span stay.
    """

    def __init__(self, groups: Groups, level: float, spans: list[tuple[int, int]], *, freezes: bool) -> None:
        self.groups, self.level, self.spans, self.freezes = groups, level, spans, freezes
        self.gone = torch.zeros_like(groups.layer, dtype=torch.bool)

    @torch.no_grad()
    def step(self, now: TrainingStep) -> None:
        """Put the mask of a span over the weights, a new one at its first step."""
        first = next((first for first, end in self.spans if first <= now.index < end), None)
        if first is None:
            return
        if now.index == first:
            self.gone = l2(self.groups).lowest(self.level)
        remove(self.groups, self.gone)

    def state_dict(self) -> dict[str, Any]:
        """The mask."""
        return {"gone": self.gone.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.gone.copy_(state["gone"])


def iht(given: RivalInputs, *, warmup: float = 0.1, period: float = 0.05) -> Masks:
    """Iterative hard thresholding: spans with the mask and without in turns, the last one with it and frozen.

    Jin et al. 2016 (arXiv 1607.05423, algorithm 1), with the schedule of AC/DC (Peste et al. 2021, arXiv
    2106.12379, section 4): a tenth of the training dense, then spans of a twentieth each.

    Args:
        given: groups, lengths and level.
        warmup: share of all steps before the first mask.
        period: share of all steps that a span takes.
    """
    first, each = round(warmup * given.steps), max(1, round(period * given.steps))
    starts = list(range(first, given.prox_steps, 2 * each)) or [given.prox_steps - 1]
    spans = [(start, min(start + each, given.prox_steps)) for start in starts]
    if given.prox_steps - spans[-1][1] >= each:  # the rest is long enough for a span of its own
        spans.append((given.prox_steps - 1, given.prox_steps))
    else:
        spans[-1] = (spans[-1][0], given.prox_steps)
    return Masks(given.groups, given.level, spans, freezes=True)


def dsd(given: RivalInputs, *, share: float = 0.3) -> Masks:
    """Dense, sparse, dense: a third of the phase dense, the rest of it with a mask, then all train again.

    Han et al. 2017 (arXiv 1607.04381), section 3, a regulariser: what comes out is dense. The mask holds 30 % of
    each layer's groups at zero.
    """
    return Masks(given.groups, share, [(given.prox_steps // 3, given.prox_steps)], freezes=False)
