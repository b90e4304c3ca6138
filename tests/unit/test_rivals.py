"""The rules of the literature, each by its own formula."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from ms_automl.errors import ConfigError
from ms_automl.meta.step import TrainingStep
from ms_automl.models import MultiTaskNet
from ms_automl.rivals import RIVALS, RivalInputs, check_rival
from ms_automl.rivals.base import shortest, within_layer
from ms_automl.rivals.gates import HardConcrete, Product
from ms_automl.rivals.hesso import Hesso
from ms_automl.rivals.pat import Pat
from ms_automl.rivals.penalties import GroupNorm, GrowingRegularisation
from ms_automl.sparsity import ChannelGroups, Groups


@pytest.fixture
def groups() -> Groups:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3), nn.ReLU())
    return ChannelGroups(MultiTaskNet(trunk, {"a": nn.Conv2d(5, 1, 1)}).double())


def given(groups: Groups, level: float = 0.5, steps: int = 100) -> RivalInputs:
    return RivalInputs(groups, steps, max(1, round(0.75 * steps)), level, seed=0)


def at(index: int, phase: float = 0.5, lr: float = 0.1, gradients: list[Tensor] | None = None) -> TrainingStep:
    return TrainingStep(index, phase, lr, lambda: None, lambda: gradients or [], lambda _: [])  # type: ignore[arg-type,return-value]


def loss(groups: Groups) -> Tensor:
    """Something smooth of the weights that the network computes with."""
    return torch.stack([(weight.sin() * weight).sum() for weight in groups.weights]).sum()


def leave_gradients(groups: Groups) -> None:
    for weight in groups.weights:
        weight.grad = None
    loss(groups).backward()  # type: ignore[no-untyped-call]


def test_a_layers_lowest_is_1_and_its_highest_0(groups: Groups) -> None:
    found = within_layer(groups, torch.arange(11.0))
    assert found[:3].tolist() == [1.0, 0.5, 0.0]
    assert found[3].item() == 1.0 and found[10].item() == 0.0
    assert bool((within_layer(groups, torch.ones(11)) == 0).all())


def test_the_shortest_are_ranked_over_the_mean_of_their_layer(groups: Groups) -> None:
    norms = groups.norms()
    chosen = shortest(groups, 0.4)
    scale = 1000 * torch.ones(11, dtype=norms.dtype)
    scale[3:] = 1
    groups.scale_(scale)  # of a whole layer, which batch norm would take out again
    assert torch.equal(shortest(groups, 0.4), chosen)
    assert float(groups.size[chosen].sum()) >= 0.4 * groups.total


def test_group_norm_adds_a_gradient_16_times_as_strong_for_the_shortest(groups: Groups) -> None:
    rule = GroupNorm(groups, 0.5, reg=0.01)
    for weight in groups.weights:
        weight.grad = torch.zeros_like(weight)
    rule.adjust()
    strength = groups.inner(groups.gradients(), groups.weights) / groups.norms().square()
    norms = groups.norms()
    for layer in (slice(0, 3), slice(3, 11)):
        assert strength[layer][norms[layer].argmin()].item() == pytest.approx(0.16)
        assert strength[layer][norms[layer].argmax()].item() == pytest.approx(0.01)


def test_growing_regularisation_grows_up_to_its_ceiling(groups: Groups) -> None:
    rule = GrowingRegularisation(groups, 0.5, delta=0.1, ceiling=0.25, every=2)
    shortest_of_first = groups.norms()[:3].argmin()
    seen = []
    for index in range(6):
        rule.step(at(index))
        seen.append(round(float(rule.strength()[shortest_of_first]), 4))
    assert seen == [0.0, 0.1, 0.1, 0.2, 0.2, 0.25]
    assert float(rule.strength()[groups.norms()[:3].argmax()]) == pytest.approx(1e-5)


@pytest.mark.parametrize("rule", ["greg", "group-norm"])
def test_penalties_remove_the_shortest_when_the_phase_ends(rule: str, groups: Groups) -> None:
    built, chosen = RIVALS[rule].build(given(groups)), shortest(groups, 0.5)
    built.step(at(73, phase=0.99))
    assert bool((groups.norms() > 0).all())
    built.step(at(74, phase=1.0))
    assert torch.equal(groups.norms() == 0, chosen)


def test_hesso_shrinks_a_period_by_period_linearly(groups: Groups) -> None:
    rule = Hesso(groups, 0.6, begin=2, length=4, periods=2)
    start, none = groups.norms(), [torch.zeros_like(weight) for weight in groups.weights]
    for index in range(2):
        rule.step(at(index, gradients=none))
        assert torch.equal(groups.norms(), start)
    shares = []
    for index in range(2, 6):
        rule.step(at(index, gradients=none))
        shares.append(groups.norms() / start)
    going = shares[0] < 1
    for share, expected in zip(shares, (0.75, 0.5, 0.25, 0.0), strict=True):
        assert torch.allclose(share[going], torch.full_like(share[going], expected))
        assert torch.allclose(share[~going], torch.ones_like(share[~going]))
    assert 0.3 <= float(groups.size[going].sum()) / groups.total < 0.6
    for index in range(6, 10):
        rule.step(at(index, gradients=none))
    gone = groups.norms() == 0
    assert bool((gone | ~going).all())  # those of the first period are still among them
    assert float(groups.size[gone].sum()) / groups.total >= 0.6


def test_hesso_scores_are_the_mean_of_five_of_length_one(groups: Groups) -> None:
    rule = Hesso(groups, 0.6, begin=0, length=4, periods=2)
    rule.mean = [torch.randn_like(weight) for weight in groups.weights]
    slices = [w.detach()[:, c].flatten() for w in groups.weights for c in range(w.shape[1])]
    means = [m[:, c].flatten() for m in rule.mean for c in range(m.shape[1])]
    rows = []
    for theta, m in zip(slices, means, strict=True):
        dot = float(theta @ m)
        length = float(theta.norm())
        rows.append([length, length / len(theta), 1 + dot / (length * float(m.norm())), abs(dot), dot**2 / 2])
    columns = torch.tensor(rows, dtype=torch.float64)
    assert torch.allclose(rule.scores(), (columns / columns.norm(dim=0)).mean(1))


def test_periods_that_do_not_end_in_time_are_refused(groups: Groups) -> None:
    with pytest.raises(
        ConfigError, match=r"`begin \+ length <= 1` must hold, but got begin=0\.133333 and length=0\.9"
    ):
        RIVALS["hesso"].build(given(groups), length=0.9)


@pytest.mark.parametrize("steps", [1, 4, 20, 600])
def test_periods_end_in_time_however_short_the_training_is(steps: int, groups: Groups) -> None:
    rule = RIVALS["hesso"].build(given(groups, steps=steps))
    phase = max(1, round(0.75 * steps))
    for index in range(phase):
        now = index / (phase - 1) if phase > 1 else 1.0
        rule.step(at(index, phase=now, gradients=[torch.zeros_like(weight) for weight in groups.weights]))
    assert float(groups.size[groups.norms() == 0].sum()) / groups.total >= 0.5
    if steps == 600:
        assert (rule.begin, rule.length, rule.periods) == (60, 6, 10)  # type: ignore[attr-defined]


def test_iht_spans_alternate_and_the_last_one_ends_with_the_phase(groups: Groups) -> None:
    spans = RIVALS["iht"].build(given(groups)).spans  # type: ignore[attr-defined]
    assert spans[0] == (10, 15) and spans[1] == (20, 25)
    assert spans[-1][1] == 75
    assert all(end <= first for (_, end), (first, _) in itertools.pairwise(spans))


def test_a_mask_that_is_taken_off_lets_what_it_held_come_back_and_the_next_is_chosen_anew(groups: Groups) -> None:
    rule = RIVALS["iht"].build(given(groups, level=0.5))
    rule.step(at(10))
    first = groups.norms() == 0
    rule.step(at(15))
    with torch.no_grad():
        for weight in groups.weights:
            weight.add_(5.0)  # as an optimiser would
        groups.scale_(1 + 99 * first.to(groups.size.dtype))  # what was gone is the longest now
    rule.step(at(17))
    assert bool((groups.norms() > 0).all())
    rule.step(at(20))
    assert not torch.equal(groups.norms() == 0, first)


def test_pat_takes_gradients_where_it_is_masked_and_moves_what_is_not(groups: Groups) -> None:
    rule = Pat(groups, 0.5)
    start = [weight.detach().clone() for weight in groups.weights]
    rule.step(at(0, phase=1.0))
    gone = groups.norms() == 0
    assert float(groups.size[gone].sum()) / groups.total >= 0.5
    rule.prepare()
    leave_gradients(groups)
    rule.adjust()
    assert all(torch.equal(weight, before) for weight, before in zip(groups.weights, start, strict=True))


def test_hard_concrete_gradients_are_those_of_autograd(groups: Groups) -> None:
    rule = HardConcrete(groups, 0.5, seed=3, gate_lr=0.1, dual_lr=0.1, droprate=0.4)
    rule.dual = 0.7
    latent = [value.clone().requires_grad_() for value in rule.latent_weights]
    log_alpha = rule.log_alpha.clone().requires_grad_()
    u = torch.rand(11, generator=torch.Generator().manual_seed(3)).double().clamp(1e-6, 1 - 1e-6)
    z = (torch.sigmoid((torch.log(u) - torch.log(1 - u) + log_alpha) / (2 / 3)) * 1.2 - 0.1).clamp(0, 1)
    weights = [value * factor for value, factor in zip(latent, groups.per_weight(z), strict=True)]
    chance = torch.sigmoid(log_alpha - 2 / 3 * math.log(0.1 / 1.1))
    total = torch.stack([(weight.sin() * weight).sum() for weight in weights]).sum()
    total = total + 0.7 * (groups.size * chance).sum() / groups.total
    expected = torch.autograd.grad(total, [log_alpha, *latent])
    rule.prepare()
    assert all(torch.allclose(one, two) for one, two in zip(groups.weights, weights, strict=True))
    leave_gradients(groups)
    rule.adjust()
    assert rule.log_alpha.grad is not None
    assert torch.allclose(rule.log_alpha.grad, expected[0])
    for weight, gradient in zip(groups.weights, expected[1:], strict=True):
        assert weight.grad is not None and torch.allclose(weight.grad, gradient)


def test_the_dual_variable_rises_while_too_dense_and_starts_again_at_0(groups: Groups) -> None:
    rule = HardConcrete(groups, 0.5, seed=3, gate_lr=0.1, dual_lr=1.0, droprate=0.01)
    for weight in groups.weights:
        weight.grad = torch.zeros_like(weight)
    rule.prepare()
    rule.adjust()
    rising = rule.dual
    assert rising == pytest.approx(0.5, abs=0.01)
    rule.log_alpha.fill_(-5.0)
    rule.prepare()
    rule.adjust()
    assert rule.dual == 0


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_products_of_gates_have_the_gradients_of_autograd_and_begin_balanced(depth: int, groups: Groups) -> None:
    start = [weight.detach().clone() for weight in groups.weights]
    rule = Product(groups, 0.0, lambda_=0.3, depth=depth)
    rule.prepare()
    assert all(torch.allclose(weight, before) for weight, before in zip(groups.weights, start, strict=True))
    latent = [value.clone().requires_grad_() for value in rule.latent_weights]
    norms = groups.inner(latent, latent).sqrt()
    assert all(torch.allclose(gate, norms) for gate in rule.gates)
    gates = rule.gates.clone().requires_grad_()
    spread = groups.per_weight(gates.prod(0))
    weights = [value * factor for value, factor in zip(latent, spread, strict=True)]
    total = torch.stack([(weight.sin() * weight).sum() for weight in weights]).sum()
    squares = groups.inner(latent, latent) + gates.square().sum(0)
    expected = torch.autograd.grad(total + 0.3 / depth * (groups.size.sqrt() * squares).sum(), [gates, *latent])
    leave_gradients(groups)
    rule.adjust()
    assert rule.gates.grad is not None and torch.allclose(rule.gates.grad, expected[0])
    for weight, gradient in zip(groups.weights, expected[1:], strict=True):
        assert weight.grad is not None and torch.allclose(weight.grad, gradient)


def test_products_of_gates_find_the_minima_of_the_group_lasso() -> None:
    """min_θ ||θ - a||²/2 + λ sqrt(n) ||θ|| is a's proximal point, zero where ||a|| ≤ λ sqrt(n)."""
    torch.manual_seed(1)
    trunk = nn.Sequential(nn.Conv2d(4, 6, 1, bias=False))
    groups = ChannelGroups(MultiTaskNet(trunk, {"a": nn.Conv2d(6, 1, 1)}).double())
    (weight,) = groups.weights
    goal = torch.randn_like(weight) * torch.tensor([0.05, 0.3, 1.0, 2.0])[None, :, None, None]
    rule, optimizer = Product(groups, 0.0, lambda_=0.4, depth=2), torch.optim.Adam([weight], 0.02)
    for index in range(3000):
        rule.prepare()
        weight.grad = (weight - goal).detach()
        rule.adjust()
        optimizer.step()
        rule.step(at(index, phase=0.5, lr=0.02))
    norms = goal.transpose(0, 1).flatten(1).norm(dim=1)
    expected = (norms - 0.4 * math.sqrt(6)).clamp(min=0)
    assert torch.allclose(groups.norms(), expected, atol=0.02)


@pytest.mark.parametrize("rule", ["iht", "dsd", "l0", "d-gating"])
def test_a_rule_that_says_nothing_of_overlapping_groups_is_refused(rule: str) -> None:
    with pytest.raises(ConfigError, match=f"'{rule}' acts on groups that do not overlap.*set training.grouping="):
        check_rival(rule, "coupled")


def test_an_unknown_rule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown rival 'heso': did you mean 'hesso'"):
        check_rival("heso", "input_channel")
