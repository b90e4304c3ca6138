"""λ over the sparsifying phase: a constant, or knots that a meta-learner left behind."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ms_automl.errors import ConfigError

KNOTS = 8


@dataclass(frozen=True)
class LambdaSchedule:
    """λ_l(x) for x from 0 to 1 over the sparsifying phase: linear between equally spaced knots.

    A learned λ moves while θ moves with it, so its last values as constants do not reproduce its result
    (docs/protocol.md, 'What carries over'): the whole course is handed over.

    Attributes:
        layers: L layer names.
        values: K knots of L values each, all ≥ 0; K = 1 is a constant.
        shares: K knots of L shares of each layer's groups, smallest norms first, that the prox touches;
            None touches all.
        rest: λ of the groups that the shares leave out, one or L.
    """

    layers: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    shares: tuple[tuple[float, ...], ...] | None = None
    rest: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        self._check("λ must be finite, `λ >= 0`", self.values, sys.float_info.max)
        if self.shares is not None:
            self._check("`0 <= share <= 1` must hold", self.shares, 1.0)
        rest = self.rest if isinstance(self.rest, tuple) else (self.rest,) * len(self.layers)
        if len(rest) != len(self.layers) or not all(0 <= value <= sys.float_info.max for value in rest):
            raise ConfigError(f"λ of the rest must be finite, `λ >= 0`, one or one a layer, but got {self.rest}")

    def _check(self, condition: str, knots: tuple[tuple[float, ...], ...], highest: float) -> None:
        for row in knots or ((),):
            if len(row) != len(self.layers) or not all(0 <= value <= highest for value in row):
                raise ConfigError(f"{condition}, one for each of {len(self.layers)} layers, but got {row}")

    @classmethod
    def constant(cls, lambdas: dict[str, float]) -> LambdaSchedule:
        """One value per layer throughout."""
        return cls(tuple(lambdas), (tuple(lambdas.values()),))

    def lambda_at(self, phase: float) -> Tensor:
        """[L] λ at progress ``phase`` of the sparsifying phase."""
        return _interpolate(torch.tensor(self.values, dtype=torch.float64), phase).float()

    def rest_of_layers(self) -> Tensor:
        """[L] λ of the groups that the shares leave out."""
        return torch.tensor(self.rest, dtype=torch.float32).expand(len(self.layers))

    def shares_at(self, phase: float) -> Tensor | None:
        """[L] shares of the groups that the prox touches, or None for all."""
        if self.shares is None:
            return None
        return _interpolate(torch.tensor(self.shares, dtype=torch.float64), phase)

    def scaled(self, factors: Sequence[float]) -> LambdaSchedule:
        """λ_l times factor_l, throughout."""
        rows = tuple(tuple(v * f for v, f in zip(row, factors, strict=True)) for row in self.values)
        return LambdaSchedule(self.layers, rows, self.shares, self.rest)

    def clipped(self, low: float, high: float) -> LambdaSchedule:
        """Every λ moved into [low, high], but for those that are 0: a warm-up begins there."""
        rows = tuple(tuple(min(max(v, low), high) if v > 0 else 0.0 for v in row) for row in self.values)
        return LambdaSchedule(self.layers, rows, self.shares, self.rest)

    def to_dict(self) -> dict[str, object]:
        """As JSON: ``{"layers": [...], "values": [[...]], "shares": [[...]] | null, "rest": λ or [...]}``."""
        shares = None if self.shares is None else [list(row) for row in self.shares]
        values = [list(row) for row in self.values]
        rest = list(self.rest) if isinstance(self.rest, tuple) else self.rest
        return {"layers": list(self.layers), "values": values, "shares": shares, "rest": rest}

    @classmethod
    def from_dict(cls, data: dict[str, object]) -> LambdaSchedule:
        """Inverse of :meth:`to_dict`."""
        layers, values, shares = data["layers"], data["values"], data.get("shares")
        assert isinstance(layers, list) and isinstance(values, list)
        kept = tuple(map(tuple, shares)) if isinstance(shares, list) else None
        rest = data.get("rest", 0.0)
        assert isinstance(rest, int | float | list)
        return cls(tuple(layers), tuple(map(tuple, values)), kept, tuple(rest) if isinstance(rest, list) else rest)


def record(course: list[list[float]], phase: float, values: Tensor) -> None:
    """Append [L] values to a course of knots each time the phase passes the next knot."""
    while len(course) < KNOTS and phase >= len(course) / (KNOTS - 1) - 1e-9:
        course.append(values.tolist())


def _interpolate(knots: Tensor, phase: float) -> Tensor:
    position = min(max(phase, 0.0), 1.0) * (len(knots) - 1)
    left = min(int(position), len(knots) - 1)
    right = min(left + 1, len(knots) - 1)
    return torch.lerp(knots[left], knots[right], position - left)
