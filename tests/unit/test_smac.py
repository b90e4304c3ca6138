"""SMAC as a sampler."""

import sys

import pytest

from ms_automl.errors import ConfigError
from ms_automl.samplers.base import Observation, fixed_lambda
from ms_automl.samplers.smac import SmacSearch
from tests.unit.driven import HIGH, LOW, Driven, lambdas, make_space
from tests.unit.test_samplers import log_distance


def search(seed: int = 0, trials: int = 8) -> SmacSearch:
    space = make_space("scalar")
    return SmacSearch(space.parameters, fixed_lambda(space), seed, trials)


@pytest.fixture(scope="module")
def eight():
    return Driven(search()).run(8, log_distance)


def test_it_begins_with_a_design_and_comes_close_to_the_optimum(eight):
    proposed = [lambdas(one)[0] for one in eight]
    assert all(LOW * (1 - 1e-9) <= value <= HIGH * (1 + 1e-9) for value in proposed)
    assert len(set(proposed)) == 8
    assert min(map(log_distance, eight[2:])) < min(map(log_distance, eight[:2]))


def test_a_seed_fixes_what_is_proposed_and_another_changes_it(eight):
    assert Driven(search()).run(6, log_distance) == eight[:6]
    assert Driven(search(seed=1)).run(3, log_distance) != eight[:3]


def test_it_goes_on_after_a_stop_as_if_there_had_been_none(eight):
    driven = Driven(search())
    driven.run(5, log_distance)
    driven.sampler = search()  # a new process knows the trials alone
    assert driven.run(2, log_distance)[-2:] == eight[5:7]


def test_a_failure_counts_against_what_was_tried(eight):
    driven = Driven(search())
    driven.ask()
    driven.end(0)
    assert driven.ask() == eight[1]  # of the design
    driven.end(1, 0.5)
    driven.ask()
    driven.end(2, 0.1, violation=0.3)
    driven.ask()
    costs = [value.cost for value in driven.sampler._smac.runhistory.values()]  # the last one runs
    assert costs[:3] == [10.0, 0.5, pytest.approx(3.1)]


def test_what_was_run_counts_and_not_what_would_be_suggested():
    driven = Driven(search())
    foreign = driven.sampler.render({"lambda": 0.31})
    driven.trials.append(Observation("t00", foreign, 0))
    driven.end(0, 0.2)
    driven.ask()
    history = driven.sampler._smac.runhistory
    told = {value.cost: history.get_config(key.config_id)["lambda"] for key, value in history.items()}
    assert told[0.2] == pytest.approx(0.31)


def test_a_missing_package_is_said_in_a_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "smac", None)
    with pytest.raises(
        ConfigError, match=r"need the package smac: pip install 'ms_automl\[smac\]', or leave them out"
    ):
        search()
