"""Samplers behind Ray Tune's interface."""

import pytest
from ray.tune.search import Searcher

from ms_automl.comparison.run import Start, Suggestion
from ms_automl.errors import ConfigError
from ms_automl.samplers.base import ListedTrials, fixed_lambda
from ms_automl.samplers.optuna import OptunaSearch
from ms_automl.tuning.searcher import MetaSparsitySearcher, as_searcher
from tests.unit.driven import LEARNED, Driven, driven, make_space, usual


def asked(searcher, name, sign=1):
    """One trial, from its suggestion to its end."""
    config = searcher.suggest(name)
    values = config["values"].values()
    result = {"J": sign * (sum((value - 0.3) ** 2 for value in values) + len(values))}
    if config["method"] == "meta_sparsity":
        result["schedule"] = LEARNED.to_dict()
    searcher.on_trial_complete(name, result)
    return config


def meta(seed=0):
    return MetaSparsitySearcher(make_space("per_layer"), seed, metric="J", mode="min")


def test_it_is_a_searcher_of_ray_tune_that_suggests_what_its_sampler_does():
    searcher, run = meta(), driven("meta-search")
    assert isinstance(searcher, Searcher)
    configs = [asked(searcher, f"t{index}") for index in range(9)]
    assert [config["values"] for config in configs] == [one.values for one in run.run(9)]
    assert configs[0] == {"method": "meta_sparsity", "params": {}, "values": {}}


def test_it_waits_for_the_learned_lambda_and_is_finished_where_there_is_none():
    searcher = meta()
    searcher.suggest("a")
    assert searcher.suggest("b") is None
    searcher.on_trial_complete("a", error=True)
    assert searcher.suggest("b") == Searcher.FINISHED


def test_the_metric_and_its_direction_are_the_tuners_where_it_has_none_of_its_own():
    space = make_space("scalar")
    lower, higher = (as_searcher(OptunaSearch(space.parameters, fixed_lambda(space), 0, 8)) for _ in range(2))
    assert lower.set_search_properties("J", "min", {}) and higher.set_search_properties("J", "max", {})
    for index in range(12):
        assert asked(lower, f"t{index}") == asked(higher, f"t{index}", -1)
    assert not lower.set_search_properties("J", "min", {"lambda": 0.1}), "its space is the sampler's"


def test_it_goes_on_from_what_it_saved(tmp_path):
    whole, cut, after = meta(3), meta(3), meta(3)
    wanted = [asked(whole, f"t{index}") for index in range(9)]
    for index in range(5):
        asked(cut, f"t{index}")
    cut.save(str(tmp_path / "searcher"))
    after.restore(str(tmp_path / "searcher"))
    assert [asked(after, f"t{index}") for index in range(5, 9)] == wanted[5:]


def test_ends_out_of_their_order_are_known_up_to_the_first_that_runs():
    space = make_space("scalar")
    searcher = as_searcher(OptunaSearch(space.parameters, fixed_lambda(space), 0, 8), "J", "min")
    run = Driven(OptunaSearch(space.parameters, fixed_lambda(space), 0, 8))
    configs = [searcher.suggest(f"t{index}") for index in range(4)]
    suggestions = [run.ask() for _ in range(4)]
    for index in (2, 0, 3):
        searcher.on_trial_complete(f"t{index}", {"J": usual(suggestions[index])})
    run.end(0, usual(suggestions[0]))
    assert [config["values"] for config in configs] == [one.values for one in suggestions]
    assert searcher.suggest("t4")["values"] == run.ask().values


@pytest.mark.parametrize("arm", ["optuna-asha", "path", "topk"])
def test_a_sampler_that_stops_trials_or_builds_one_on_another_is_refused(arm):
    with pytest.raises(ConfigError, match="a Ray searcher cannot"):
        as_searcher(driven(arm).sampler)


def test_so_is_one_that_does_so_later():
    class Warm(ListedTrials):
        """Begins from another trial, and does not say so beforehand."""

    searcher = as_searcher(Warm([Suggestion("fixed_lambda", {}, {}, start=Start("weights", "a"))]))
    with pytest.raises(ConfigError, match="Warm builds trials on others"):
        searcher.suggest("a")
