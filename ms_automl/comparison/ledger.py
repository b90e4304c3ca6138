"""The ledger: what work is charged to, added up in the unit that a budget is counted in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

INTERRUPTED = "interrupted"
"""Kind of a charge: an interval that was cut short and done again."""
ROUNDING = 1 + 1e-9
"""Of its limit that a run may spend: rounding is not overspending."""


@dataclass(frozen=True)
class Charge:
    """One event of the ledger: what one report interval of one attempt at a trial cost."""

    run: str  # who pays
    trial: str  # by name
    attempt: int  # 0 for its first start
    interval: int  # 0, 1, … within the trial
    # train, outer, hessian or forward; `lost` for what a trial had begun that its process's death ended,
    # `interrupted` where another process went on with it; `searcher/suggest` and `searcher/record` of a sampler.
    kind: str
    passes: float  # of this kind
    device_seconds: float = 0.0  # that the trial held its device
    searcher_seconds: float = 0.0  # that the sampler took in the driver

    @property
    def key(self) -> tuple[str, int, int, str]:
        """What makes it another charge than the others."""
        return self.trial, self.attempt, self.interval, self.kind


@dataclass(frozen=True)
class Unit:
    """What a budget is counted in."""

    name: str  # `passes`, `device_seconds` or `flops`
    amount: Callable[[Charge], float]
    # Whether a trial's cost is known before it starts; where not, a running one is stopped at its next report once
    # the limit is reached.
    planned: bool = True

    def total(self, passes: Mapping[str, float]) -> float:
        """Amount of passes by kind (:meth:`Cost.by_kind`)."""
        return sum(self.amount(Charge("", "", 0, 0, kind, number)) for kind, number in passes.items())


PASSES = Unit("passes", lambda charge: charge.passes)
DEVICE_SECONDS = Unit("device_seconds", lambda charge: charge.device_seconds + charge.searcher_seconds, False)


def flops(train: float, forward: float) -> Unit:
    """Floating-point operations of the dense network, a multiplication and an addition counted as two.

    ``train`` are those of forward and backward of one sample, ``forward`` those of forward alone.
    """
    return Unit("flops", lambda charge: charge.passes * (3 * forward if charge.kind == "forward" else train))


@dataclass
class Totals:
    """Sums over a run's charges; what was done again, because a process was lost, is in the last two alone."""

    spent: float = 0.0  # in the budget's unit
    passes: float = 0.0
    device_seconds: float = 0.0
    searcher_seconds: float = 0.0
    lost_passes: float = 0.0
    lost_seconds: float = 0.0  # that it held its devices


class Ledger:
    """The account of a comparison; totals are sums over its charges.

    A charge that arrives twice (the same trial, attempt, interval and kind) counts once. An interval of a trial is
    paid for once: where another attempt does it again, because a process, host or driver was lost, the repetition
    is shown as lost and limits nobody. No arm is to blame for it. A run that ``limits`` do not name has none;
    ``charges`` were recorded before, ``record`` has new ones on disk when it returns.
    """

    def __init__(
        self,
        limits: dict[str, float],
        unit: Unit = PASSES,
        charges: Iterable[Charge] = (),
        record: Callable[..., None] = lambda *charges: None,
    ) -> None:
        self.record = record
        self.limits = limits
        self.unit = unit
        self._charges: dict[tuple[str, int, int, str], Charge] = {}
        self._paid: set[tuple[str, int, str]] = set()
        self._totals: defaultdict[str, Totals] = defaultdict(Totals)
        self._spent_on: defaultdict[str, float] = defaultdict(float)
        self._attempts: defaultdict[str, int] = defaultdict(int)
        for charge in charges:
            self._count(charge)

    def add(self, *charges: Charge) -> list[Charge]:
        """Record charges, on disk before they count; those that were not known already."""
        new = [charge for charge in charges if charge.key not in self._charges]
        if new:
            self.record(*new)
        for charge in new:
            self._count(charge)
        return new

    def _count(self, charge: Charge) -> None:
        if charge.key in self._charges:
            return
        self._charges[charge.key] = charge
        total = self._totals[charge.run]
        work = charge.trial, charge.interval, charge.kind
        if charge.kind == INTERRUPTED or work in self._paid:
            total.lost_passes += charge.passes
            total.lost_seconds += charge.device_seconds
        else:
            self._paid.add(work)
            total.spent += self.unit.amount(charge)
            total.passes += charge.passes
            total.device_seconds += charge.device_seconds
            total.searcher_seconds += charge.searcher_seconds
            self._spent_on[charge.trial] += self.unit.amount(charge)
        if not charge.kind.startswith("searcher"):
            self._attempts[charge.trial] = max(self._attempts[charge.trial], charge.attempt + 1)

    def __iter__(self) -> Iterator[Charge]:
        return iter(self._charges.values())

    def totals(self, run: str) -> Totals:
        """What a run has spent, failed attempts included."""
        return self._totals[run]

    def spent_on(self, trial: str) -> float:
        """What one trial has cost, in the unit."""
        return self._spent_on[trial]

    def attempts(self, trial: str) -> int:
        """How often a trial has begun to cost something."""
        return self._attempts[trial]

    def limit(self, run: str) -> float:
        """What a run may spend, in the unit."""
        return self.limits.get(run, float("inf"))

    def overshoot(self, run: str) -> float:
        """What a run has spent beyond its limit, but for rounding."""
        limit, spent = self.limit(run), self.totals(run).spent
        return spent - limit if spent > limit * ROUNDING else 0.0

    def affords(self, run: str, amount: float) -> bool:
        """Whether ``amount`` more stays within the limit; in a unit that is not planned: whether any is left."""
        limit, spent = self.limit(run), self.totals(run).spent
        return spent + amount <= limit * ROUNDING if self.unit.planned else spent < limit
