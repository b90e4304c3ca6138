from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.func import functional_call

from ms_automl.data import Batch, MultiTaskData, TensorSplit
from ms_automl.errors import ConfigError, DivergenceError
from ms_automl.meta.outer import episode
from ms_automl.models import MultiTaskNet
from ms_automl.training import TrainingSettings, task_losses
from trainables import METHODS, MultiTaskMeta

Build = Callable[[], MultiTaskNet]
SETTINGS = TrainingSettings(steps=4, batch_size=6, report_every=4)


def part(batch: Batch, start: int, stop: int) -> Batch:
    return Batch(
        batch.images[start:stop],
        {name: target[start:stop] for name, target in batch.targets.items()},
        {name: valid[start:stop] for name, valid in batch.valid.items()},
    )


def by_hand(
    network: MultiTaskNet, data: MultiTaskData, chosen: list[int], parts: list[Batch], inner_lr: float
) -> dict[str, torch.Tensor]:
    weights = {name: parameter.detach() for name, parameter in network.named_parameters()}
    gradient: dict[str, torch.Tensor] = {}
    for number, batch in enumerate(parts):
        if number:
            weights = {name: weight - inner_lr * gradient[name] for name, weight in weights.items()}
        free = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
        outputs = functional_call(network, free, batch.images)
        tasks = [data.tasks[index] for index in chosen]
        losses = task_losses(tasks, outputs, batch)
        total = sum(task.weight * losses[task.name] for task in tasks)
        found = torch.autograd.grad(
            len(data.tasks) / len(tasks) * total, list(free.values()), allow_unused=True, materialize_grads=True
        )
        gradient = dict(zip(free, found, strict=True))
    return gradient


@pytest.mark.parametrize(("inner_steps", "cuts"), [(1, (0, 3, 6)), (2, (0, 2, 4, 6))])
@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_is_that_of_first_order_maml_by_hand(
    inner_steps: int, cuts: tuple[int, ...], seed: int, tiny_data: MultiTaskData, tiny_network: Build
) -> None:
    network = tiny_network().double().train()
    method = MultiTaskMeta(tiny_data, network, SETTINGS, seed, inner_lr=0.5, inner_steps=inner_steps)
    batch = tiny_data.train.batch(torch.arange(6))
    batch = replace(batch, images=batch.images.double())
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    chosen = episode(2, torch.Generator().manual_seed(seed + 1))
    parts = [part(batch, start, stop) for start, stop in pairwise(cuts)]
    expected = by_hand(tiny_network().double().train(), tiny_data, chosen, parts, 0.5)
    unadapted = by_hand(tiny_network().double().train(), tiny_data, chosen, parts[-1:], 0.5)
    method.backward(batch)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])
        assert torch.equal(parameter, before[name])
    assert any(not torch.allclose(expected[name], unadapted[name], rtol=1e-2) for name in expected)
    assert method.cost.train == 6


def test_the_drawn_tasks_vary_and_those_left_out_have_a_gradient_of_zero(
    tiny_data: MultiTaskData, tiny_network: Build
) -> None:
    network = tiny_network().train()
    method = MultiTaskMeta(tiny_data, network, SETTINGS, 0)
    batch, seen = tiny_data.train.batch(torch.arange(6)), set()
    for _ in range(20):
        method.backward(batch)
        gradients = {name: [p.grad for p in head.parameters()] for name, head in network.heads.items()}
        assert all(gradient is not None for head in gradients.values() for gradient in head)
        seen.add(tuple(name for name, head in gradients.items() if any(float(g.abs().max()) for g in head)))
    assert seen == {("depth",), ("kind",), ("depth", "kind")}


def test_running_averages_follow_the_support_part_at_the_weights_that_are_kept(
    tiny_data: MultiTaskData, tiny_network: Build
) -> None:
    network, twin = tiny_network().train(), tiny_network().train()
    method = MultiTaskMeta(tiny_data, network, SETTINGS, 0, inner_lr=0.5)
    batch = tiny_data.train.batch(torch.arange(6))
    method.backward(batch)
    twin(part(batch, 0, 3).images)
    for (name, buffer), expected in zip(network.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(buffer, expected, msg=name)


def test_only_the_train_split_moves_the_weights(tiny_data: MultiTaskData, tiny_network: Build) -> None:
    states = []
    for shift in (0.0, 1.0):
        val = tiny_data.val.batch(torch.arange(12))
        other = TensorSplit(val.images + shift, val.targets, val.valid)
        data = MultiTaskData("tiny", tiny_data.train, other, tiny_data.test, tiny_data.tasks)
        network = tiny_network()
        MultiTaskMeta(data, network, SETTINGS, 0).step()
        states.append(network.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_frozen_weight_stays_where_it_is(tiny_data: MultiTaskData, tiny_network: Build) -> None:
    network = tiny_network()
    network.trunk.stem.weight.requires_grad_(False)
    before = network.trunk.stem.weight.clone()
    MultiTaskMeta(tiny_data, network, SETTINGS, 0).step()
    assert torch.equal(network.trunk.stem.weight, before)


@pytest.mark.parametrize(
    ("bad", "condition"),
    [
        ({"inner_lr": -0.1}, "`inner_lr >= 0` must hold, but got inner_lr=-0.1"),
        ({"inner_lr": float("nan")}, "`inner_lr >= 0` must hold"),
        ({"inner_steps": 0}, "`1 <= inner_steps < batch_size` must hold, but got inner_steps=0 and batch_size=6"),
        ({"inner_steps": 6}, "`1 <= inner_steps < batch_size` must hold, but got inner_steps=6"),
    ],
    ids=str,
)
def test_inner_settings_out_of_range_are_refused(
    bad: dict[str, float], condition: str, tiny_data: MultiTaskData, tiny_network: Build
) -> None:
    with pytest.raises(ConfigError, match=condition):
        METHODS["mtml"].build(tiny_data, tiny_network(), SETTINGS, 0, **bad)


def test_an_inner_step_too_long_ends_the_trial_naming_the_loss(
    tiny_data: MultiTaskData, tiny_network: Build
) -> None:
    with pytest.raises(DivergenceError, match="loss not finite at step 0"):
        MultiTaskMeta(tiny_data, tiny_network(), SETTINGS, 0, inner_lr=1e38).step()
