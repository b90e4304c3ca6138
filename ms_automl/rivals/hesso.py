"""HESSO: in a few periods the least salient groups are shrunk to zero, step by step (arXiv 2409.09085)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ms_automl.errors import ConfigError
from ms_automl.meta.rule import Rule
from ms_automl.meta.step import TrainingStep
from ms_automl.rivals.base import RivalInputs
from ms_automl.sparsity.groups import Groups
from ms_automl.sparsity.importance import cheapest

MOMENTUM = 0.9
"""Decay of the gradients' average that saliencies are taken on."""


class Hesso(Rule):
    """P periods of T steps; at the start of each the next groups in line go, over its T steps.

    A group's score is Σ_i s_i / ||s_i|| over five saliencies: ||θ_g||, ||θ_g||/n_g, 1 + cos(θ_g, m_g),
    |<θ_g, m_g>| and <θ_g, m_g>²/2, with m the average of the gradients and ||s_i|| the norm over all groups.
    The lowest, as many as hold (p + 1)/P of the level after period p, shrink by (T - t - 1)/(T - t) after the
    optimiser's step t = 0, …, T - 1 of the period, and are zero from there on.

    Here m is an average of gradients with a decay of .9, whatever the optimiser is, where the authors' optimiser
    takes its own direction; and the share is one of weights, not of groups.

    Args:
        groups: the groups.
        level: share of the weights to be zero.
        begin: step at which the first period begins.
        length: T.
        periods: P.
    """

    def __init__(self, groups: Groups, level: float, begin: int, length: int, periods: int) -> None:
        self.groups, self.level = groups, level
        self.begin, self.length, self.periods = begin, length, periods
        self.mean = [torch.zeros_like(weight) for weight in groups.weights]
        self.gone = torch.zeros_like(groups.layer, dtype=torch.bool)
        self.going = torch.zeros_like(self.gone)

    def scores(self) -> Tensor:
        """[G] the mean of the five, 0 and up."""
        size = self.groups.size
        norms = self.groups.norms()
        inner = self.groups.inner(self.mean, self.groups.weights)
        lengths = norms * self.groups.inner(self.mean, self.mean).sqrt()
        cosine = 1 + inner / (lengths + 1e-8)
        each = (norms, norms / size, cosine, inner.abs(), inner.square() / 2)
        return torch.stack([one / one.norm().clamp(min=torch.finfo(one.dtype).tiny) for one in each]).mean(0)

    @torch.no_grad()
    def step(self, now: TrainingStep) -> None:
        """Choose where a period begins; shrink what was chosen."""
        torch._foreach_lerp_(self.mean, now.gradients(), 1 - MOMENTUM)
        period, t = divmod(now.index - self.begin, self.length)
        if 0 <= period < self.periods and t == 0:
            chosen = cheapest(self.groups, self.scores(), self.level * (period + 1) / self.periods, self.gone)
            self.going = chosen & ~self.gone
        factors = (~self.gone).to(self.groups.size.dtype)
        left = 0.0 if now.phase >= 1 else (self.length - t - 1) / (self.length - t)
        factors = torch.where(self.going, left, factors)
        self.groups.scale_(factors)
        if left == 0:
            self.gone, self.going = self.gone | self.going, torch.zeros_like(self.gone)

    def state_dict(self) -> dict[str, Any]:
        """The gradients' average, what is gone and what is going."""
        return {"mean": [m.clone() for m in self.mean], "gone": self.gone.clone(), "going": self.going.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        for mine, kept in zip(self.mean, state["mean"], strict=True):  # which may lie on another device
            mine.copy_(kept)
        self.gone.copy_(state["gone"])
        self.going.copy_(state["going"])


def hesso(given: RivalInputs, *, begin: float = 2 / 15, length: float = 2 / 15, periods: int = 10) -> Hesso:
    """With the authors' example schedule: ten periods over a tenth of all steps, after a tenth of them.

    Args:
        given: groups, lengths and level.
        begin: share of the sparsifying phase (three quarters of the steps, as a rule) before the first period.
        length: share of it that the periods take together.
        periods: P.

    Raises:
        ConfigError: where the periods do not end within the phase.
    """
    if not (begin >= 0 and length >= 0 and begin + length <= 1):
        raise ConfigError(
            f"hesso: `0 <= begin`, `0 <= length` and `begin + length <= 1` must hold, but got begin={begin:g} and "
            f"length={length:g}"
        )
    first, steps = round(begin * given.prox_steps), round(length * given.prox_steps)
    count = max(1, min(periods, steps))
    return Hesso(given.groups, given.level, min(first, given.prox_steps - 1), max(1, steps // count), count)
