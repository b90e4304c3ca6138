"""The ledger: what work is charged to, added up in the unit that a budget is counted in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

INTERRUPTED = "interrupted"
"""Kind of a charge: an interval that was cut short and done again."""


@dataclass(frozen=True)
class Charge:
    """One event of the ledger: what one report interval of one attempt at a trial cost.

    Attributes:
        run: who pays.
        trial: name of the trial.
        attempt: 0 for its first start.
        interval: 0, 1, … within the trial.
        kind: train, outer, hessian or forward; ``lost`` for what a trial had begun that its process's death
            ended, ``interrupted`` where another process went on with it; ``searcher/suggest`` and
            ``searcher/record`` for the time a sampler took.
        passes: of this kind.
        device_seconds: that the trial held its device.
        searcher_seconds: that the sampler took in the driver.
    """

    run: str
    trial: str
    attempt: int
    interval: int
    kind: str
    passes: float
    device_seconds: float = 0.0
    searcher_seconds: float = 0.0


@dataclass(frozen=True)
class Unit:
    """What a budget is counted in.

    Attributes:
        name: ``passes``, ``device_seconds`` or ``flops``.
        amount: of one charge.
        planned: whether a trial's cost is known before it starts; where it is not, a running trial is stopped at
            its next report once the limit is reached.
    """

    name: str
    amount: Callable[[Charge], float]
    planned: bool = True

    def total(self, passes: Mapping[str, float]) -> float:
        """Amount of passes by kind (:meth:`Cost.by_kind`)."""
        return sum(self.amount(Charge("", "", 0, 0, kind, number)) for kind, number in passes.items())


PASSES = Unit("passes", lambda charge: charge.passes)
DEVICE_SECONDS = Unit("device_seconds", lambda charge: charge.device_seconds + charge.searcher_seconds, False)


def flops(train: float, forward: float) -> Unit:
    """Floating-point operations of the dense network, a multiplication and an addition counted as two.

    Args:
        train: of forward and backward of one sample.
        forward: of forward alone.
    """
    return Unit("flops", lambda charge: charge.passes * (3 * forward if charge.kind == "forward" else train))


@dataclass
class Totals:
    """Sums over a run's charges.

    Attributes:
        spent: in the budget's unit.
        passes: that were spent.
        device_seconds: that trials held their devices.
        searcher_seconds: that the sampler took.
        lost_passes: of work that was done again, because a process, host or driver was lost; in none of the
            others.
        lost_seconds: that it held its devices.
    """

    spent: float = 0.0
    passes: float = 0.0
    device_seconds: float = 0.0
    searcher_seconds: float = 0.0
    lost_passes: float = 0.0
    lost_seconds: float = 0.0


class Ledger:
    """The account of a comparison; totals are sums over its charges.

    A charge that arrives twice (the same trial, attempt, interval and kind) counts once. An interval of a trial is
    paid for once: where another attempt does it again, because a process, host or driver was lost, the repetition
    is shown as lost and limits nobody. No arm is to blame for it.

    Args:
        limits: what each run may spend, in the unit; a run that is not named has no limit.
        unit: what limits are counted in.
        charges: those that were recorded before.
        record: writes charges down, on disk when it returns.
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
        self._totals: dict[str, Totals] = {}
        self._spent_on: dict[str, float] = {}
        self._attempts: dict[str, int] = {}
        for charge in charges:
            self._count(charge)

    def add(self, *charges: Charge) -> list[Charge]:
        """Record charges, on disk before they count; those that were not known already."""
        new = [charge for charge in charges if _key(charge) not in self._charges]
        if new:
            self.record(*new)
        for charge in new:
            self._count(charge)
        return new

    def _count(self, charge: Charge) -> None:
        if _key(charge) in self._charges:
            return
        self._charges[_key(charge)] = charge
        total = self._totals.setdefault(charge.run, Totals())
        work = charge.trial, charge.interval, charge.kind
        if charge.kind == INTERRUPTED or work in self._paid:
            total.lost_passes += charge.passes
            total.lost_seconds += charge.device_seconds
        else:
            total.spent += self.unit.amount(charge)
            total.passes += charge.passes
            total.device_seconds += charge.device_seconds
            total.searcher_seconds += charge.searcher_seconds
            self._paid.add(work)
            self._spent_on[charge.trial] = self.spent_on(charge.trial) + self.unit.amount(charge)
        if not charge.kind.startswith("searcher"):
            self._attempts[charge.trial] = max(self.attempts(charge.trial), charge.attempt + 1)

    def __iter__(self) -> Iterator[Charge]:
        return iter(self._charges.values())

    def totals(self, run: str) -> Totals:
        """What a run has spent, failed attempts included."""
        return self._totals.get(run, Totals())

    def limit(self, run: str) -> float:
        """What a run may spend, in the unit."""
        return self.limits.get(run, float("inf"))

    def overshoot(self, run: str) -> float:
        """What a run has spent beyond its limit; 0 within 1e-9 of it, which is rounding."""
        limit, spent = self.limit(run), self.totals(run).spent
        return spent - limit if spent > limit * (1 + 1e-9) else 0.0

    def spent_on(self, trial: str) -> float:
        """What one trial has cost, in the unit."""
        return self._spent_on.get(trial, 0.0)

    def attempts(self, trial: str) -> int:
        """How often a trial has begun to cost something."""
        return self._attempts.get(trial, 0)

    def affords(self, run: str, amount: float) -> bool:
        """Whether ``amount`` more stays within the limit (to 1e-9 of it: rounding is not overspending).

        In a unit that is not known beforehand: whether anything is left.
        """
        limit, spent = self.limit(run), self.totals(run).spent
        return spent + amount <= limit * (1 + 1e-9) if self.unit.planned else spent < limit


def _key(charge: Charge) -> tuple[str, int, int, str]:
    return charge.trial, charge.attempt, charge.interval, charge.kind
