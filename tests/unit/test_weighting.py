"""How the losses of several tasks become the one that a step descends."""

import sys
from dataclasses import replace

import pytest
import torch

from ms_automl.errors import ConfigError
from ms_automl.meta.settings import ForwardExactSettings
from ms_automl.models import frozen_buffers
from ms_automl.training import TrainingLoop, TrainingSettings, task_losses
from ms_automl.training.weighting import AGGREGATORS, WEIGHTINGS, DynamicAverage, Famo, RandomWeights
from trainables import MetaSparsity

SHORT = TrainingSettings(steps=8, batch_size=6, report_every=2)
CPU = torch.device("cpu")


def losses(*values):
    return dict(zip(("depth", "kind"), map(torch.tensor, values), strict=True))


def test_the_worst_task_alone_is_descended(tiny_data, tiny_network):
    loop = TrainingLoop(tiny_data, tiny_network(), replace(SHORT, weighting="chebyshev"), seed=0)
    one, other = loop.data.tasks
    assert float(loop.weighting.total(loop.data.tasks, losses(0.5, 2.0))) == 2.0 * other.weight
    assert float(loop.weighting.total(loop.data.tasks, losses(9.0, 2.0))) == 9.0 * one.weight
    loop.network.train()
    loop.backward(tiny_data.train.batch(torch.arange(6)))
    reached = [
        name
        for name, head in loop.network.heads.items()
        if any(value.grad is not None and bool(value.grad.any()) for value in head.parameters())
    ]
    assert len(reached) == 1


def test_random_factors_add_up_to_the_number_of_tasks_and_are_drawn_anew(tiny_data):
    tasks = tiny_data.tasks
    one, same, other = (RandomWeights(tasks, CPU, seed) for seed in (1, 1, 2))
    assert float(one.total(tasks, losses(1.0, 3.0))) == pytest.approx(
        sum(t.weight * v for t, v in zip(tasks, (1, 3), strict=True))
    )
    drawn = []
    for _ in range(200):
        one.begin(), same.begin(), other.begin()
        assert torch.equal(one.factors, same.factors) and not torch.equal(one.factors, other.factors)
        assert float(one.factors.sum()) == pytest.approx(2)
        drawn.append(one.factors)
    assert torch.stack(drawn).mean(0).tolist() == pytest.approx([1, 1], abs=0.15)


@pytest.mark.parametrize("weighting", AGGREGATORS)
def test_the_trunk_gets_the_weighted_gradients_and_each_head_its_own(weighting, tiny_data, tiny_network):
    loop = TrainingLoop(tiny_data, tiny_network(), replace(SHORT, weighting=weighting), seed=0)
    batch = tiny_data.train.batch(torch.arange(6))
    trunk = list(loop.network.trunk.parameters())
    loop.network.train()
    rows = []
    with frozen_buffers(loop.network):
        for task in loop.data.tasks:
            loss = task_losses([task], loop.network(batch.images), batch)[task.name]
            found = torch.autograd.grad(task.weight * loss, trunk, allow_unused=True)
            rows.append(torch.cat([g.flatten() for g in found if g is not None]))
        loop.weighting.begin()
        loop.backward(batch)
    matrix = torch.stack(rows).double()
    twin = WEIGHTINGS[weighting](loop.network, tiny_data, 6, 2)
    twin.begin()
    expected = twin.weights(matrix @ matrix.T) @ matrix
    left = torch.cat([value.grad.flatten() for value in trunk if value.grad is not None]).double()
    assert torch.allclose(left, expected, rtol=1e-3, atol=1e-7)
    for task in loop.data.tasks:
        own = [*loop.network.heads[task.name].parameters()]
        loss = task.weight * task_losses([task], loop.network(batch.images), batch)[task.name]
        for value, gradient in zip(own, torch.autograd.grad(loss, own), strict=True):
            assert torch.allclose(value.grad, gradient, rtol=1e-4, atol=1e-7)


def conflicting(weighting, tiny_data, tiny_network):
    loop = TrainingLoop(tiny_data, tiny_network(), replace(SHORT, weighting=weighting), seed=0)
    loop.weighting.begin()
    rows = torch.tensor([[1.0, 0.0], [-0.8, 0.3]], dtype=torch.float64)
    return loop.weighting.weights(rows @ rows.T) @ rows, rows


@pytest.mark.parametrize("weighting", ["upgrad", "pcgrad", "mgda", "nash-mtl", "imtl-g"])
def test_tasks_in_conflict_lose_nothing(weighting, tiny_data, tiny_network):
    combined, rows = conflicting(weighting, tiny_data, tiny_network)
    assert bool((rows.sum(0) @ rows.T > -0.2).all()) and bool((rows @ combined >= -1e-6).all())


def test_without_a_conflict_the_projecting_ones_descend_the_sum(tiny_data, tiny_network):
    for weighting in ("upgrad", "pcgrad"):
        loop = TrainingLoop(tiny_data, tiny_network(), replace(SHORT, weighting=weighting), seed=0)
        loop.weighting.begin()
        rows = torch.tensor([[1.0, 0.2], [0.5, 0.9]], dtype=torch.float64)
        assert loop.weighting.weights(rows @ rows.T).tolist() == pytest.approx([1, 1], abs=1e-3)


def test_a_weighting_whose_package_is_missing_is_refused_in_a_line(tiny_data, tiny_network, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(ConfigError, match=r"weighting=upgrad needs the package torchjd: pip install 'ms_automl\["):
        TrainingLoop(tiny_data, tiny_network(), replace(SHORT, weighting="upgrad"), seed=0)


def test_replaying_learners_refuse_a_weighting_that_follows_no_one_loss():
    with pytest.raises(ConfigError, match=r"replays training steps along one loss.*set meta.learner=waterfill"):
        MetaSparsity.check(replace(SHORT, weighting="upgrad"), ForwardExactSettings())


def test_famo_factors_follow_their_formula(tiny_data):
    rule = Famo(tiny_data.tasks, CPU)
    rule.xi.copy_(torch.tensor([0.3, -0.2]))
    z = torch.tensor([0.3, -0.2]).softmax(0)
    values = torch.tensor([0.5, 2.0], requires_grad=True)
    rule.begin()
    total = rule.total(tiny_data.tasks, dict(zip(("depth", "kind"), values, strict=True)))
    (gradient,) = torch.autograd.grad(total, values)
    assert torch.allclose(gradient, 2 * (z / values.detach()) / (z / values.detach()).sum())
    rule.observe(losses(0.5, 2.0))
    rule.look_back(lambda: losses(0.4, 2.0))  # depth has fallen, kind has not
    delta = torch.tensor([0.5, 2.0]).log() - torch.tensor([0.4, 2.0]).log()
    assert torch.allclose(rule.xi.grad, z * (delta - z @ delta) + 0.0, atol=1e-6)
    assert float(rule.xi[0]) < 0.3 and float(rule.xi[1]) > -0.2


def test_dynamic_averages_follow_their_formula(tiny_data):
    tasks = tiny_data.tasks
    rule = DynamicAverage(tasks, CPU, epoch=2)
    epochs = [((1.0, 4.0), (3.0, 4.0)), ((1.0, 4.0), (1.0, 2.0)), ((1.0, 1.0), (1.0, 1.0))]
    seen = []
    for epoch in epochs:
        for values in epoch:
            rule.begin()
            seen.append(rule.factors.tolist())
            for half in (0.25, 0.75):  # parts of a batch
                rule.observe({name: half * loss for name, loss in losses(*values).items()})
    assert seen[:4] == [[1.0, 1.0]] * 4
    expected = 2 * (torch.tensor([2.0 / 4.0, 6.0 / 8.0]) / 2).softmax(0)
    assert seen[4] == pytest.approx(expected.tolist()) and seen[5] == seen[4]
    assert seen[4][1] > seen[4][0]  # what falls more slowly counts more


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_going_on_equals_never_having_stopped(weighting, tiny_data, tiny_network):
    settings = replace(SHORT, weighting=weighting)
    whole, first, second = (TrainingLoop(tiny_data, tiny_network(), settings, seed=0) for _ in range(3))
    for _ in range(4):
        whole.interval()
    for _ in range(2):
        first.interval()
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        second.interval()
    for one, other in zip(whole.network.state_dict().values(), second.network.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("weighting", [name for name in WEIGHTINGS if name not in ("equal", "chebyshev", "famo")])
def test_parts_of_a_batch_add_up_to_it(weighting, tiny_data, tiny_network):
    def gradients(**changes):
        loop = TrainingLoop(tiny_data, tiny_network(), replace(SHORT, weighting=weighting, **changes), seed=0)
        loop.network.eval()  # batch norm would see each part on its own
        loop.weighting.begin()
        loop.backward(tiny_data.train.batch(torch.arange(6)))
        return [value.grad for value in loop.network.parameters()]

    for one, other in zip(gradients(), gradients(micro_batch=4), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_weightings_train_different_networks(tiny_data, tiny_network):
    found = []
    for weighting in WEIGHTINGS:
        loop = TrainingLoop(tiny_data, tiny_network(), replace(SHORT, weighting=weighting), seed=0)
        while not loop.done:
            loop.interval()
        found.append(torch.cat([value.detach().flatten() for value in loop.network.trunk.parameters()]))
    differing = [not torch.equal(one, found[0]) for one in found[1:]]
    assert differing[1] and differing[3]  # random, chebyshev; two epochs are over for the rest


def test_an_unknown_weighting_is_refused():
    with pytest.raises(ConfigError, match="unknown weighting 'famos': did you mean 'famo'"):
        TrainingSettings(weighting="famos")
