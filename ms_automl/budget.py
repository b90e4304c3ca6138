"""What work costs, and the ledger that adds it up.

The unit is the *pass*: forward and backward of one sample through the dense network. Forward alone counts a
third (a backward is two forwards' work), a validation sample that the λ gradient is taken on counts like a
training sample, and a Hessian-vector product on one sample counts two (docs/protocol.md, 'Budget'). Passes do not
depend on the machine, so a result can be reproduced anywhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ms_automl.errors import BudgetError


@dataclass
class Cost:
    """Samples counted by what was done with them.

    Attributes:
        train: forward and backward for θ.
        outer: forward and backward on outer samples for the λ gradient.
        hessian: Hessian-vector products on training samples, for the λ gradient.
        forward: forward only: evaluation.
    """

    train: int = 0
    outer: int = 0
    hessian: int = 0
    forward: int = 0

    @property
    def passes(self) -> float:
        """The sum train + outer + 2 hessian + forward / 3."""
        return sum(self.by_kind().values())

    def by_kind(self) -> dict[str, float]:
        """The terms of :attr:`passes`."""
        return {
            "train": float(self.train),
            "outer": float(self.outer),
            "hessian": 2.0 * self.hessian,
            "forward": self.forward / 3,
        }

    def since(self, earlier: Cost) -> Cost:
        """What was added since an earlier count."""
        return Cost(**{kind: count - getattr(earlier, kind) for kind, count in self.to_dict().items()})

    def to_dict(self) -> dict[str, int]:
        """As plain numbers."""
        return asdict(self)


def planned_cost(
    *,
    steps: int,
    batch_size: int,
    reports: int,
    val: int,
    test: int,
    outer_updates: int = 0,
    products: int = 0,
    probed: int = 0,
) -> Cost:
    """Cost of a whole trial before it starts: training, one validation pass a report, one test pass at the end.

    Args:
        steps: optimiser steps.
        batch_size: samples of a training or outer batch.
        reports: evaluations of the validation split.
        val: samples of the validation split.
        test: samples of the test split.
        outer_updates: outer batches that λ's gradient is taken on.
        products: Hessian-vector products, each on one training batch.
        probed: validation samples passed forward between reports.
    """
    return Cost(
        train=steps * batch_size,
        outer=outer_updates * batch_size,
        hessian=products * batch_size,
        forward=reports * val + test + probed,
    )


@dataclass(frozen=True)
class Charge:
    """One event of the ledger: what one report interval of one attempt at a trial cost."""

    stream: str
    trial: str
    attempt: int
    interval: int
    kind: str
    passes: float
    device_seconds: float


class Ledger:
    """Append-only account of a comparison; totals are sums over its events.

    A crash can lose at most the event being written, and an event that arrives twice (the same trial, attempt,
    interval and kind) counts once.

    Args:
        path: JSON-lines file the events are appended to; one that exists is read first.
        limits: passes each stream may spend; a stream that is not named has no limit.
    """

    def __init__(self, path: Path, limits: dict[str, float]) -> None:
        self.path = path
        self.limits = limits
        self._charges: dict[tuple[str, int, int, str], Charge] = {}
        for charge in _read(path):
            self._charges[_key(charge)] = charge

    def add(self, charge: Charge) -> bool:
        """Record a charge, on disk before it counts; False where it was known already."""
        if _key(charge) in self._charges:
            return False
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(charge)) + "\n")
        self._charges[_key(charge)] = charge
        return True

    def __iter__(self) -> Iterator[Charge]:
        return iter(self._charges.values())

    def passes(self, stream: str) -> float:
        """Passes that a stream has spent, failed attempts included."""
        return sum(charge.passes for charge in self if charge.stream == stream)

    def device_seconds(self, stream: str) -> float:
        """Seconds that a stream's trials held their device."""
        return sum(charge.device_seconds for charge in self if charge.stream == stream)

    def affords(self, stream: str, passes: float) -> bool:
        """Whether ``passes`` more stay within the stream's limit (to 1e-9 of it: rounding is not overspending)."""
        limit = self.limits.get(stream, float("inf"))
        return self.passes(stream) + passes <= limit * (1 + 1e-9)


def _key(charge: Charge) -> tuple[str, int, int, str]:
    return charge.trial, charge.attempt, charge.interval, charge.kind


def _read(path: Path) -> Iterator[Charge]:
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):  # the event in flight when the writer died: the next one needs its own line
        os.truncate(path, whole)
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            yield Charge(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise BudgetError(
                f"{path.name}: line {number} is not a charge: restore the file from a copy"
            ) from error
