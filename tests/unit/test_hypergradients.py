"""Every estimator against central differences of whole short trainings, in float64."""

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from benchmarks.hypergradient_accuracy import FAST, SETTINGS, ShortRun, cosine, relative_error, start
from ms_automl.meta.hypergradients import ESTIMATORS
from ms_automl.meta.learners import LEARNERS
from ms_automl.models.cost import Cost

LAYERS, SHARED = [0, 1, 2], [0, 0, 0]


class Truth:
    """Short runs and their finite differences, taken once."""

    def __init__(self) -> None:
        self.runs = {name: ShortRun(settings) for name, settings in SETTINGS.items()}
        self.slopes = {
            (name, len(set(ties))): run.difference(start(name), ties)
            for name, run in self.runs.items()
            for ties in (LAYERS, SHARED)
        }
        self.dead = {name: run.patterns[-1].count(False) for name, run in self.runs.items()}

    def __call__(self, optimizer: str, ties: list[int]) -> Tensor:
        return self.slopes[optimizer, len(set(ties))]


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth()


each_optimizer = pytest.mark.parametrize("optimizer", list(SETTINGS))
each_tie = pytest.mark.parametrize("ties", [LAYERS, SHARED], ids=["per layer", "one λ"])


@each_optimizer
def test_the_short_runs_have_dead_and_living_groups_and_slopes_that_matter(truth: Truth, optimizer: str) -> None:
    assert 1 <= truth.dead[optimizer] <= 8
    assert len(truth.runs[optimizer].patterns[-1]) == 13
    assert float(truth(optimizer, LAYERS).abs().max()) > 1e-3
    assert float(truth(optimizer, LAYERS).sum()) == pytest.approx(float(truth(optimizer, SHARED)), rel=1e-4)


@each_optimizer
@each_tie
@pytest.mark.parametrize("name", ["forward_exact", "unrolled"])
def test_the_exact_estimators_are_the_derivative_of_the_whole_run(
    truth: Truth, name: str, ties: list[int], optimizer: str
) -> None:
    found = truth.runs[optimizer].estimate(name, start(optimizer), ties, unroll=8)
    assert relative_error(found, truth(optimizer, ties)) < 1e-6


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_the_exact_estimator_holds_for_other_momenta_too(momentum: float) -> None:
    run = ShortRun(replace(SETTINGS["sgd"], momentum=momentum, steps=5, report_every=5))
    found = run.estimate("forward_exact", start("sgd"), SHARED)
    assert relative_error(found, run.difference(start("sgd"), SHARED)) < 1e-6


COSINES: dict[tuple[str, float], tuple[float, float]] = {
    # (estimator, γ or K): cosine to the finite differences under SGD and under AdamW, as measured
    ("one_step", 0): (0.926, 0.957),
    ("forward", 0.9): (0.995, 0.952),
    ("forward", 0.99): (0.996, 0.951),
    ("forward", 1.0): (0.997, 0.951),
    ("unrolled_first_order", 5): (0.979, 0.956),
    ("unrolled_first_order", 8): (0.997, 0.951),
    ("unrolled", 5): (0.996, 0.965),
    ("implicit_neumann", 8): (0.939, 0.960),
    ("implicit_cg", 8): (0.990, 0.874),
}


@each_optimizer
@pytest.mark.parametrize(("name", "value"), COSINES)
def test_the_approximate_estimators_point_where_the_derivative_points(
    truth: Truth, name: str, value: float, optimizer: str
) -> None:
    run = truth.runs[optimizer]
    changes = {"decay": value} if name == "forward" else {"unroll": max(1, int(value))}
    found = run.estimate(name, start(optimizer), LAYERS, **changes)  # type: ignore[arg-type]
    expected = COSINES[name, value][list(SETTINGS).index(optimizer)]
    assert cosine(found, truth(optimizer, LAYERS)) == pytest.approx(expected, abs=0.003)
    total = run.estimate(name, start(optimizer), SHARED, **changes)  # type: ignore[arg-type]
    assert float(total * truth(optimizer, SHARED)) > 0
    assert float(total) == pytest.approx(float(found.sum()), rel=1e-9)  # one λ is the sum over layers


def test_in_a_fast_training_the_exact_slope_is_right_where_estimators_without_hessian_have_its_sign_wrong() -> (
    None
):
    expected = FAST.difference(start("sgd"), SHARED)
    assert relative_error(FAST.estimate("forward_exact", start("sgd"), SHARED), expected) < 1e-6
    wrong = FAST.estimate("forward", start("sgd"), SHARED, decay=0.99)
    assert float(wrong / expected) == pytest.approx(-2.225, abs=0.01)


@each_optimizer
def test_a_longer_memory_comes_nearer_to_the_derivative(truth: Truth, optimizer: str) -> None:
    run, expected = truth.runs[optimizer], truth(optimizer, LAYERS)

    def error(name: str, **changes: float) -> float:
        return relative_error(run.estimate(name, start(optimizer), LAYERS, **changes), expected)  # type: ignore[arg-type]

    assert error("one_step") > error("forward", decay=0.9) > error("forward", decay=0.99)
    for name in ("unrolled", "unrolled_first_order"):
        errors = [error(name, unroll=unroll) for unroll in (1, 3, 5, 8)]
        assert errors == sorted(errors, reverse=True)
    assert error("unrolled", unroll=5) < error("unrolled_first_order", unroll=5)


@each_optimizer
def test_one_unrolled_step_and_one_implicit_term_are_the_one_step_estimator(truth: Truth, optimizer: str) -> None:
    run = truth.runs[optimizer]
    expected = run.estimate("one_step", start(optimizer), LAYERS)
    for name in ("unrolled", "unrolled_first_order", "implicit_neumann"):
        found = run.estimate(name, start(optimizer), LAYERS, unroll=1)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-16)
        assert run.cost == Cost()


def test_first_order_unrolling_of_all_steps_is_forward_with_the_weight_decay_as_decay() -> None:
    settings = replace(SETTINGS["sgd"], weight_decay=0.0)
    run = ShortRun(settings)
    backward = run.estimate("unrolled_first_order", start("sgd"), LAYERS, unroll=8)
    torch.testing.assert_close(
        backward, run.estimate("forward", start("sgd"), LAYERS, decay=1.0), rtol=1e-10, atol=0
    )


@each_optimizer
@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_an_estimator_costs_the_products_that_its_row_of_the_table_says(
    truth: Truth, name: str, optimizer: str
) -> None:
    run = truth.runs[optimizer]
    run.estimate(name, start(optimizer), LAYERS, unroll=4)
    settings = LEARNERS[name].settings
    unrolls = {"unroll": 4} if "unroll" in {field.name for field in fields(settings)} else {}
    every = settings(learner=name, every=7, **unrolls)  # at steps 0 and 7; the run has the second alone
    expected = ESTIMATORS[name].products(every, 8, 3) - ESTIMATORS[name].products(every, 1, 3)
    assert run.cost == Cost(hessian=6 * expected)
    assert (expected > 0) == (name in ("forward_exact", "unrolled", "implicit_cg", "implicit_neumann"))


@each_optimizer
def test_estimating_changes_neither_the_training_nor_batch_norms_averages(truth: Truth, optimizer: str) -> None:
    run = truth.runs[optimizer]
    run.value(start(optimizer))
    expected = {name: value.clone() for name, value in run.loop.network.state_dict().items()}
    for name in ESTIMATORS:
        run.estimate(name, start(optimizer), SHARED)
        found = run.loop.network.state_dict()
        assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_a_group_that_dies_answers_nothing_and_the_exact_slope_stays_finite() -> None:
    run = ShortRun(SETTINGS["adamw"])
    deadly = torch.full((3,), math.log(1e4), dtype=torch.float64)
    for name in ESTIMATORS:
        found = run.estimate(name, deadly, LAYERS)
        assert bool(torch.isfinite(found).all())
        assert float(found.abs().max()) == 0
    assert run.patterns[-1].count(True) == 3  # one kept in each layer, none of them shrunk
