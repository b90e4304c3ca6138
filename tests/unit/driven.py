"""Samplers, driven through a budget by hand."""

from dataclasses import replace

from ms_automl.config import load_config
from ms_automl.meta import LambdaSchedule
from ms_automl.samplers.arms import ARMS
from ms_automl.samplers.base import Answer, Observation, Result, SamplerInputs
from search_spaces import SPACES

LAYERS = ("stem", "block1.conv1", "block1.conv2")
SLOW = ("optuna-gp", "optuna-level", "smac", "smac-level")
"""Arms whose model takes seconds to answer."""
TUNED = "tune.training.lr="
"""Without a setting to tune there is nothing to search for `meta-in-optuna`."""
FREE = [name for name in ARMS if name not in SLOW]
LOW, HIGH = 0.01, 1.0
LEARNED = LambdaSchedule(LAYERS, ((0.1, 0.2, 0.05), (0.2, 0.4, 0.1)))


def make_space(name):
    return SPACES[name](LAYERS, (LOW, HIGH))


def lambdas(suggestion):
    return [value for row in suggestion.params["schedule"]["values"] for value in row]


def usual(suggestion):
    """An objective that depends on what is suggested and on nothing else."""
    values = list(suggestion.values.values())
    return sum((v - 0.3) ** 2 for v in values) + len(values)


class Driven:
    """A sampler with the trials that it has suggested.

    Args:
        sampler: what is asked; asked twice, it must say the same.
        reports: of a whole trial.
    """

    def __init__(self, sampler, reports=8):
        self.sampler, self.reports = sampler, reports
        self.trials = []

    def ask(self):
        """The next trial, which runs then."""
        answer = self.sampler.ask(self.trials)
        assert self.sampler.ask(self.trials) == answer
        if not isinstance(answer, Answer):
            self.trials.append(Observation(f"t{len(self.trials):02d}", answer, self.known))
        return answer

    @property
    def known(self):
        return next((n for n, trial in enumerate(self.trials) if not trial.ended), len(self.trials))

    def end(self, index, objective=None, **result):
        """A trial ends; it failed without an objective."""
        trial = self.trials[index]
        if trial.suggestion.method == "meta_sparsity":
            result = {"schedule": LEARNED.to_dict(), "sparsity": 0.84} | result
        ended = None if objective is None else Result(objective, **result)
        self.trials[index] = replace(trial, ended=True, result=ended)
        self.sampler.record(self.trials[index])

    def rung(self, index, report, objective):
        """A trial is at a report; whether it stops there."""
        stops = self.sampler.stops(self.trials, index, report, objective)
        if report in self.sampler.rungs:
            trial = self.trials[index]
            self.trials[index] = replace(trial, at_rungs=trial.at_rungs | {report: objective})
        return stops

    def step(self, objective=usual):
        """The next trial, from its beginning to its end."""
        suggestion = self.ask()
        if isinstance(suggestion, Answer):
            return suggestion
        index, value = len(self.trials) - 1, objective(suggestion)
        reports = range(1, (suggestion.until or self.reports) + 1)
        stopped = any(self.rung(index, report, value) for report in reports)
        self.end(index, value, stopped=stopped or suggestion.until is not None)
        return suggestion

    def run(self, count, objective=usual):
        return [self.step(objective) for _ in range(count)]


def driven(arm, *settings, journal=None, trials=16, seed=0):
    """The sampler of an arm."""
    tuned = [TUNED] if arm == "meta-in-optuna" else []
    config = load_config(
        "smoke", settings=[f"budget.trials={trials}", "training.report_every=5", *tuned, *settings]
    )
    given = SamplerInputs(config, make_space("per_layer"), config.lambda_.stated, seed, config.objective, journal)
    return Driven(ARMS[arm].sampler(given), config.training.reports)
