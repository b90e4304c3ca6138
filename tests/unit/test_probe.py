"""The probe: two runs compared in the middle of training, under batch statistics."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from ms_automl.data import MultiTaskData, TensorSplit
from ms_automl.errors import DivergenceError
from ms_automl.models import MultiTaskNet
from ms_automl.training import PROBE, TrainingLoop, TrainingSettings, task_losses
from tests.unit.steps import Told
from trainables import Dense

Build = Callable[[], MultiTaskNet]
SETTINGS = TrainingSettings(steps=8, batch_size=6, report_every=3)


def loop(data: MultiTaskData, build: Build, settings: TrainingSettings = SETTINGS) -> TrainingLoop:
    return TrainingLoop(data, build(), settings, 0)


def disturb(network: nn.Module) -> None:
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.add_(3.0)


def longer(data: MultiTaskData, count: int) -> MultiTaskData:
    batch = data.val.batch(torch.arange(count) % len(data.val))
    return replace(data, val=TensorSplit(batch.images, batch.targets, batch.valid))


def test_a_probe_is_the_validation_loss_by_task_under_batch_statistics(
    tiny_data: MultiTaskData, tiny_network: Build
) -> None:
    found = loop(tiny_data, tiny_network).probe()
    batch = tiny_data.val.batch(torch.arange(12))
    with torch.no_grad():
        losses = task_losses(tiny_data.tasks, tiny_network().train()(batch.images), batch)
    assert found == pytest.approx({f"probe/{name}/loss": float(loss) for name, loss in losses.items()}, rel=1e-5)


def test_a_probe_does_not_depend_on_the_running_averages(tiny_data: MultiTaskData, tiny_network: Build) -> None:
    training = loop(tiny_data, tiny_network)
    before, evaluated = training.probe(), training.interval()
    twin = loop(tiny_data, tiny_network)
    disturb(twin.network)
    assert twin.probe() == before
    assert twin.interval()["val/depth/loss"] != evaluated["val/depth/loss"], "the disturbance is one"


@pytest.mark.parametrize("training", [True, False])
def test_a_probe_leaves_buffers_weights_gradients_and_mode_as_they_are(
    tiny_data: MultiTaskData, tiny_network: Build, training: bool
) -> None:
    here = loop(tiny_data, tiny_network)
    here.interval()
    network = here.network.train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in network.parameters()]
    random = torch.get_rng_state()
    here.probe()
    assert list(network.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        assert parameter.grad is gradient is None or torch.equal(parameter.grad, gradient)
    assert all(module.training == training for module in network.modules())
    assert torch.equal(torch.get_rng_state(), random)


def test_a_probed_run_trains_as_one_that_is_not_bit_for_bit(tiny_data: MultiTaskData, tiny_network: Build) -> None:
    plain, probed = (Dense(tiny_data, tiny_network(), SETTINGS, 0, probe=probe) for probe in (False, True))
    while not plain.done:
        expected, found = plain.step(), probed.step()
        assert {name: found[name] for name in expected} == expected
        assert {
            name for name in set(found) - set(expected) if not name.endswith(("/constant", "/loss_error"))
        } == {"probe/depth/loss", "probe/kind/loss", "bounds/step", "bounds/shrink"}
    for name, value in plain.loop.network.state_dict().items():
        assert torch.equal(value, probed.loop.network.state_dict()[name])


def test_a_probe_is_counted_as_what_it_passes_forward(tiny_data: MultiTaskData, tiny_network: Build) -> None:
    training = loop(tiny_data, tiny_network)
    training.probe()
    assert training.cost.forward == 12
    assert training.cost.train == training.cost.outer == training.cost.hessian == 0
    planned = SETTINGS.cost(tiny_data, probes=5)
    assert planned.forward - SETTINGS.cost(tiny_data).forward == 60


def test_a_probe_looks_at_the_first_samples_of_a_long_split_alone(
    tiny_data: MultiTaskData, tiny_network: Build
) -> None:
    data = longer(tiny_data, PROBE + 7)
    training = loop(data, tiny_network)
    found = training.probe()
    assert training.cost.forward == PROBE == SETTINGS.probe_samples(data)
    assert found == loop(longer(tiny_data, PROBE), tiny_network).probe()


def test_no_batch_of_a_probe_is_so_small_that_its_statistics_are_its_own(
    tiny_data: MultiTaskData, tiny_network: Build
) -> None:
    sizes: list[int] = []
    training = loop(longer(tiny_data, 49), tiny_network)  # two batches of 24 and a sample
    training.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    training.probe()
    assert sum(sizes) == 49
    assert max(sizes) <= 24
    assert max(sizes) - min(sizes) <= 1


def test_a_probe_that_is_not_finite_is_an_error_that_names_the_step(
    tiny_data: MultiTaskData, tiny_network: Build
) -> None:
    training = loop(tiny_data, tiny_network)
    training.interval()
    training.network.heads["depth"][-2].bias.data.fill_(torch.nan)
    with pytest.raises(DivergenceError, match=r"probe loss not finite at step 3: .*depth"):
        training.probe()


@pytest.mark.parametrize(
    ("steps", "share", "every", "expected"),
    [(16, 0.75, 3, 3), (16, 0.75, 4, 2), (16, 0.75, 12, 0), (10, 1.0, 3, 3), (10, 1.0, 5, 1), (10, 0.01, 1, 0)],
)
def test_the_sparsifying_reports_are_those_before_the_zeros_are_frozen(
    tiny_data: MultiTaskData, tiny_network: Build, steps: int, share: float, every: int, expected: int
) -> None:
    settings = TrainingSettings(steps=steps, batch_size=6, prox_share=share, report_every=every)
    assert settings.sparsifying_reports == expected
    training, found = loop(tiny_data, tiny_network, settings), 0
    training.sparsifier.rule = Told()
    while not training.done:
        training.interval()
        found += training.sparsifier.pattern is None
    assert found == expected
