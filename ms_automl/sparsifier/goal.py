"""The rule that a goal asks for: a share of zeros, a price, a given λ, or a rule of one's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ms_automl.errors import ConfigError, unknown_name
from ms_automl.meta.bounds import Bounds, GivenBounds, MeasuredBounds
from ms_automl.meta.early import EarlyReference
from ms_automl.meta.hypergradients import Ties
from ms_automl.meta.learners import LearnerInputs, choose, of_penalised
from ms_automl.meta.level import AskedLevel, Level, PricedLevel
from ms_automl.meta.objective import Objective
from ms_automl.meta.reference import Reference
from ms_automl.meta.rule import Rule
from ms_automl.meta.schedule import LambdaSchedule
from ms_automl.meta.scheduled import ScheduledLambda
from ms_automl.meta.settings import SETTINGS, LearnerSettings, WaterfillSettings
from ms_automl.meta.waterfill import WaterfillLearner
from ms_automl.sparsity import Groups, TaylorImportance

BY_GRADIENT = ("one_step", "forward", "removal")
"""Learners besides `waterfill` that need nothing of the training step but what it leaves behind."""

BEFORE = 0.2
"""Share of the sparsifying phase before the ramp, where a dense course has to be foretold."""


@dataclass(frozen=True)
class Goal:
    """How sparse a model shall become; arguments of :class:`~ms_automl.sparsifier.Sparsifier`."""

    target: float | None = None
    price: float | None = None
    schedule: LambdaSchedule | None = None
    rule: Rule | Callable[[Groups], Rule] | None = None
    learner: str | LearnerSettings = "waterfill"
    reference: Reference | None = None
    outer_loss: Callable[[], Tensor] | None = None
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        ways = ("target", "price", "schedule", "rule")
        given = [name for name in ways if getattr(self, name) is not None]
        if len(given) != 1:
            found = f"{' and '.join(given)} together" if given else "none of them"
            raise ConfigError(f"give one of target, price, schedule and rule to say how sparse, but got {found}")
        if self.target is not None and not (_number(self.target) and 0 < self.target < 1):
            raise ConfigError(
                f"`0 < target < 1` must hold, a share of the weights, but got target={self.target!r}"
            )
        if self.price is not None and not (_number(self.price) and 0 < self.price < float("inf")):
            raise ConfigError(f"`0 < price < inf` must hold, but got price={self.price!r}")
        if self.schedule is not None and not isinstance(self.schedule, LambdaSchedule):
            raise ConfigError(f"`schedule` must be a LambdaSchedule, but is a {type(self.schedule).__name__}")
        if self.reference is not None and not isinstance(self.reference, Reference):
            raise ConfigError(f"`reference` must be a Reference, but is a {type(self.reference).__name__}")
        if self.rule is not None and not isinstance(self.rule, Rule) and not callable(self.rule):
            raise ConfigError(f"`rule` must be a Rule or what makes one, but is a {type(self.rule).__name__}")
        if self.bounds is not None:
            pair = (
                isinstance(self.bounds, tuple | list) and len(self.bounds) == 2 and all(map(_number, self.bounds))
            )
            if not pair or not 0 < self.bounds[0] < self.bounds[1] < float("inf"):
                raise ConfigError(
                    f"`0 < low < high < inf` must hold for bounds=(low, high), but got {self.bounds!r}"
                )

    def build(self, groups: Groups, prox_steps: int, prox: Callable[[Tensor], None]) -> Rule:
        """The rule.

        Args:
            groups: the groups.
            prox_steps: steps of the sparsifying phase.
            prox: the proximal step of the groups.

        Raises:
            ConfigError: for a target that cannot be reached, or what a learner lacks.
        """
        if self.rule is not None:
            try:
                made = self.rule if isinstance(self.rule, Rule) else self.rule(groups)
            except TypeError as error:
                raise ConfigError(f"`rule` must take the groups and make a Rule of them, but: {error}") from error
            if not isinstance(made, Rule):
                raise ConfigError(f"`rule` must make a Rule of the groups, but made a {type(made).__name__}")
            return made
        if self.schedule is not None:
            return ScheduledLambda(groups, self.schedule, prox)
        settings = self._settings()
        if isinstance(settings, WaterfillSettings):
            return self._waterfill(groups, prox_steps, settings)
        return self._by_gradient(groups, settings)

    @property
    def any_groups(self) -> bool:
        """Whether groups of any kind serve: a given λ names its own, and learners by gradient take one kind."""
        return self.rule is not None or (self.schedule is None and self._settings().learner == "waterfill")

    def _settings(self) -> LearnerSettings:
        if isinstance(self.learner, LearnerSettings):
            return self.learner
        if self.learner not in SETTINGS:
            raise unknown_name("learner", str(self.learner), sorted(SETTINGS))
        return SETTINGS[self.learner](learner=self.learner)

    def _waterfill(self, groups: Groups, prox_steps: int, settings: WaterfillSettings) -> Rule:
        if (settings.order, settings.shrinks) != ("taylor", "chosen"):
            raise ConfigError(
                "waterfill's `order` and `shrinks` are for python -m ms_automl.search: leave them out here"
            )
        importance = TaylorImportance(groups, settings.decay)
        level, begin = self._level(groups, prox_steps, settings)
        bounds: Bounds = MeasuredBounds(groups, prox_steps)
        if self.bounds is not None:
            bounds = GivenBounds.between(*self.bounds, settings.rest)
        return WaterfillLearner(groups, level, bounds=bounds, begin=begin, importance=importance)

    def _level(self, groups: Groups, prox_steps: int, settings: WaterfillSettings) -> tuple[Level, float]:
        """The share of the penalised weights to be zero, and when the ramp to it begins."""
        if self.target is not None:
            return AskedLevel(of_penalised(Objective("target", target=self.target), groups).target), 0.0
        assert self.price is not None
        price = of_penalised(Objective(price=self.price), groups).price
        guess, doubt = settings.guess, settings.doubt
        if self.reference is not None:
            return PricedLevel(price, self.reference, guess=guess, doubt=doubt), 0.0
        early = EarlyReference(round(BEFORE * (prox_steps - 1)))
        return PricedLevel(price, early, guess=guess, doubt=doubt, least=guess), BEFORE

    def _by_gradient(self, groups: Groups, settings: LearnerSettings) -> Rule:
        name = settings.learner
        if name not in BY_GRADIENT:
            raise ConfigError(
                f"learner '{name}' needs the training step as a function, which a loop of one's own has not: take "
                f"waterfill, {', '.join(BY_GRADIENT)}, or python -m ms_automl.search"
            )
        needs = ["price", "reference", "bounds"] + (["outer_loss"] if name != "removal" else [])
        if missing := [one for one in needs if getattr(self, one) is None]:
            raise ConfigError(f"learner '{name}' needs {', '.join(missing)}: give them, or take waterfill")
        if len(groups.memberships) > 1:
            raise ConfigError(
                f"learner '{name}' learns for groups that do not overlap, but got grouping='coupled': take "
                "waterfill"
            )
        assert self.price is not None and self.reference is not None and self.bounds is not None
        objective = of_penalised(Objective(price=self.price), groups)
        ties = Ties(groups, range(len(groups.names)))
        given = LearnerInputs(groups, ties, None, objective, self.reference, self.bounds)
        return choose(name, objective.kind).build(settings, given)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
