"""Optuna's TPE as a sampler, with constraints and failed trials told as such."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.trial import TrialState

from ms_automl.tuning.sampling import Render, Sampler
from ms_automl.tuning.spaces import optuna_distributions
from search_spaces import Parameter


class OptunaSearch(Sampler):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), its arguments pinned.

    Optuna's defaults differ between 4.x and 5.x, so none that does is relied on. Trials come one after
    another, so no constant liar is needed. A quarter of the trials (at least 2, at most Optuna's 10) start at
    random.

    Args:
        parameters: what is searched.
        render: values to a trial.
        seed: of the sampler.
        trials: how many the budget allows.
    """

    def __init__(self, parameters: tuple[Parameter, ...], render: Render, seed: int, trials: int) -> None:
        super().__init__()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=min(10, max(2, trials // 4)),
            n_ei_candidates=24,
            seed=seed,
            multivariate=True,
            group=False,
            constant_liar=False,
        )
        self.study = optuna.create_study(sampler=sampler, pruner=optuna.pruners.NopPruner(), direction="minimize")
        self.distributions = optuna_distributions(parameters)
        self.render = render
        self.running: dict[str, optuna.trial.Trial] = {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial; never finished."""
        trial = self.study.ask(self.distributions)
        self.running[trial_id] = trial
        return {"suggestion": self.render(dict(trial.params))}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study; a failed trial is told as failed, never as a value."""
        trial = self.running.pop(trial_id)
        if error or result is None:
            self.study.tell(trial, state=TrialState.FAIL)
            return
        trial.set_constraint("target", result["violation"])
        self.study.tell(trial, result["objective"])
