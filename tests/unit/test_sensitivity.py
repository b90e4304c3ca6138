import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ms_automl.meta.sensitivity import Sensitivity, live_width
from ms_automl.sparsity import ChannelGroups, measure, shrink_factors, thresholds

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
