"""Optuna's samplers as streams' samplers: constraints, failed and stopped trials are told as such."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from ms_automl.comparison.registry import Parameter
from ms_automl.comparison.run import Suggestion
from ms_automl.samplers.base import Render, Sampler
from ms_automl.samplers.distributions import optuna_distributions

STARTUP = 10
"""Optuna's own number of random trials before its model; fewer where the budget is small."""

_OPEN: WeakValueDictionary[str, JournalStorage] = WeakValueDictionary()
"""By file. A storage of its own for each study would read what all the others write, over and over."""

FAILED = "failed"
"""Attribute of a study's trial that did; without it, one that the study has as failed was interrupted."""

MakeSampler = Callable[[int, int], BaseSampler]
"""From (seed, random trials at the start)."""


def tpe(seed: int, startup: int) -> TPESampler:
    """Tree-structured Parzen estimator (Bergstra et al. 2011), its arguments pinned.

    Optuna's defaults differ between 4.x and 5.x, so none that does is relied on. Trials that run at a time know
    nothing of each other: a constant liar would make a suggestion depend on more than what was told.
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
    """A study of Optuna's behind a stream.

    A quarter of the trials (at least 2, at most Optuna's 10) start at random. Every suggestion has a sampler of
    its own, seeded by the stream's seed and the trial's number, so that a study that goes on after a kill goes on
    as it would have.

    Args:
        parameters: what is searched.
        render: values to a trial.
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
        render: Render,
        seed: int,
        trials: int,
        *,
        sampler: MakeSampler = tpe,
        rungs: tuple[int, ...] = (),
        first: dict[str, float] | None = None,
        journal: Path | None = None,
        name: str = "study",
    ) -> None:
        super().__init__()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.study = optuna.create_study(
            storage=None if journal is None else open_journal(journal),
            study_name=name,
            load_if_exists=True,
            direction="minimize",
        )
        self.distributions = optuna_distributions(parameters)
        self.render = render
        self.seed = seed
        self.make_sampler = sampler
        # A study that grows by a larger budget keeps the start it had.
        attributes = self.study.user_attrs
        if "startup" not in attributes:
            self.study.set_user_attr("startup", min(STARTUP, max(2, trials // 4)))
        self.startup: int = self.study.user_attrs["startup"]
        self.rungs = rungs
        self.at_rungs: dict[int, dict[str, float]] = {rung: {} for rung in rungs}
        self.told: list[str] = []
        self.known: dict[str, int] = {}  # by trial: how many had been told when it was suggested
        self.first = first
        self.asked = 0
        self.running: dict[str, optuna.trial.Trial | Suggestion] = {}
        for stale in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
            self.study.tell(stale.number, state=TrialState.FAIL)
        over = [
            t
            for t in self.study.get_trials(deepcopy=False)
            if t.state != TrialState.FAIL or FAILED in t.user_attrs
        ]
        self.kept = {trial.user_attrs.get("trial") for trial in over}

    def suggest(self, trial_id: str) -> Any:
        """The next trial; never finished."""
        number = np.random.SeedSequence([self.seed, self.asked]).generate_state(1)[0]
        self.study.sampler = self.make_sampler(int(number), self.startup)
        if self.asked == 0 and self.first is not None:
            self.study.enqueue_trial(self.first)
        self.asked += 1
        trial = self.study.ask(self.distributions)
        trial.set_user_attr("trial", trial_id)
        self.running[trial_id] = trial
        self.known[trial_id] = len(self.told)
        return {"suggestion": self.render(dict(trial.params))}

    def on_report(self, trial_id: str, report: int, objective: float) -> bool:
        """On a rung, stop a trial that is not among the best third there, of those known when it was suggested."""
        if report not in self.rungs:
            return False
        trial = self.running[trial_id]
        if not isinstance(trial, Suggestion):
            trial.report(objective, report)
        there = self.at_rungs[report]
        there[trial_id] = objective
        values = [objective, *(there[one] for one in self.told[: self.known[trial_id]] if one in there)]
        last = sorted(values)[max(0, len(values) // 3 - 1)]
        return objective > last

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study: a failed trial as failed and a stopped one as pruned, never as a value."""
        trial = self.running.pop(trial_id)
        self.told.append(trial_id)
        if isinstance(trial, Suggestion):
            self._add(trial_id, trial, None if error else result)
        elif error or result is None:
            trial.set_user_attr(FAILED, True)
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            trial.set_constraint("target", result["violation"])
            stopped = result.get("stopped")
            self.study.tell(trial, None if stopped else result["objective"], state=_state(result))

    def resume(self, trial_id: str, suggestion: Suggestion) -> None:
        """Take over a trial; the study hears of it as it ends, or has it in its journal already."""
        self.asked += 1
        self.running[trial_id] = suggestion
        self.known[trial_id] = len(self.told)

    def _add(self, trial_id: str, suggestion: Suggestion, result: dict[str, Any] | None) -> None:
        """Add a trial that this process did not ask the study for."""
        rungs: dict[int, float] = (result or {}).get("at_rungs", {})
        for rung, value in rungs.items():
            self.at_rungs[rung][trial_id] = value
        if trial_id in self.kept:
            return
        state = _state(result)
        trial = optuna.trial.create_trial(
            params={name: suggestion.values[name] for name in self.distributions},
            distributions=self.distributions,
            value=result["objective"] if result is not None and state == TrialState.COMPLETE else None,
            state=state,
            intermediate_values=rungs,
            user_attrs={"trial": trial_id} | ({FAILED: True} if result is None else {}),
            constraints=None if result is None else {"target": result["violation"]},
        )
        self.study.add_trial(trial)


def _state(result: dict[str, Any] | None) -> TrialState:
    """What a trial's end is to the study: one that was stopped is pruned, and never has a value."""
    if result is None:
        return TrialState.FAIL
    return TrialState.PRUNED if result.get("stopped") else TrialState.COMPLETE


def open_journal(path: Path) -> BaseStorage:
    """Optuna's storage in one file, several studies in it; while one of them is open, the next one shares it."""
    place = str(path.absolute())
    storage = _OPEN.get(place)
    if storage is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage = _OPEN[place] = JournalStorage(JournalFileBackend(place))
    return storage
