"""The proximal step in a diagonal metric, as a problem solved, in place and as a differentiable function."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ms_automl.sparsity import GROUPINGS, METRICS, Groups, prox_, proximal, thresholds

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
    prox_(groups, threshold, metric)
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
    prox_(other, value * threshold, [torch.full_like(weight, value) for weight in other.weights])
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
    prox_(double, threshold, metric)
    prox_(single, threshold.float(), [d.float() for d in metric])
    for one, other in zip(single.weights, double.weights, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=2e-6 * scale)


@each_grouping
@pytest.mark.parametrize("metric", ["euclidean", "diagonal"])
def test_the_pure_step_is_the_one_in_place_and_its_derivative_that_of_differences(
    grouping: str, metric: str, make_groups: MakeGroups
) -> None:
    groups = doubled(make_groups([(2, 3, 1), (3, 2, 1)], (1,), grouping=grouping))
    start = [weight.detach().clone() for weight in groups.weights]
    start[0][0] = 0  # a group, or a part of one, that is gone
    diagonal = [0.5 + 100 * d for d in some_metric(groups, 2.0)]
    rho = torch.full((len(groups.names),), 0.5, dtype=torch.float64, requires_grad=True)

    def run(rho: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        weights, d = tensors[:2], tensors[2:] or None
        return tuple(proximal(groups, weights, thresholds(groups, rho.exp(), 0.4), d))

    inputs = [*start, *diagonal] if metric == "diagonal" else start
    moved = run(rho, *inputs)
    for weight, value in zip(groups.weights, start, strict=True):
        weight.data = value.clone()
    prox_(groups, thresholds(groups, rho.detach().exp(), 0.4), diagonal if metric == "diagonal" else None)
    assert 0 < int((groups.norms() == 0).sum()) < len(groups.size)
    for one, other in zip(moved, groups.weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-12)
    assert torch.autograd.gradcheck(run, (rho, *(tensor.requires_grad_() for tensor in inputs)))


@each_grouping
@pytest.mark.parametrize("strength", [0.0, 0.1, 1e6])
def test_zero_groups_and_a_zero_metric_give_no_nan(
    grouping: str, strength: float, make_groups: MakeGroups
) -> None:
    groups = make_groups(SHAPES, (1,), grouping=grouping)
    metric = some_metric(groups, 2.0)
    with torch.no_grad():
        groups.weights[0][:, 0] = 0
        groups.weights[1].zero_()
        metric[2][:, 0] = 0
        metric[0][1] = 0
    inputs = [torch.full_like(groups.size, strength), *groups.weights, *metric]
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    moved = proximal(groups, inputs[1:4], inputs[0], inputs[4:])
    found = torch.autograd.grad(sum(part.sum() for part in moved), inputs)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in (*moved, *found))


@each_grouping
@pytest.mark.parametrize("name", METRICS)
def test_a_strength_of_zero_changes_no_bit(grouping: str, name: str, make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES, grouping=grouping)
    before = [weight.detach().clone() for weight in groups.weights]
    metric = None if name == "euclidean" else some_metric(groups, 4.0)
    prox_(groups, torch.zeros_like(groups.size), metric)
    assert all(torch.equal(one, other) for one, other in zip(groups.weights, before, strict=True))


@each_grouping
def test_the_signal_passes_in_adams_metric_too(grouping: str, make_groups: MakeGroups) -> None:
    removable = () if grouping == "coupled" else (1,)  # what reads a stream that is gone is gone with it
    groups = make_groups(SHAPES, removable, grouping=grouping)
    metric = some_metric(groups, 4.0)
    prox_(groups, torch.full_like(groups.size, 1e6), metric)
    kept = groups.layer_sum((groups.norms() > 0).float())
    assert kept.tolist() == [1, 0 if removable else 1, 1]


def test_adams_metric_is_what_its_step_was_divided_by() -> None:
    weights = [torch.nn.Parameter(torch.randn(2, 3)), torch.nn.Parameter(torch.ones(2))]
    optimizer = torch.optim.AdamW(weights, lr=0.1, weight_decay=0.0, eps=1e-3)
    for step in range(3):
        weights[0].grad = torch.randn(2, 3, generator=torch.Generator().manual_seed(step))
        before = weights[0].detach().clone()
        optimizer.step()
    used, unused = METRICS["adam"](optimizer, weights)
    momentum = optimizer.state[weights[0]]["exp_avg"] / (1 - 0.9**3)
    torch.testing.assert_close(before - 0.1 * momentum / used, weights[0].detach())
    assert torch.equal(unused, torch.full((2,), 1e-3))
    assert METRICS["euclidean"](optimizer, weights) is None
