"""The proximal step in a diagonal metric, as the problem that it solves."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ms_automl.sparsity import GROUPINGS, PROX_METRICS, Groups, prox_

MakeGroups = Callable[..., Groups]
SHAPES = [(3, 4, 3), (4, 2, 1), (2, 5, 3)]
APART = [grouping for grouping in GROUPINGS if grouping != "coupled"]  # no weight in two groups
shapes = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4), st.sampled_from([1, 3])), min_size=1, max_size=4)
given_fixtures = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
each_grouping = pytest.mark.parametrize("grouping", GROUPINGS)


def some_metric(groups: Groups, spread: float, seed: int = 3) -> list[Tensor]:
    """d over ``spread`` orders of magnitude around 1e-3."""
    generator = torch.Generator().manual_seed(seed)
    powers = [spread * (torch.rand(w.shape, generator=generator) - 0.5) - 3 for w in groups.weights]
    return [(10**power).to(groups.size.dtype) for power in powers]


def doubled(groups: Groups) -> Groups:
    for weight in groups.weights:
        weight.data = weight.data.double()
    groups.size = groups.size.double()
    return groups


def lengths(groups: Groups, metric: list[Tensor]) -> Tensor:
    scaled = torch._foreach_mul([weight.detach() for weight in groups.weights], metric)
    return groups.inner(scaled, scaled).sqrt()


@given_fixtures
@given(
    shapes=shapes,
    grouping=st.sampled_from(APART),
    spread=st.floats(0, 8),
    strength=st.floats(0.01, 3),
    seed=st.integers(0, 99),
)
def test_the_step_solves_its_problem_in_any_metric(
    make_groups: MakeGroups,
    shapes: list[tuple[int, int, int]],
    grouping: str,
    spread: float,
    strength: float,
    seed: int,
) -> None:
    groups = doubled(make_groups(shapes, tuple(range(len(shapes))), seed, grouping))
    start = [weight.detach().clone() for weight in groups.weights]
    metric = some_metric(groups, spread, seed)
    reach = lengths(groups, metric)
    threshold = strength * reach.median().expand_as(reach).contiguous()
    prox_(groups, threshold, groups.blocks.join(metric))
    norms = groups.norms()
    dead = norms == 0
    assert torch.equal(dead, reach <= threshold)
    # d (x - z) + τ x / ||x|| = 0, weight by weight, where the group lives
    pull = groups.per_weight(torch.where(dead, 0.0, threshold / torch.where(dead, 1.0, norms)))
    for x, z, d, p in zip(groups.weights, start, metric, pull, strict=True):
        alive = (p > 0).expand_as(x)
        torch.testing.assert_close((d * (z - x))[alive], (p * x)[alive], rtol=1e-6, atol=1e-13)
        assert bool((x[~alive] == 0).all())


@each_grouping
@pytest.mark.parametrize("value", [1.0, 1e-4])
def test_in_a_constant_metric_it_is_the_euclidean_step(
    grouping: str, value: float, make_groups: MakeGroups
) -> None:
    one, other = (doubled(make_groups(SHAPES, (1,), grouping=grouping)) for _ in range(2))
    threshold = 0.9 * one.norms().median().expand_as(one.size)
    prox_(one, threshold)
    constant = torch.full((int(other.total),), value, dtype=torch.float64)
    prox_(other, value * threshold, constant)
    for first, second in zip(one.weights, other.weights, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-14)
        assert torch.equal(first == 0, second == 0)


@each_grouping
@pytest.mark.parametrize("spread", [1.0, 4.0, 8.0])
def test_single_precision_is_enough(grouping: str, spread: float, make_groups: MakeGroups) -> None:
    single, double = make_groups(SHAPES, grouping=grouping), doubled(make_groups(SHAPES, grouping=grouping))
    metric = some_metric(double, spread)
    threshold = 0.8 * lengths(double, metric).median().expand_as(double.size)
    scale = max(float(weight.detach().abs().max()) for weight in double.weights)
    d = double.blocks.join(metric)
    prox_(double, threshold, d)
    prox_(single, threshold.float(), d.float())
    for one, other in zip(single.weights, double.weights, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=2e-6 * scale)


@each_grouping
@pytest.mark.parametrize("strength", [0.0, 0.1, 1e6])
def test_zero_groups_and_a_tiny_metric_give_no_nan(
    grouping: str, strength: float, make_groups: MakeGroups
) -> None:
    groups = make_groups(SHAPES, (1,), grouping=grouping)
    metric = some_metric(groups, 2.0)
    with torch.no_grad():
        groups.weights[0][:, 0] = 0
        groups.weights[1].zero_()
        metric[2][:, 0] = 1e-8
        metric[0][1] = 1e-8
    prox_(groups, torch.full_like(groups.size, strength), groups.blocks.join(metric))
    assert all(bool(torch.isfinite(weight).all()) for weight in groups.weights)
    assert bool((groups.weights[1] == 0).all())


@each_grouping
@pytest.mark.parametrize("name", PROX_METRICS)
def test_a_strength_of_zero_changes_no_bit(grouping: str, name: str, make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES, grouping=grouping)
    before = [weight.detach().clone() for weight in groups.weights]
    metric = None if name == "euclidean" else groups.blocks.join(some_metric(groups, 4.0))
    prox_(groups, torch.zeros_like(groups.size), metric)
    assert all(torch.equal(one, other) for one, other in zip(groups.weights, before, strict=True))


@each_grouping
def test_the_signal_passes_in_adams_metric_too(grouping: str, make_groups: MakeGroups) -> None:
    removable = () if grouping == "coupled" else (1,)  # what reads a stream that is gone is gone with it
    groups = make_groups(SHAPES, removable, grouping=grouping)
    metric = some_metric(groups, 4.0)
    prox_(groups, torch.full_like(groups.size, 1e6), groups.blocks.join(metric))
    kept = groups.layer_sum((groups.norms() > 0).float())
    assert kept.tolist() == [1, 0 if removable else 1, 1]


@pytest.mark.parametrize("apart", [False, True])
def test_adams_metric_is_what_its_step_was_divided_by(apart: bool, make_groups: MakeGroups) -> None:
    groups = make_groups([(3, 4, 3), (4, 3, 1), (3, 4, 3), (4, 4, 1)])
    optimizer = torch.optim.AdamW(groups.weights, lr=0.1, weight_decay=0.0, eps=1e-3)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        for number, weight in enumerate(groups.weights[:3]):
            weight.grad = torch.randn(weight.shape, generator=generator)
            if apart and number == 0 and step == 0:
                weight.grad = None
        before = [weight.detach().clone() for weight in groups.weights]
        optimizer.step()
    metric = PROX_METRICS["adam"](optimizer, groups)
    assert metric is not None
    *used, unused = groups.blocks.split(metric)
    for weight, start, d in zip(groups.weights[:3], before[:3], used, strict=True):
        state = optimizer.state[weight]
        momentum = state["exp_avg"] / (1 - 0.9 ** float(state["step"]))
        torch.testing.assert_close(start - 0.1 * momentum / d, weight.detach())
    assert torch.equal(unused, torch.full_like(unused, 1e-3))
    assert PROX_METRICS["euclidean"](optimizer, groups) is None
