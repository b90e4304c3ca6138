"""Where the answer is known: group lasso with an orthonormal design, and a group whose scale no loss sees."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ms_automl.data import Batch
from ms_automl.meta.dynamics import Dynamics
from ms_automl.meta.hypergradients import ESTIMATORS, Shrinkage, Ties
from ms_automl.meta.hypergradients.implicit_cg import conjugate_gradients
from ms_automl.meta.step import TrainingStep
from ms_automl.models import MultiTaskNet
from ms_automl.models.cost import Cost
from ms_automl.sparsity import ChannelGroups, shrink_factors, thresholds


class Problem:
    """Full-batch proximal gradient descent of one network on one batch."""

    def __init__(self, trunk: nn.Module, images: Tensor, loss: Callable[[Tensor], Tensor], lr: float) -> None:
        self.network = MultiTaskNet(trunk, {"task": nn.Identity()}).double().train()
        self.groups = ChannelGroups(self.network)
        self.batch = Batch(images, {}, {})
        self.lr = lr
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=lr)
        self.cost = Cost()
        self.loss = lambda outputs, batch: loss(outputs["task"])
        self.dynamics = Dynamics(self.network, self.optimizer, self.loss, self.cost)

    def run(self, name: str, rho: Tensor, steps: int, **settings: Any) -> Callable[[list[Tensor]], Tensor]:
        """Train, then give ∇J in all parameters ↦ dJ/dρ."""
        ties = Ties(self.groups, range(len(self.groups.names)))
        estimator = ESTIMATORS[name]
        hypergradient = estimator.build(
            estimator.settings(learner=name, **settings), self.groups, ties, self.dynamics
        )
        for index in range(steps):
            self.optimizer.zero_grad()
            self.loss(self.network(self.batch.images), self.batch).backward()
            self.optimizer.step()
            with torch.no_grad():
                norms = self.groups.norms()
                threshold = thresholds(self.groups, rho.exp(), self.lr)
                shrinkage = Shrinkage(norms, threshold, shrink_factors(self.groups, norms, threshold))
            step = TrainingStep(
                index, 0.0, self.lr, lambda: self.batch, self.groups.gradients, lambda parameters: []
            )
            hypergradient.advance(step, shrinkage)
            self.groups.scale_(shrinkage.factors)

        def slope(gradients: list[Tensor]) -> Tensor:
            where = dict(zip(map(id, self.network.parameters()), gradients, strict=True))
            return hypergradient.slope([where[id(value)] for value in hypergradient.parameters])

        return slope


# ---- group lasso, orthonormal design --------------------------------------------------------------------

ETA, STEPS = 0.3, 60
RHO = torch.tensor([-0.5], dtype=torch.float64)


def lasso() -> tuple[Problem, Tensor, Tensor, Tensor]:
    """½ ||X W^T - Y||² with X^T X = 1: W_g* = (1 - λ sqrt(n)/||b_g||)_+ b_g, dW_g*/dρ = -λ sqrt(n) b_g/||b_g||.

    Returns:
        The problem, b [O, C] = Y^T X, a cotangent [O, C, 1, 1], and dJ/dρ by the closed form.
    """
    generator = torch.Generator().manual_seed(0)
    design = torch.linalg.qr(torch.randn(16, 5, generator=generator, dtype=torch.float64))[0]
    target = torch.randn(3, 5, generator=generator, dtype=torch.float64) * torch.tensor([0.2, 1, 1, 2, 3.0])
    images = design.T.reshape(1, 5, 4, 4)
    wanted = (target @ design.T).reshape(1, 3, 4, 4)
    problem = Problem(nn.Conv2d(5, 3, 1, bias=False), images, lambda out: 0.5 * (out - wanted).square().sum(), ETA)
    problem.groups.weights[0].data.copy_(1.5 * target[..., None, None])  # its groups' directions are final ones
    cotangent = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    lengths, bound = target.norm(dim=0), float(RHO.exp()) * 3**0.5
    answer = torch.where(lengths > bound, -bound * target / lengths, 0.0)
    return problem, target, cotangent[..., None, None], (cotangent * answer).sum()


def test_the_run_ends_at_the_closed_forms_solution_with_a_dead_group() -> None:
    problem, target, _, _ = lasso()
    problem.run("one_step", RHO, STEPS)
    factor = (1 - float(RHO.exp()) * 3**0.5 / target.norm(dim=0)).clamp(min=0)
    torch.testing.assert_close(problem.groups.weights[0][..., 0, 0], factor * target, rtol=1e-8, atol=1e-10)
    assert (factor == 0).tolist() == [True, False, True, False, False]


SHARES: dict[str, tuple[str, dict[str, float], float]] = {
    # one prox moves the solution by η of its answer, and each step before it keeps 1 - η of what it had
    "one step gives η": ("one_step", {}, ETA),
    "forward gives η/(1-γ)": ("forward", {"decay": 0.9}, ETA * (1 - 0.9**STEPS) / 0.1),
    "forward with γ = 1-η is exact": ("forward", {"decay": 1 - ETA}, 1.0),
    "K first-order steps give Kη": ("unrolled_first_order", {"unroll": 4}, 4 * ETA),
    "K steps give 1-(1-η)^K": ("unrolled", {"unroll": 4}, 1 - (1 - ETA) ** 4),
    "K Neumann terms give 1-(1-η)^K": ("implicit_neumann", {"unroll": 4}, 1 - (1 - ETA) ** 4),
    "many Neumann terms are exact": ("implicit_neumann", {"unroll": 60}, 1.0),
    "carried exactly it is exact": ("forward_exact", {}, 1.0),
}


@pytest.mark.parametrize("case", SHARES)
def test_group_lasso_with_an_orthonormal_design_gives_each_estimator_its_known_share(case: str) -> None:
    name, changes, share = SHARES[case]
    problem, _, cotangent, expected = lasso()
    slope = problem.run(name, RHO, STEPS, **changes)  # type: ignore[arg-type]
    assert float(slope([cotangent])) == pytest.approx(share * float(expected), rel=1e-7)
    assert abs(float(expected)) > 0.1


def test_conjugate_gradients_solve_group_lasso_but_for_their_damping() -> None:
    problem, _, cotangent, expected = lasso()
    found = float(problem.run("implicit_cg", RHO, STEPS, unroll=12)([cotangent]))
    assert found == pytest.approx(float(expected) / 1.01, rel=1e-8)  # the answer's curvature is 1, the damping .01


def test_conjugate_gradients_solve_a_definite_system_and_stop_where_the_curvature_is_not_positive() -> None:
    generator = torch.Generator().manual_seed(4)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    definite, target = root @ root.T + torch.eye(6), torch.randn(6, generator=generator, dtype=torch.float64)
    for iterations in (6, 50):  # it ends by itself
        found = conjugate_gradients(lambda x: [definite @ x[0]], [target], iterations)[0]
        torch.testing.assert_close(found, torch.linalg.solve(definite, target), rtol=1e-8, atol=1e-10)
    for matrix in (-definite, torch.zeros_like(definite)):
        assert torch.equal(conjugate_gradients(lambda x, m=matrix: [m @ x[0]], [target], 6)[0], target)
    mixed = torch.diag(torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, -3.0], dtype=torch.float64))
    found = conjugate_gradients(lambda x: [mixed @ x[0]], [torch.ones(6, dtype=torch.float64)], 6)[0]
    assert bool(torch.isfinite(found).all())
    assert float(found.sum()) > 0  # still a direction of descent


# ---- trap 1: a group whose scale the loss cannot see ----------------------------------------------------


def behind_batch_norm() -> Problem:
    """The first conv is one filter and one group; behind batch norm (ε = 1e-30) its scale is not seen."""
    generator = torch.Generator().manual_seed(2)
    torch.manual_seed(3)
    first = nn.Conv2d(1, 1, 3, bias=False)
    trunk = nn.Sequential(first, nn.BatchNorm2d(1, eps=1e-30), nn.Softplus(), nn.Conv2d(1, 2, 3))
    images = torch.randn(8, 1, 7, 7, generator=generator, dtype=torch.float64)
    wanted = torch.randn(8, 2, 3, 3, generator=generator, dtype=torch.float64)
    return Problem(trunk, images, lambda out: (out - wanted).square().mean(), lr=0.1)


def outer(problem: Problem) -> tuple[float, list[Tensor]]:
    """J on other data, and its gradient in all parameters."""
    generator = torch.Generator().manual_seed(9)
    images = torch.randn(8, 1, 7, 7, generator=generator, dtype=torch.float64)
    wanted = torch.randn(8, 2, 3, 3, generator=generator, dtype=torch.float64)
    value = (problem.network(images)["task"] - wanted).square().mean()
    return float(value.detach()), list(torch.autograd.grad(value, list(problem.network.parameters())))


TRAP = torch.tensor([-1.5, -30.0], dtype=torch.float64)  # the second conv is as good as free


def trapped(name: str, steps: int, **changes: float) -> float:
    problem = behind_batch_norm()
    slope = problem.run(name, TRAP, steps, **changes)  # type: ignore[arg-type]
    return float(slope(outer(problem)[1])[0])


def difference(steps: int) -> float:
    ends = []
    for sign in (1, -1):
        problem = behind_batch_norm()
        problem.run("one_step", TRAP + sign * torch.tensor([1e-5, 0.0], dtype=torch.float64), steps)
        ends.append(outer(problem)[0])
    return (ends[0] - ends[1]) / 2e-5


def test_behind_batch_norm_estimators_of_one_step_see_exactly_nothing() -> None:
    for name in ("one_step", "unrolled", "unrolled_first_order", "implicit_neumann"):
        assert abs(trapped(name, 8, **({} if name == "one_step" else {"unroll": 1}))) < 1e-15
    assert abs(trapped("forward_exact", 1)) < 1e-15  # after one step λ has changed the scale alone
    assert abs(difference(8)) > 1e-4  # yet over a run it matters: a smaller filter turns faster


def test_behind_batch_norm_the_exact_estimators_give_the_slope_of_the_run() -> None:
    expected = difference(8)
    assert trapped("forward_exact", 8) == pytest.approx(expected, rel=1e-5)
    assert trapped("unrolled", 8, unroll=8) == pytest.approx(expected, rel=1e-5)


def test_behind_batch_norm_a_memory_without_hessian_sees_a_third_of_the_slope() -> None:
    problem = behind_batch_norm()
    problem.run("one_step", TRAP, 8)
    gradient, weight = outer(problem)[1][0], problem.groups.weights[0].detach()
    assert abs(float((gradient * weight).sum())) < 1e-15  # ∇J is across the filter
    # Z holds where the filter pointed at each prox, and counts as far as it has turned since: -.0028, -.0041 and
    # -.0043 of -.0121. That a shorter filter turns faster is in the Hessian alone.
    found = [trapped("forward", 8, decay=decay) / difference(8) for decay in (0.9, 0.99, 1.0)]
    assert found == pytest.approx([0.229, 0.342, 0.357], abs=0.001)
    assert trapped("unrolled_first_order", 8, unroll=8) == pytest.approx(
        trapped("forward", 8, decay=1.0), rel=1e-9
    )


def test_behind_batch_norm_no_stationary_point_exists_and_implicit_estimators_say_nothing_of_use() -> None:
    # λ shortens the filter for ever, so what they assume fails: one has the wrong sign, one 13 times the size.
    neumann, solved = (trapped(f"implicit_{way}", 8, unroll=20) / difference(8) for way in ("neumann", "cg"))
    assert neumann == pytest.approx(-0.41, abs=0.01)
    assert solved == pytest.approx(13.1, abs=0.1)
