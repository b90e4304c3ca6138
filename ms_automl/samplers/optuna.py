"""Optuna's samplers: constraints, failed and stopped trials are told as such."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from ms_automl.comparison.registry import Parameter
from ms_automl.comparison.run import Suggestion
from ms_automl.samplers.base import Observation, Render, Sampler

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

    A quarter of the ``trials`` that the budget allows (at least 2, at most Optuna's 10) start at random. Every
    suggestion has a sampler of Optuna's of its own, seeded by the run's seed and the trial's number, and a study
    in memory that holds the trials :meth:`ask` is given; the one in a file is there to be looked at.

    Args:
        rungs: reports at which the best third goes on; none stops no trial. Asynchronous successive halving (Li et
            al. 2020, arXiv 1810.05934), not by Optuna's pruner: that counts trials that died with their process.
        journal: file that keeps the study ``name``, for optuna-dashboard and ``optuna.load_study``.
    """

    def __init__(
        self,
        parameters: tuple[Parameter, ...],
        render: Render,
        seed: int,
        trials: int,
        *,
        sampler: MakeSampler = tpe,
        rungs: tuple[int, ...] = (),
        journal: Path | None = None,
        name: str = "study",
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.distributions: dict[str, BaseDistribution] = {
            p.name: CategoricalDistribution(p.choices)
            if p.choices
            else FloatDistribution(p.low, p.high, log=p.scale == "log")
            for p in parameters
        }
        self.render = render
        self.seed = seed
        self.make_sampler = sampler
        self.rungs = rungs
        self.startup = min(STARTUP, max(2, trials // 4))
        self.study = optuna.create_study()
        self._ended: list[Observation] = []  # that the study holds
        self.kept: optuna.Study | None = None
        if journal is not None:
            self.kept = optuna.create_study(storage=open_journal(journal), study_name=name, load_if_exists=True)
            self._go_on(self.kept)

    def _go_on(self, kept: optuna.Study) -> None:
        if "startup" not in kept.user_attrs:  # one that grows by a larger budget keeps the start it had
            kept.set_user_attr("startup", self.startup)
        self.startup = kept.user_attrs["startup"]
        trials = kept.get_trials(deepcopy=False)
        for trial in trials:
            if not trial.state.is_finished():  # of an earlier version
                kept.tell(trial.number, state=TrialState.FAIL)
        self._kept = {trial.user_attrs.get("trial") for trial in trials if trial.state.is_finished()}

    def ask(self, trials: Sequence[Observation]) -> Suggestion:
        """The next trial; never done."""
        ended = list(takewhile(lambda trial: trial.ended, trials))
        if self._ended != ended[: len(self._ended)]:
            self._ended, self.study = [], optuna.create_study()
        self.study.add_trials([self._frozen(trial) for trial in ended[len(self._ended) :]])
        self._ended = ended
        self.study.add_trials([self._frozen(trial, known=False) for trial in trials[len(ended) :]])
        own = np.random.SeedSequence([self.seed, len(trials)]).generate_state(1)[0]
        self.study.sampler = self.make_sampler(int(own), self.startup)
        values = dict(self.study.ask(self.distributions).params)
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.study.tell(
                trial.number, state=TrialState.FAIL
            )  # which counts for nothing: it is added at its end
        return self.render(values)

    def stops(self, trials: Sequence[Observation], index: int, report: int, objective: float) -> bool:
        """Whether a trial on a rung is not among the best third there, of those known when it was suggested."""
        if report not in self.rungs:
            return False
        others = [trial.at_rungs[report] for trial in trials[: trials[index].known] if report in trial.at_rungs]
        values = [objective, *others]
        last = sorted(values)[max(0, len(values) // 3 - 1)]
        return objective > last

    def record(self, trial: Observation) -> None:
        """Keep the end of a trial in the study's file, once."""
        if self.kept is not None and trial.name not in self._kept:
            self.kept.add_trial(self._frozen(trial))
            self._kept.add(trial.name)

    def _frozen(self, trial: Observation, known: bool = True) -> FrozenTrial:
        """A trial as Optuna has it: a failed one failed, a stopped one pruned and without a value."""
        result = trial.result if known else None
        state = TrialState.FAIL if known else TrialState.RUNNING
        if result is not None:
            state = TrialState.PRUNED if result.stopped else TrialState.COMPLETE
        return optuna.trial.create_trial(
            params={name: trial.suggestion.values[name] for name in self.distributions},
            distributions=dict(self.distributions),
            value=result.objective if result is not None and not result.stopped else None,
            state=state,
            intermediate_values=trial.at_rungs if known else {},
            user_attrs={"trial": trial.name},
            constraints=None if result is None else {"target": result.violation},
        )


def open_journal(path: Path) -> BaseStorage:
    """Optuna's storage in one file, several studies in it; while one of them is open, the next one shares it."""
    place = str(path.absolute())
    storage = _OPEN.get(place)
    if storage is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage = _OPEN[place] = JournalStorage(JournalFileBackend(place))
    return storage
