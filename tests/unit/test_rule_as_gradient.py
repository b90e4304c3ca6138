"""What `waterfill` ranks by is the gradient in a λ of each group, followed to the edge; in double precision."""

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.hypergradient_accuracy import SETTINGS, smooth_data, smooth_network
from ms_automl.sparsity import TaylorImportance, shrink_factors
from ms_automl.training import TrainingLoop

LR = 0.1


class Scaled:
    """The loss of a batch as a function of what each group is multiplied by."""

    def __init__(self) -> None:
        self.loop = TrainingLoop(smooth_data(), smooth_network(), SETTINGS["sgd"], seed=0)
        self.groups = self.loop.sparsifier.groups
        self.batch = self.loop.data.train.batch(torch.arange(6))
        names = {parameter: name for name, parameter in self.loop.network.named_parameters()}
        self.names = [names[weight] for weight in self.groups.weights]
        self.edge = self.groups.norms() / (LR * self.groups.size.sqrt())  # λ_g at which g goes

    def loss(self, factors: Tensor) -> Tensor:
        pairs = zip(self.names, self.groups.weights, self.groups.per_weight(factors), strict=True)
        weights = {name: weight.detach() * factor for name, weight, factor in pairs}
        outputs = torch.func.functional_call(self.loop.network, weights, self.batch.images)
        return self.loop.loss(outputs, self.batch)

    def after_prox(self, lambdas: Tensor) -> Tensor:
        """The loss after one prox with a λ for each group."""
        return self.loss(1 - LR * lambdas * self.groups.size.sqrt() / self.groups.norms())

    def gradient(self, factors: Tensor) -> list[Tensor]:
        """∇_θ L at the scaled weights."""
        values = [
            w.detach() * f for w, f in zip(self.groups.weights, self.groups.per_weight(factors), strict=True)
        ]
        for value in values:
            value.requires_grad_()
        named = dict(zip(self.names, values, strict=True))
        outputs = torch.func.functional_call(self.loop.network, named, self.batch.images)
        return list(torch.autograd.grad(self.loop.loss(outputs, self.batch), values))


@pytest.fixture(scope="module")
def scaled() -> Scaled:
    return Scaled()


def slopes(scaled: Scaled, lambdas: Tensor) -> Tensor:
    """dL/dλ_g after one prox, by autograd."""
    lambdas = lambdas.clone().requires_grad_()
    (found,) = torch.autograd.grad(scaled.after_prox(lambdas), lambdas)
    return found


@pytest.mark.parametrize("share", [0.0, 0.4, 0.95])
def test_the_slope_in_a_groups_lambda_is_the_gradient_along_the_group(scaled: Scaled, share: float) -> None:
    lambdas, groups = share * scaled.edge, scaled.groups
    norms = groups.norms()
    factors = shrink_factors(groups, norms, LR * lambdas * groups.size.sqrt())
    along = groups.inner(scaled.gradient(factors), groups.weights) / norms  # <∇L, θ_g / ||θ_g||>
    torch.testing.assert_close(slopes(scaled, lambdas), -LR * groups.size.sqrt() * along, rtol=1e-10, atol=1e-15)


def test_followed_to_the_edge_it_adds_up_to_what_removing_the_group_costs(scaled: Scaled) -> None:
    ones = torch.ones_like(scaled.edge)
    before = scaled.loss(ones).item()
    points, weights = np.polynomial.legendre.leggauss(12)  # on -1 to 1
    for g in range(len(ones)):
        total = 0.0
        for point, weight in zip(points, weights, strict=True):
            lambdas = torch.zeros_like(ones)
            lambdas[g] = scaled.edge[g] * (point + 1) / 2
            total += float(slopes(scaled, lambdas)[g] * scaled.edge[g]) * weight / 2
        without = ones.clone()
        without[g] = 0.0
        assert total == pytest.approx(scaled.loss(without).item() - before, rel=1e-6, abs=1e-12)


def test_what_the_rule_ranks_by_is_the_slope_at_zero_times_the_way_to_the_edge(scaled: Scaled) -> None:
    importance = TaylorImportance(scaled.groups)
    importance.observe(scaled.gradient(torch.ones_like(scaled.edge)))
    first_order = scaled.edge * slopes(scaled, torch.zeros_like(scaled.edge)).abs()
    torch.testing.assert_close(importance.cost() * scaled.groups.size, first_order, rtol=1e-10, atol=1e-15)


def test_over_batches_it_is_the_root_of_the_squared_slopes(scaled: Scaled) -> None:
    importance, groups = TaylorImportance(scaled.groups, decay=0.5), scaled.groups
    squares = torch.zeros_like(scaled.edge)
    kept = scaled.batch
    for start in (0, 6, 12):
        scaled.batch = scaled.loop.data.train.batch(torch.arange(start, start + 6))
        importance.observe(scaled.gradient(torch.ones_like(scaled.edge)))
        squares = (squares + (scaled.edge * slopes(scaled, torch.zeros_like(scaled.edge))).square()) / 2
    scaled.batch = kept
    expected = (squares / (1 - 0.5**3)).sqrt() / groups.size
    torch.testing.assert_close(importance.cost(), expected, rtol=1e-10, atol=1e-15)
