"""Samplers of arms, driven through a budget by hand."""

from ms_automl.config import load_config
from ms_automl.meta import LambdaSchedule
from ms_automl.samplers.arms import ARMS, SamplerInputs
from search_spaces import SPACES

LAYERS = ("stem", "block1.conv1", "block1.conv2")
LOW, HIGH = 0.01, 1.0
LEARNED = LambdaSchedule(LAYERS, ((0.1, 0.2, 0.05), (0.2, 0.4, 0.1)))


def make_space(name):
    return SPACES[name](LAYERS, (LOW, HIGH))


def lambdas(suggestion):
    return [value for row in suggestion.params["schedule"]["values"] for value in row]


class Driven:
    """An arm's sampler, told an objective that depends on what it suggests and on nothing else."""

    def __init__(self, arm, journal=None, trials=16, seed=0):
        config = load_config("smoke", settings=[f"budget.trials={trials}", "training.report_every=5"])
        stage = SamplerInputs(config, make_space("per_layer"), seed, journal)
        self.sampler, self.reports = ARMS[arm].sampler(stage), stage.reports
        self.records = []

    def step(self):
        name = f"t{len(self.records):02d}"
        answer = self.sampler.suggest(name)
        if not isinstance(answer, dict):
            return answer
        suggestion = answer["suggestion"]
        values = list(suggestion.values.values())
        told = {"objective": sum((v - 0.3) ** 2 for v in values) + len(values), "violation": 0.0, "schedule": None}
        if suggestion.method == "meta_sparsity":
            told["schedule"] = LEARNED.to_dict()
        last = suggestion.until or self.reports
        told["at_rungs"] = {}
        stopped = False
        for report in range(1, last + 1):
            stopped = self.sampler.on_report(name, report, told["objective"])
            if report in self.sampler.rungs:
                told["at_rungs"][report] = told["objective"]
            if stopped:
                break
        told["stopped"] = stopped or suggestion.until is not None
        self.records.append((name, suggestion, told))
        self.sampler.on_trial_complete(name, told)
        return suggestion

    def run(self, count):
        return [self.step() for _ in range(count)]
