"""SMAC's search over some parameters, by the package smac (an extra)."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from ms_automl.comparison.registry import Parameter
from ms_automl.comparison.run import Suggestion
from ms_automl.errors import ConfigError
from ms_automl.samplers.base import Observation, Render, Sampler

MISSED = 10.0
"""J that a miss of the whole target counts as: SMAC knows no constraints."""


class SmacSearch(Sampler):
    """Sequential model-based optimisation with a random forest (Lindauer et al. 2022, arXiv 2109.09831).

    A quarter of the ``trials`` that the budget allows (at least 2, at most 10) are SMAC's initial design. It is
    asked and told in the order in which the trials were suggested and their ends known, from the first one on
    where it was not there: what it suggests depends on seed and trials alone.

    Args:
        parameters: to search.
        render: makes a trial of values.
        seed: of what SMAC draws.
        trials: that the budget allows.

    Raises:
        ConfigError: without the package smac.
    """

    def __init__(self, parameters: tuple[Parameter, ...], render: Render, seed: int, trials: int) -> None:
        try:
            import smac  # noqa: F401 - whether it is there
        except ImportError as error:
            raise ConfigError(
                "arms 'smac' and 'smac-level' need the package smac: pip install 'ms_automl[smac]', or leave them "
                "out"
            ) from error
        self.parameters, self.render, self.seed = parameters, render, seed
        self.startup = min(10, max(2, trials // 4))
        self._begin()

    def _begin(self) -> None:
        from ConfigSpace import ConfigurationSpace, Float, Integer
        from smac import HyperparameterOptimizationFacade as Facade
        from smac import Scenario

        self._space = space = ConfigurationSpace(seed=self.seed)
        for (
            p
        ) in self.parameters:  # of choices the number: SMAC tells configurations apart by how values are written
            ranged = not p.choices and Float(p.name, (p.low, p.high), log=p.scale == "log")
            space.add(ranged or Integer(p.name, (0, len(p.choices) - 1)))
        folder = Path(tempfile.mkdtemp(prefix="smac-"))  # it writes files, whether one wants them or not
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        scenario = Scenario(space, n_trials=10**6, seed=self.seed, deterministic=True, output_directory=folder)
        self._smac: Any = Facade(
            scenario,
            _never,
            initial_design=Facade.get_initial_design(scenario, n_configs=self.startup),
            config_selector=Facade.get_config_selector(scenario, retrain_after=1),  # each end counts at once
            overwrite=True,
            logging_level=False,
        )
        self._asked: list[Any] = []  # SMAC's own record of each trial, in their order
        self._told: list[Observation] = []

    def ask(self, trials: Sequence[Observation]) -> Suggestion:
        """The next trial; never done."""
        ended = list(takewhile(lambda trial: trial.ended, trials))
        if self._told != ended[: len(self._told)] or len(trials) < len(self._asked) - 1:
            self._begin()
        for trial in trials[len(self._asked) :]:
            self._tell(ended[: trial.known])
            self._asked.append(self._smac.ask())
        if len(self._asked) == len(trials):
            self._tell(ended)
            self._asked.append(self._smac.ask())
        values = self._asked[len(trials)].config
        chosen = {p.name: p.choices[values[p.name]] if p.choices else values[p.name] for p in self.parameters}
        return self.render({name: float(value) for name, value in chosen.items()})

    def _tell(self, ended: Sequence[Observation]) -> None:
        from ConfigSpace import Configuration
        from smac.runhistory.dataclasses import TrialInfo, TrialValue
        from smac.runhistory.enumerations import StatusType

        for trial, asked in zip(ended[len(self._told) :], self._asked[len(self._told) :], strict=False):
            # What was run, even where another version of SMAC had suggested it.
            values = dict(trial.suggestion.values)
            values |= {p.name: p.choices.index(values[p.name]) for p in self.parameters if p.choices}
            values = {p.name: values[p.name] for p in self.parameters}
            info = TrialInfo(Configuration(self._space, values=values), seed=asked.seed)
            result = trial.result
            if result is None:
                value = TrialValue(cost=MISSED, status=StatusType.CRASHED)
            else:
                value = TrialValue(cost=result.objective + MISSED * max(0.0, result.violation))
            self._smac.tell(info, value)
            self._told.append(trial)


def _never(config: Any, seed: int = 0) -> float:
    raise AssertionError("trials run where every trial runs")
