"""How the losses of several tasks become the one that a step descends."""

from dataclasses import replace

import pytest
import torch

from ms_automl.errors import ConfigError
from ms_automl.training import TrainingLoop, TrainingSettings
from ms_automl.training.weighting import WEIGHTINGS, DynamicAverage, RandomWeights

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


@pytest.mark.parametrize("weighting", [name for name in WEIGHTINGS if name not in ("equal", "chebyshev")])
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
    with pytest.raises(ConfigError, match="unknown weighting 'famo'"):
        TrainingSettings(weighting="famo")
