"""Optuna's samplers: constraints, failed and stopped trials are told as such."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from ms_automl.comparison.registry import Parameter
from ms_automl.comparison.run import Suggestion
from ms_automl.samplers.base import Answer, Observation, Render, Sampler

STARTUP = 10
"""Optuna's own number of random trials before its model; fewer where the budget is small."""

_OPEN: WeakValueDictionary[str, JournalStorage] = WeakValueDictionary()
"""Open storages by file: a storage for each study would read what all the others write, over and over."""

MakeSampler = Callable[[int, int], BaseSampler]
"""Makes a sampler of Optuna's from (seed, random trials at the start)."""


def tpe(seed: int, startup: int) -> TPESampler:
    """Tree-structured Parzen estimator (Bergstra et al. 2011), its arguments pinned.

    Optuna's defaults differ between 4.x and 5.x, so none that does is relied on. Trials that run at a time know
    nothing of each other.
    """
    return TPESampler(
        n_startup_trials=startup,
        n_ei_candidates=24,
        seed=seed,
        multivariate=True,
        group=False,
        constant_liar=False,
    )


def gp(seed: int, startup: int) -> GPSampler:
    """Gaussian process with log expected improvement; its cost grows with the cube of the trials."""
    return GPSampler(seed=seed, n_startup_trials=startup, deterministic_objective=False)


def rungs(reports: int) -> tuple[int, ...]:
    """The reports at which successive halving may stop a trial: a ninth and a third of all, at least the first."""
    least = max(1, round(reports / 9))
    return tuple(rung for rung in (least, 3 * least) if rung <= reports / 2) or (1,)


class OptunaSearch(Sampler):
    """Optuna's search over some parameters.

    A quarter of the trials (at least 2, at most Optuna's 10) start at random. Every suggestion has a sampler of
    Optuna's of its own, seeded by the run's seed and the trial's number. The study lies in memory and follows the
    trials that :meth:`ask` is given; the one in a file is there to be looked at.

    Args:
        parameters: what is searched.
        render: values to a trial; None where :meth:`values` alone is asked for.
        seed: of the sampler.
        trials: how many the budget allows.
        sampler: Optuna's.
        rungs: reports at which the best third goes on; none stops no trial. Asynchronous successive halving (Li et
            al. 2020, arXiv 1810.05934), not by Optuna's pruner: that counts trials that died with their process.
        first: values that are tried before anything else.
        journal: file that keeps the study, for optuna-dashboard and ``optuna.load_study``; None keeps none.
        name: of the study there.
    """

    def __init__(
        self,
        parameters: tuple[Parameter, ...],
        render: Render | None,
        seed: int,
        trials: int,
        *,
        sampler: MakeSampler = tpe,
        rungs: tuple[int, ...] = (),
        first: dict[str, float] | None = None,
        journal: Path | None = None,
        name: str = "study",
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.distributions: dict[str, BaseDistribution] = {
            p.name: FloatDistribution(p.low, p.high, log=p.scale == "log") for p in parameters
        }
        self.render = render
        self.seed = seed
        self.make_sampler = sampler
        self.rungs = rungs
        self.first = first
        self.kept = None if journal is None else KeptStudy(journal, name, self.distributions)
        startup = min(STARTUP, max(2, trials // 4))
        # A study that grows by a larger budget keeps the start it had.
        self.startup = startup if self.kept is None else self.kept.attribute("startup", startup)
        self._begin()

    def _begin(self) -> None:
        self.study = optuna.create_study(direction="minimize")
        self._taken: list[Observation] = []  # whose ends the study has
        self._open: dict[int, optuna.trial.Trial] = {}  # by index, of those that it has as running
        self._asked: tuple[int, dict[str, float]] | None = None  # with so many ends

    def ask(self, trials: Sequence[Observation]) -> Suggestion | Answer:
        """The next trial; never done."""
        assert self.render is not None
        return self.render(self.values(trials))

    def values(self, trials: Sequence[Observation]) -> dict[str, float]:
        """The parameters of the next trial."""
        self._follow(trials)
        number = len(trials)
        if number in self._open:
            assert self._asked is not None
            ends, values = self._asked
            if ends == len(self._taken):  # asked again
                return values
            self.study.tell(self._open.pop(number), state=TrialState.FAIL)
        own = np.random.SeedSequence([self.seed, number]).generate_state(1)[0]
        self.study.sampler = self.make_sampler(int(own), self.startup)
        if number == 0 and self.first is not None:
            self.study.enqueue_trial(self.first)
        trial = self._open[number] = self.study.ask(self.distributions)
        self._asked = len(self._taken), dict(trial.params)
        return dict(trial.params)

    def _follow(self, trials: Sequence[Observation]) -> None:
        """Have the study hold these trials and no others, each as far as it may be known."""
        if self._taken and (len(self._taken) > len(trials) or trials[len(self._taken) - 1] is not self._taken[-1]):
            self._begin()
        for index in range(len(self._taken), len(trials)):
            trial = trials[index]
            ours = self._open.get(index)
            if ours is None or ours.params != self._parameters(trial):
                if ours is not None:
                    self.study.tell(ours, state=TrialState.FAIL)
                self.study.add_trial(_frozen(trial, self.distributions, TrialState.RUNNING))
                added = self.study.get_trials(deepcopy=False)[-1]
                self._open[index] = optuna.trial.Trial(self.study, added._trial_id)
            if trial.ended and len(self._taken) == index:
                self._tell(self._open.pop(index), trial)
                self._taken.append(trial)

    def _parameters(self, trial: Observation) -> dict[str, float]:
        return {name: trial.suggestion.values[name] for name in self.distributions}

    def _tell(self, running: optuna.trial.Trial, trial: Observation) -> None:
        """Tell the study: a failed trial as failed and a stopped one as pruned, never as a value."""
        for report, objective in trial.at_rungs.items():
            running.report(objective, report)
        if trial.result is None:
            self.study.tell(running, state=TrialState.FAIL)
            return
        running.set_constraint("target", trial.result.violation)
        state = _state(trial)
        self.study.tell(running, trial.result.objective if state == TrialState.COMPLETE else None, state=state)

    def stops(self, trials: Sequence[Observation], index: int, report: int, objective: float) -> bool:
        """Whether a trial on a rung is not among the best third there, of those known when it was suggested."""
        if report not in self.rungs:
            return False
        others = [trial.at_rungs[report] for trial in trials[: trials[index].known] if report in trial.at_rungs]
        values = [objective, *others]
        last = sorted(values)[max(0, len(values) // 3 - 1)]
        return objective > last

    def record(self, trial: Observation) -> None:
        """Keep the end of a trial in the study's file."""
        if self.kept is not None:
            self.kept.add(trial)


class KeptStudy:
    """A study in a file, for those who look at it: no suggestion depends on the trials in it.

    Args:
        journal: the file; several studies may lie in it.
        name: of the study.
        distributions: of its trials.
    """

    def __init__(self, journal: Path, name: str, distributions: Mapping[str, BaseDistribution]) -> None:
        self.study = optuna.create_study(
            storage=open_journal(journal), study_name=name, load_if_exists=True, direction="minimize"
        )
        self.distributions = distributions

    def attribute(self, name: str, value: int) -> int:
        """What the study has by that name; what is given where it has nothing yet."""
        attributes = self.study.user_attrs
        if name not in attributes:
            self.study.set_user_attr(name, value)
            return value
        return int(attributes[name])

    @cached_property
    def _names(self) -> set[str]:
        trials = self.study.get_trials(deepcopy=False)
        for stale in (trial for trial in trials if not trial.state.is_finished()):  # of an earlier version
            self.study.tell(stale.number, state=TrialState.FAIL)
        return {
            trial.user_attrs["trial"]
            for trial in trials
            if trial.state.is_finished() and "trial" in trial.user_attrs
        }

    def add(self, trial: Observation) -> None:
        """Keep a trial that has ended, once."""
        if trial.name not in self._names:
            self.study.add_trial(_frozen(trial, self.distributions, _state(trial)))
            self._names.add(trial.name)


def _frozen(trial: Observation, distributions: Mapping[str, BaseDistribution], state: TrialState) -> FrozenTrial:
    """A trial as Optuna has it, in a state."""
    over = state != TrialState.RUNNING
    return optuna.trial.create_trial(
        params={name: trial.suggestion.values[name] for name in distributions},
        distributions=dict(distributions),
        value=trial.result.objective if trial.result is not None and state == TrialState.COMPLETE else None,
        state=state,
        intermediate_values=trial.at_rungs if over else {},
        user_attrs={"trial": trial.name},
        constraints={"target": trial.result.violation} if trial.result is not None and over else None,
    )


def _state(trial: Observation) -> TrialState:
    """What a trial's end is to a study: one that was stopped is pruned, and never has a value."""
    if trial.result is None:
        return TrialState.FAIL
    return TrialState.PRUNED if trial.result.stopped else TrialState.COMPLETE


def open_journal(path: Path) -> BaseStorage:
    """Optuna's storage in one file, several studies in it; while one of them is open, the next one shares it."""
    place = str(path.absolute())
    storage = _OPEN.get(place)
    if storage is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage = _OPEN[place] = JournalStorage(JournalFileBackend(place))
    return storage
