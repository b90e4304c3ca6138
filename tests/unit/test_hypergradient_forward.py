import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ms_automl.data import Batch
from ms_automl.meta.hypergradients import Shrinkage, Ties
from ms_automl.meta.hypergradients.forward import Forward
from ms_automl.meta.pricing import Pricing, live_width
from ms_automl.meta.step import TrainingStep
from ms_automl.sparsity import ChannelGroups, measure, shrink_factors, thresholds

MakeGroups = Callable[..., ChannelGroups]
SHAPES = [(4, 3, 1), (3, 4, 3), (4, 2, 1)]
NO_STEP = TrainingStep(0, 0.0, 0.1, Batch(torch.empty(0), {}, {}), list, lambda parameters: [])


@pytest.fixture
def groups64(make_groups: MakeGroups) -> ChannelGroups:
    return doubled(make_groups(SHAPES, removable=(1,)))


def doubled(groups: ChannelGroups) -> ChannelGroups:
    for weight in groups.weights:
        weight.data = weight.data.double()
    groups.size = groups.size.double()
    return groups


def run_prox(groups: ChannelGroups, start: list[Tensor], rho: Tensor, decay: float, steps: int) -> Forward:
    """Proximal steps of a falling η alone, without a loss: here the recursion with γ = 1 is exact."""
    for weight, value in zip(groups.weights, start, strict=True):
        weight.data.copy_(value)
    sensitivity = Forward(groups, Ties(groups, range(len(groups.names))), decay)
    for step in range(steps):
        norms = groups.norms()
        threshold = thresholds(groups, rho.exp(), lr=0.1 / (1 + step))
        factors = shrink_factors(groups, norms, threshold)
        sensitivity.advance(NO_STEP, Shrinkage(norms, threshold, factors))
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


def pushes() -> list[Tensor]:
    return [1e-6 * torch.eye(3, dtype=torch.float64)[layer] for layer in range(3)]


@pytest.mark.parametrize("corrected", [True, False])
def test_the_slope_of_the_priced_density_is_the_derivative_of_the_smooth_density(
    groups64: ChannelGroups, corrected: bool
) -> None:
    start = [weight.detach().clone() for weight in groups64.weights]
    rho = torch.tensor([0.9, 0.7, 0.5], dtype=torch.float64).log()
    pricing = Pricing(groups64, price=2.0, corrected=corrected)
    first = pricing.width
    sensitivity = run_prox(groups64, start, rho, 1.0, 6)
    none = [torch.zeros_like(weight) for weight in groups64.weights]
    found = sensitivity.slope(pricing.cotangent(groups64.weights, none))
    width = pricing.width
    assert torch.equal(width, live_width(groups64, groups64.norms()) if corrected else first)

    def density(at: Tensor) -> float:
        run_prox(groups64, start, at, 1.0, 6)
        now = groups64.norms()
        return float((groups64.size / groups64.total * now / (now + width)).sum())  # m held constant

    for layer, push in enumerate(pushes()):
        slope = (density(rho + push) - density(rho - push)) / 2e-6
        assert float(found[layer]) == pytest.approx(2 * slope, rel=1e-5)
        assert slope < 0


def test_the_price_weights_each_groups_gradient_by_its_nearness_to_zero_and_no_other_parameters(
    groups64: ChannelGroups,
) -> None:
    start = [weight.detach().clone() for weight in groups64.weights]
    run_prox(groups64, start, torch.zeros(3, dtype=torch.float64), 0.9, 3)
    other = torch.nn.Parameter(torch.randn(2, 2, dtype=torch.float64))
    parameters = [groups64.weights[0], other, *groups64.weights[1:]]
    gradients = [torch.randn_like(value.detach()) for value in parameters]
    found = Pricing(groups64, price=0.0).cotangent(parameters, gradients)
    assert torch.equal(found[1], gradients[1])
    norms, position = groups64.norms(), 0
    width = live_width(groups64, norms)
    for place in (0, 2, 3):
        for c in range(gradients[place].shape[1]):
            m, norm = float(width[position]), float(norms[position])
            torch.testing.assert_close(found[place][:, c], m / (norm + m) * gradients[place][:, c])
            position += 1
    plain = Pricing(groups64, price=0.0, corrected=False).cotangent(parameters, gradients)
    assert all(torch.equal(a, b) for a, b in zip(plain, gradients, strict=True))


def test_a_dead_groups_cotangent_is_finite(groups64: ChannelGroups) -> None:
    for weight in groups64.weights:
        weight.data.zero_()
    gradients = [torch.ones_like(weight) for weight in groups64.weights]
    found = Pricing(groups64, price=1.0).cotangent(groups64.weights, gradients)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in found)


def test_the_width_is_the_mean_norm_of_the_living_groups_of_the_layer(make_groups: MakeGroups) -> None:
    groups = make_groups([(3, 1, 1), (2, 1, 1)])
    width = live_width(groups, torch.tensor([2.0, 0.0, 4.0, 0.0, 0.0]))
    assert width.tolist() == [3, 3, 3, 1, 1]
