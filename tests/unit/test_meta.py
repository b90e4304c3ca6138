import json
import math
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ms_automl.data import Batch, MultiTaskData
from ms_automl.errors import ConfigError
from ms_automl.meta import KNOTS, LambdaSchedule, Objective
from ms_automl.meta.forward import ForwardLearner, outer_updates
from ms_automl.meta.objective import REFERENCE_FLOOR, delta_m
from ms_automl.meta.outer import episode, outer_gradient
from ms_automl.meta.sensitivity import Sensitivity, live_width
from ms_automl.meta.waterfill import WaterfillLearner
from ms_automl.models import MultiTaskNet
from ms_automl.sparsity import ChannelGroups, TaylorImportance, measure, shrink_factors, thresholds
from ms_automl.tasks import depth, segmentation

MakeGroups = Callable[..., ChannelGroups]
SHAPES = [(4, 3, 1), (3, 4, 3), (4, 2, 1)]


@pytest.fixture
def groups64(make_groups: MakeGroups) -> ChannelGroups:
    return doubled(make_groups(SHAPES, removable=(1,)))


def doubled(groups: ChannelGroups) -> ChannelGroups:
    for weight in groups.weights:
        weight.data = weight.data.double()
    groups.size = groups.size.double()
    return groups


# ---- schedule -------------------------------------------------------------------------------------------


def test_lambda_is_linear_between_knots_and_constant_outside() -> None:
    schedule = LambdaSchedule(("a", "b"), ((0.01, 1.0), (1.0, 1.0), (4.0, 0.25)))
    for phase, expected in {0: (0.01, 1), 0.25: (0.505, 1), 0.5: (1, 1), 0.75: (2.5, 0.625), 1: (4, 0.25)}.items():
        assert schedule.lambda_at(phase).tolist() == pytest.approx(expected)
    assert torch.equal(schedule.lambda_at(1.7), schedule.lambda_at(1))
    assert torch.equal(schedule.lambda_at(-0.1), schedule.lambda_at(0))


def test_a_constant_is_the_same_throughout() -> None:
    schedule = LambdaSchedule.constant({"a": 0.3, "b": 0.0})
    assert schedule.layers == ("a", "b")
    for phase in (0.0, 0.3, 1.0):
        assert schedule.lambda_at(phase).tolist() == pytest.approx([0.3, 0.0])


def test_a_lambda_of_zero_is_exactly_zero() -> None:
    schedule = LambdaSchedule(("a",), ((0.0,), (0.0,), (0.05,)))
    assert schedule.lambda_at(0).item() == 0
    assert schedule.lambda_at(0.3).item() == 0
    assert schedule.lambda_at(0.75).item() == pytest.approx(0.025)
    assert schedule.lambda_at(1).item() == pytest.approx(0.05)


def test_shares_are_linear_between_knots_and_missing_where_all_groups_are_touched() -> None:
    schedule = LambdaSchedule(("a",), ((0.1,), (0.2,)), ((0.0,), (0.8,)))
    found = schedule.shares_at(0.25)
    assert found is not None
    assert found.tolist() == pytest.approx([0.2])
    assert LambdaSchedule.constant({"a": 1}).shares_at(0.5) is None


@given(
    st.lists(st.lists(st.floats(0, 1e6), min_size=2, max_size=2), min_size=1, max_size=8),
    st.booleans(),
    st.floats(0, 1),
)
def test_a_schedule_survives_json(values: list[list[float]], shared: bool, phase: float) -> None:
    shares = tuple((0.25, 1.0) for _ in values) if shared else None
    schedule = LambdaSchedule(("a", "b"), tuple(map(tuple, values)), shares)
    again = LambdaSchedule.from_dict(json.loads(json.dumps(schedule.to_dict())))
    assert again == schedule
    assert torch.equal(again.lambda_at(phase), schedule.lambda_at(phase))


def test_scaling_multiplies_each_layer_and_clipping_bounds_all() -> None:
    schedule = LambdaSchedule(("a", "b"), ((0.1, 1.0), (0.2, 2.0)), ((0.5, 0.5), (1.0, 1.0)))
    scaled = schedule.scaled([2.0, 0.5])
    assert scaled.values == ((0.2, 0.5), (0.4, 1.0))
    assert scaled.clipped(0.3, 0.9).values == ((0.3, 0.5), (0.4, 0.9))
    assert scaled.shares == scaled.clipped(0.3, 0.9).shares == schedule.shares


@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf])
def test_a_lambda_that_is_negative_or_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=r"λ must be finite, `λ >= 0`"):
        LambdaSchedule.constant({"a": 0.1, "b": value})


@pytest.mark.parametrize(
    ("values", "shares"),
    [
        ((), None),
        (((0.1,),), None),
        (((0.1, 0.1),), ((0.5,),)),
        (((0.1, 0.1),), ((0.5, 1.5),)),
        (((0.1, 0.1),), ((0.5, math.nan),)),
        (((0.1, 0.1),), ()),
    ],
)
def test_knots_that_do_not_fit_the_layers_are_refused(values: object, shares: object) -> None:
    with pytest.raises(ConfigError, match="for each of 2 layers"):
        LambdaSchedule(("a", "b"), values, shares)  # type: ignore[arg-type]


# ---- sensitivity ----------------------------------------------------------------------------------------


def run_prox(groups: ChannelGroups, start: list[Tensor], rho: Tensor, decay: float, steps: int) -> Sensitivity:
    """Proximal steps of a falling η alone, without a loss: here the recursion with γ = 1 is exact."""
    for weight, value in zip(groups.weights, start, strict=True):
        weight.data.copy_(value)
    sensitivity = Sensitivity(groups, decay)
    for step in range(steps):
        norms = groups.norms()
        threshold = thresholds(groups, rho.exp(), lr=0.1 / (1 + step))
        factors = shrink_factors(groups, norms, threshold)
        sensitivity.advance(norms, threshold, factors)
        groups.scale_(factors)
    return sensitivity


def finite_difference(
    groups: ChannelGroups, start: list[Tensor], rho: Tensor, steps: int, push: Tensor
) -> list[Tensor]:
    ends = []
    for sign in (1, -1):
        run_prox(groups, start, rho + sign * push, 1.0, steps)
        ends.append([weight.detach().clone() for weight in groups.weights])
    size = 2 * float(push.max())
    return [(after - before) / size for after, before in zip(*ends, strict=True)]


def test_without_decay_the_sensitivity_is_the_derivative_of_a_whole_run_by_layer(groups64: ChannelGroups) -> None:
    start = [weight.detach().clone() for weight in groups64.weights]
    rho = torch.tensor([0.9, 0.7, 0.5], dtype=torch.float64).log()
    for layer in range(3):
        push = torch.zeros(3, dtype=torch.float64)
        push[layer] = 1e-6
        expected = finite_difference(groups64, start, rho, 6, push)
        found = run_prox(groups64, start, rho, 1.0, 6).tensors
        torch.testing.assert_close(found[layer], expected[layer], rtol=1e-6, atol=1e-8)
        assert float(found[layer].abs().max()) > 0.01
        others = [float(expected[index].abs().max()) for index in range(3) if index != layer]
        assert others == [0, 0]  # λ_l moves θ_l only


def test_without_decay_one_lambda_for_all_layers_moves_all_of_them_as_z_says(groups64: ChannelGroups) -> None:
    start = [weight.detach().clone() for weight in groups64.weights]
    rho = torch.full((3,), math.log(0.8), dtype=torch.float64)
    expected = finite_difference(groups64, start, rho, 5, torch.full((3,), 1e-6, dtype=torch.float64))
    for found, wanted in zip(run_prox(groups64, start, rho, 1.0, 5).tensors, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)


def test_a_group_that_dies_or_is_kept_to_pass_the_signal_has_no_sensitivity(groups64: ChannelGroups) -> None:
    start = [weight.detach().clone() for weight in groups64.weights]
    rho = torch.tensor([9.0, 9.0, -1.0], dtype=torch.float64)
    found = run_prox(groups64, start, rho, 1.0, 1)
    assert float(found.tensors[0].abs().max()) == float(found.tensors[1].abs().max()) == 0
    assert float(found.tensors[2].abs().max()) > 0
    assert measure(groups64).layers == {"0": 0.75, "1": 1.0, "2": 0.0}


def test_a_decay_of_zero_sees_the_last_prox_alone(groups64: ChannelGroups) -> None:
    start = [weight.detach().clone() for weight in groups64.weights]
    rho = torch.full((3,), math.log(0.8), dtype=torch.float64)
    run_prox(groups64, start, rho, 0.0, 3)
    before_last = [weight.detach().clone() for weight in groups64.weights]
    found = run_prox(groups64, start, rho, 0.0, 4).tensors
    bound = thresholds(groups64, rho.exp(), lr=0.1 / 4)
    position = 0
    for z, sensitivity in zip(before_last, found, strict=True):
        for c in range(z.shape[1]):
            alive = float(z[:, c].norm()) > float(bound[position])
            expected = -float(bound[position]) * z[:, c] / z[:, c].norm() if alive else torch.zeros_like(z[:, c])
            torch.testing.assert_close(sensitivity[:, c], expected, rtol=1e-9, atol=1e-12)
            position += 1


def test_the_density_slope_is_the_derivative_of_the_smooth_density(groups64: ChannelGroups) -> None:
    start = [weight.detach().clone() for weight in groups64.weights]
    rho = torch.tensor([0.9, 0.7, 0.5], dtype=torch.float64).log()
    sensitivity = run_prox(groups64, start, rho, 1.0, 6)
    norms = groups64.norms()
    width = live_width(groups64, norms)
    found = sensitivity.density_slope(norms, width)

    def density(at: Tensor) -> float:
        run_prox(groups64, start, at, 1.0, 6)
        now = groups64.norms()
        return float((groups64.size / groups64.total * now / (now + width)).sum())  # m held constant

    for layer in range(3):
        push = torch.zeros(3, dtype=torch.float64)
        push[layer] = 1e-6
        slope = (density(rho + push) - density(rho - push)) / 2e-6
        assert float(found[layer]) == pytest.approx(slope, rel=1e-5)
        assert slope < 0


def test_harm_weights_each_groups_share_by_its_nearness_to_zero(groups64: ChannelGroups) -> None:
    start = [weight.detach().clone() for weight in groups64.weights]
    sensitivity = run_prox(groups64, start, torch.zeros(3, dtype=torch.float64), 0.9, 3)
    gradients = [torch.randn_like(weight.detach()) for weight in groups64.weights]
    norms = groups64.norms()
    width = live_width(groups64, norms)
    found = sensitivity.harm(gradients, norms, width)
    position = 0
    for layer, gradient in enumerate(gradients):
        expected = 0.0
        for c in range(gradient.shape[1]):
            m, norm = float(width[position]), float(norms[position])
            expected += m / (norm + m) * float((gradient[:, c] * sensitivity.tensors[layer][:, c]).sum())
            position += 1
        assert float(found[layer]) == pytest.approx(expected)


def test_the_width_is_the_mean_norm_of_the_living_groups_of_the_layer(make_groups: MakeGroups) -> None:
    groups = make_groups([(3, 1, 1), (2, 1, 1)])
    width = live_width(groups, torch.tensor([2.0, 0.0, 4.0, 0.0, 0.0]))
    assert width.tolist() == [3, 3, 3, 1, 1]


# ---- episodes and the outer gradient --------------------------------------------------------------------


def test_episodes_are_uniform_over_the_non_empty_subsets() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = Counter(tuple(episode(3, generator)) for _ in range(7000))
    assert len(drawn) == 7
    assert () not in drawn
    assert sum((count - 1000) ** 2 / 1000 for count in drawn.values()) < 22.5  # chi², 6 degrees, p = .001
    assert episode(1, generator) == [0]


@pytest.fixture
def outer(tiny_data: MultiTaskData, tiny_network: Callable[[], MultiTaskNet]) -> tuple[MultiTaskNet, Batch]:
    return tiny_network().train(), tiny_data.val.batch(torch.arange(6))


def test_the_outer_gradient_is_that_of_the_mean_relative_loss(
    outer: tuple[MultiTaskNet, Batch], tiny_data: MultiTaskData
) -> None:
    network, batch = outer
    references = {"depth": 2.0, "kind": 0.5}
    weights = ChannelGroups(network).weights
    for chosen in (tiny_data.tasks, tiny_data.tasks[:1], tiny_data.tasks[1:]):
        found = outer_gradient(network, weights, batch, chosen, references)
        outputs = network(batch.images)
        total = sum(
            task.loss(outputs[task.name], batch.targets[task.name], batch.valid[task.name]) / references[task.name]
            for task in chosen
        )
        expected = torch.autograd.grad(total / len(chosen), weights)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)
        assert max(float(gradient.abs().max()) for gradient in found) > 0


def test_the_outer_gradient_leaves_buffers_grad_fields_and_weights_alone(
    outer: tuple[MultiTaskNet, Batch], tiny_data: MultiTaskData
) -> None:
    network, batch = outer
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    outer_gradient(network, ChannelGroups(network).weights, batch, tiny_data.tasks, {"depth": 1.0, "kind": 1.0})
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(bool((p.grad == 3).all()) for p in network.parameters() if p.grad is not None)
    network(batch.images)  # and the buffers are tracked again
    assert not torch.equal(network.state_dict()["trunk.bn.running_mean"], before["trunk.bn.running_mean"])


def test_a_loss_reference_near_zero_is_floored(
    outer: tuple[MultiTaskNet, Batch], tiny_data: MultiTaskData
) -> None:
    network, batch = outer
    weights = ChannelGroups(network).weights
    kind = tiny_data.tasks[1:]
    floored = outer_gradient(network, weights, batch, kind, {"kind": 1e-9})
    expected = outer_gradient(network, weights, batch, kind, {"kind": REFERENCE_FLOOR})
    assert all(torch.equal(a, b) for a, b in zip(floored, expected, strict=True))


class _TwoScales(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.early = torch.nn.Conv2d(2, 3, 1)
        self.late = torch.nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        early = self.early(images)
        return [early, self.late(early)]


class _Pick(torch.nn.Module):
    def forward(self, features: list[Tensor]) -> Tensor:
        return features[0][:, :1]


def test_a_layer_that_the_episodes_tasks_do_not_read_has_an_outer_gradient_of_zero(
    tiny_data: MultiTaskData,
) -> None:
    network = MultiTaskNet(_TwoScales(), {"depth": _Pick()})
    batch = tiny_data.val.batch(torch.arange(4))
    early, late = outer_gradient(
        network, ChannelGroups(network).weights, batch, tiny_data.tasks[:1], {"depth": 1.0}
    )
    assert float(early.abs().max()) > 0
    assert torch.equal(late, torch.zeros(3, 3, 1, 1))


# ---- objective ------------------------------------------------------------------------------------------

LOSSES, REFERENCES = {"a": 1.5, "b": 0.3}, {"a": 1.0, "b": 0.2}


def test_the_trade_off_adds_priced_density_to_the_mean_relative_loss() -> None:
    objective = Objective("tradeoff", price=0.4)
    assert objective.value(LOSSES, REFERENCES, density=0.5) == pytest.approx(1.5 + 0.2)
    assert objective.value(REFERENCES, REFERENCES, density=1.0) == pytest.approx(1.4)
    assert objective.violation(1.0) <= 0


def test_the_target_leaves_density_to_the_constraint() -> None:
    objective = Objective("target", target=0.44)
    assert objective.value(LOSSES, REFERENCES, density=0.1) == pytest.approx(1.5)
    assert objective.violation(0.6) == pytest.approx(0.04)
    assert objective.violation(0.5) < 0


def test_a_reference_near_zero_does_not_make_the_objective_explode() -> None:
    assert Objective(price=0).value({"a": 0.02}, {"a": 1e-12}, 1.0) == pytest.approx(2.0)


@pytest.mark.parametrize(
    "bad", [{"price": -0.1}, {"price": math.inf}, {"price": math.nan}, {"target": 0.0}, {"target": 1.0}]
)
def test_a_price_or_target_out_of_range_is_refused_with_its_value(bad: dict[str, float]) -> None:
    ((name, value),) = bad.items()
    with pytest.raises(ConfigError, match=f"must hold, but got {name}={value}"):
        Objective(**bad)  # type: ignore[arg-type]


def test_delta_m_is_the_hand_worked_number() -> None:
    tasks = [segmentation("seg", 3), depth("depth")]
    reference = {"seg/miou": 0.5, "seg/pixel_accuracy": 0.8, "depth/abs_error": 0.2, "depth/rel_error": 0.1}
    values = {"seg/miou": 0.6, "seg/pixel_accuracy": 0.76, "depth/abs_error": 0.25, "depth/rel_error": 0.08}
    # seg: (+20 % - 5 %) / 2 = 7.5 %; depth, lower is better: (-25 % + 20 %) / 2 = -2.5 %
    assert delta_m(tasks, values, reference) == pytest.approx((7.5 - 2.5) / 2)
    assert delta_m(tasks, reference, reference) == 0


# ---- forward learner ------------------------------------------------------------------------------------


def learner(groups: ChannelGroups, **changes: object) -> ForwardLearner:
    arguments: dict[str, object] = {
        "price": 1.0, "bounds": (0.01, 1.0), "start": 0.1, "decay": 0.99, "lr": 0.1, "every": 2, "warmup": 0.0
    } | changes  # fmt: skip
    ties = arguments.pop("ties", range(len(groups.names)))
    return ForwardLearner(groups, ties, **arguments)  # type: ignore[arg-type]


def zeros(groups: ChannelGroups) -> Callable[[], list[Tensor]]:
    return lambda: [torch.zeros_like(weight) for weight in groups.weights]


def harmed(groups: ChannelGroups) -> Callable[[], list[Tensor]]:
    return lambda: [-weight.detach() for weight in groups.weights]  # the loss falls as weights grow


def test_the_price_alone_raises_every_lambda_and_the_loss_alone_lowers_it(make_groups: MakeGroups) -> None:
    priced, cheap = make_groups(SHAPES), make_groups(SHAPES)
    raised, lowered = learner(priced), learner(cheap, price=0.0)
    for index in range(10):
        raised.step(index, index / 9, 0.01, zeros(priced))
        lowered.step(index, index / 9, 0.01, harmed(cheap))
    assert bool((raised.lambdas() > 0.11).all())
    assert bool((lowered.lambdas() < 0.09).all())


def test_lambda_rises_from_nothing_over_the_warm_up(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    learned = learner(groups, price=0.0, warmup=0.5, every=1000)
    rises = []
    for phase in (0.0, 0.25, 0.5, 1.0):
        learned.step(1, phase, 0.001, zeros(groups))
        rises.append(learned.lambdas())
    for rise, expected in zip(rises, (0.0, 0.05, 0.1, 0.1), strict=True):
        torch.testing.assert_close(rise, torch.full_like(rise, expected))


def test_lambda_ends_at_its_bounds_and_never_outside(make_groups: MakeGroups) -> None:
    for price, gradient, end in ((1.0, zeros, 0.2), (0.0, harmed, 0.05)):
        groups = make_groups(SHAPES)
        learned = learner(groups, price=price, bounds=(0.05, 0.2), every=1, lr=0.3)
        for index in range(20):
            learned.step(index, index / 19, 1e-3, gradient(groups))
            assert bool(((learned.lambdas() >= 0.05 * (1 - 1e-6)) & (learned.lambdas() <= 0.2 * (1 + 1e-6))).all())
        assert learned.lambdas().tolist() == pytest.approx([end] * 3)


def test_tied_layers_share_one_lambda_learned_from_all_of_them(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    learned = learner(groups, ties=[0, 1, 0])
    slopes = [torch.tensor([3.0, 1.0, -5.0])]
    learned.sensitivity.harm = lambda *_: slopes[0].clone()  # type: ignore[method-assign]
    learned.price = 0.0
    learned.step(0, 0.0, 0.01, zeros(groups))
    a, b, c = learned.lambdas().tolist()
    assert a == c
    assert b < 0.1 < a  # 3 - 5 < 0 raises the shared one


def test_the_gradient_is_asked_for_as_often_as_planned_and_after_the_prox(make_groups: MakeGroups) -> None:
    for steps, every in ((9, 2), (10, 2), (7, 3), (1, 5)):
        groups = make_groups(SHAPES)
        learned, seen = learner(groups, every=every, start=1.0, bounds=(0.5, 1.0)), []

        def gradient(groups: ChannelGroups = groups, seen: list[float] = seen) -> list[Tensor]:
            seen.append(float(groups.norms().sum()))
            return zeros(groups)()

        before = float(groups.norms().sum())
        for index in range(steps):
            learned.step(index, index / max(1, steps - 1), 0.01, gradient)
        assert len(seen) == outer_updates(steps, every)
        assert seen[0] < before


def test_the_recorded_course_spans_the_phase_in_the_schedules_knots(make_groups: MakeGroups) -> None:
    for steps in (3, 8, 50):
        groups = make_groups(SHAPES)
        learned, course = learner(groups, every=1), []
        for index in range(steps):
            learned.step(index, index / (steps - 1), 0.01, zeros(groups))
            course.append(learned.lambdas().tolist())
        schedule = learned.schedule()
        assert len(schedule.values) == KNOTS
        assert schedule.layers == groups.names
        assert list(schedule.values[0]) == course[0]
        assert list(schedule.values[-1]) == course[-1]


# ---- waterfill ------------------------------------------------------------------------------------------


def waterfill(groups: ChannelGroups, target: float, steps: int = 60, lambda_max: float = 1e4) -> WaterfillLearner:
    """Trains nothing: random gradients, and a little noise that moves every group a bit."""
    learned = WaterfillLearner(groups, target=target, bounds=(1e-4, lambda_max), every=10)
    generator = torch.Generator().manual_seed(3)
    for index in range(steps):
        gradients = [torch.randn(weight.shape, generator=generator) for weight in groups.weights]
        with torch.no_grad():
            for weight in groups.weights:
                weight += 1e-3 * torch.randn(weight.shape, generator=generator)
        learned.step(index, index / (steps - 1), 0.01, gradients)
    return learned


@pytest.mark.parametrize("target", [0.1, 0.44, 0.8])
@pytest.mark.parametrize("lambda_max", [1e4, 1e-3])
def test_waterfill_reaches_its_target_and_overshoots_by_less_than_a_group(
    make_groups: MakeGroups, target: float, lambda_max: float
) -> None:
    groups = make_groups([(12, 6, 1), (8, 9, 3), (16, 4, 1)], removable=(2,))
    waterfill(groups, target, lambda_max=lambda_max)
    found = measure(groups)
    assert target <= found.param < target + float(groups.size.max()) / groups.total
    assert found.layers["0"] < 1
    assert found.layers["1"] < 1


def test_waterfill_shrinks_the_smallest_groups_only(make_groups: MakeGroups) -> None:
    groups = make_groups([(12, 6, 1), (8, 9, 3)])
    learned = WaterfillLearner(groups, target=0.5, bounds=(1e-4, 1e4), every=1)
    generator = torch.Generator().manual_seed(0)
    for index in range(10):
        norms = groups.norms()
        learned.step(index, index / 10, 0.01, [torch.randn(w.shape, generator=generator) for w in groups.weights])
        touched = groups.norms() != norms
        for part, old in zip(torch.split(touched, groups.counts), torch.split(norms, groups.counts), strict=True):
            spared = ~part & (old > 0)
            if bool(part.any()) and bool(spared.any()):
                assert float(old[part].max()) <= float(old[spared].min())
    assert 0 < measure(groups).param < 0.6


def test_waterfill_takes_nothing_and_needs_no_lambda_at_the_start(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    before = [weight.clone() for weight in groups.weights]
    learned = WaterfillLearner(groups, target=0.5, bounds=(1e-4, 1e4), every=10)
    learned.step(0, 0.0, 0.01, [torch.ones_like(weight) for weight in groups.weights])
    assert learned.lambdas().tolist() == [0, 0, 0]
    assert all(torch.equal(a, b) for a, b in zip(before, groups.weights, strict=True))


def test_waterfills_lambda_is_what_removes_its_longest_chosen_group_up_to_the_bound(
    make_groups: MakeGroups,
) -> None:
    groups = make_groups([(6, 4, 1)], removable=(0,))
    for bound, expected in ((1e4, None), (2.0, 2.0)):
        learned = WaterfillLearner(groups, target=0.5, bounds=(1e-4, bound), every=1)
        learned.importance = TaylorImportance(groups)
        norms = groups.norms().sort().values
        learned.step(1, 0.85, 0.01, [torch.ones_like(weight) for weight in groups.weights])
        exact = float(norms[2]) / (0.01 * 2)
        assert learned.lambdas().item() == pytest.approx(expected or exact, rel=1e-4)
        if expected is None:
            assert measure(groups).group == 0.5
            groups = make_groups([(6, 4, 1)], removable=(0,))


def test_waterfills_schedule_records_lambda_and_shares(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    schedule = waterfill(groups, 0.5).schedule()
    assert len(schedule.values) == KNOTS
    assert schedule.shares is not None
    assert len(schedule.shares) == KNOTS
    assert set(schedule.shares[0]) == {0.0}
    assert max(schedule.shares[-1]) > 0
