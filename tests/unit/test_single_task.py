from collections.abc import Callable

import pytest
import torch

from ms_automl.data import MultiTaskData
from ms_automl.errors import ConfigError
from ms_automl.meta import LambdaSchedule
from ms_automl.models import MultiTaskNet
from ms_automl.sparsity import ChannelGroups
from ms_automl.training import TrainingSettings, task_losses
from trainables import METHODS, Dense, FixedLambda

Build = Callable[[], MultiTaskNet]
SETTINGS = TrainingSettings(steps=4, batch_size=6, report_every=4)


def test_a_single_task_trains_the_trunk_and_its_own_head(tiny_data: MultiTaskData, tiny_network: Build) -> None:
    network = tiny_network()
    method = METHODS["single_task"].build(tiny_data, network, SETTINGS, 0, task="kind")
    report = method.step()
    assert isinstance(method, Dense)
    assert list(network.heads) == ["kind"]
    assert {name.split("/")[1] for name in report if name.startswith(("val/", "test/"))} == {"kind"}


def test_a_single_task_starts_from_the_same_trunk_and_takes_its_own_gradient_alone(
    tiny_data: MultiTaskData, tiny_network: Build
) -> None:
    network, twin = tiny_network().train(), tiny_network().train()
    method = METHODS["single_task"].build(tiny_data, network, SETTINGS, 0, task="kind")
    assert isinstance(method, Dense)
    batch = tiny_data.train.batch(torch.arange(6))
    method.loop.backward(batch)
    task_losses(tiny_data.tasks[1:], twin(batch.images), batch)["kind"].backward()
    expected = dict(twin.named_parameters())
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad)


def test_a_schedule_makes_a_single_task_sparse(tiny_data: MultiTaskData, tiny_network: Build) -> None:
    schedule = LambdaSchedule.constant(dict.fromkeys(ChannelGroups(tiny_network()).names, 1.0))
    method = METHODS["single_task"].build(tiny_data, tiny_network(), SETTINGS, 0, task="kind", schedule=schedule)
    assert isinstance(method, FixedLambda)


def test_an_unknown_task_is_refused_with_the_known_ones(tiny_data: MultiTaskData, tiny_network: Build) -> None:
    with pytest.raises(ConfigError, match=r"unknown task 'dept': did you mean 'depth'\? Known: depth, kind\."):
        METHODS["single_task"].build(tiny_data, tiny_network(), SETTINGS, 0, task="dept")
