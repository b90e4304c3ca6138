from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ms_automl.data import Batch, MultiTaskData
from ms_automl.meta.outer import episode, outer_gradient
from ms_automl.meta.reference import FLOOR, Reference
from ms_automl.models import MultiTaskNet
from ms_automl.sparsity import ChannelGroups

ONES = Reference({"depth": 1.0, "kind": 1.0})


def test_episodes_are_uniform_over_the_non_empty_subsets() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = Counter(tuple(episode(3, generator)) for _ in range(7000))
    assert len(drawn) == 7
    assert () not in drawn
    assert sum((count - 1000) ** 2 / 1000 for count in drawn.values()) < 22.5  # chi², 6 degrees, p = .001
    assert episode(1, generator) == [0]


@pytest.fixture
def outer(tiny_data: MultiTaskData, tiny_network: Callable[[], MultiTaskNet]) -> tuple[MultiTaskNet, Batch]:
    return tiny_network().train(), tiny_data.val.batch(torch.arange(6))


def test_the_outer_gradient_is_that_of_the_mean_relative_loss(
    outer: tuple[MultiTaskNet, Batch], tiny_data: MultiTaskData
) -> None:
    network, batch = outer
    references = {"depth": 2.0, "kind": 0.5}
    weights = ChannelGroups(network).weights
    reference = Reference(references)
    for chosen in (tiny_data.tasks, tiny_data.tasks[:1], tiny_data.tasks[1:]):
        found = outer_gradient(network, weights, batch, chosen, reference)
        outputs = network(batch.images)
        total = sum(
            task.loss(outputs[task.name], batch.targets[task.name], batch.valid[task.name]) / references[task.name]
            for task in chosen
        )
        expected = torch.autograd.grad(total / len(chosen), weights)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)
        assert max(float(gradient.abs().max()) for gradient in found) > 0


def test_the_outer_gradient_leaves_buffers_grad_fields_and_weights_alone(
    outer: tuple[MultiTaskNet, Batch], tiny_data: MultiTaskData
) -> None:
    network, batch = outer
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    outer_gradient(network, ChannelGroups(network).weights, batch, tiny_data.tasks, ONES)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(bool((p.grad == 3).all()) for p in network.parameters() if p.grad is not None)
    network(batch.images)  # and the buffers are tracked again
    assert not torch.equal(network.state_dict()["trunk.bn.running_mean"], before["trunk.bn.running_mean"])


def test_a_loss_reference_near_zero_is_floored(
    outer: tuple[MultiTaskNet, Batch], tiny_data: MultiTaskData
) -> None:
    network, batch = outer
    weights = ChannelGroups(network).weights
    kind = tiny_data.tasks[1:]
    floored = outer_gradient(network, weights, batch, kind, Reference({"kind": 1e-9}))
    expected = outer_gradient(network, weights, batch, kind, Reference({"kind": FLOOR}))
    assert all(torch.equal(a, b) for a, b in zip(floored, expected, strict=True))


def test_in_the_scale_of_skill_a_task_counts_by_what_dense_has_learned(
    outer: tuple[MultiTaskNet, Batch], tiny_data: MultiTaskData
) -> None:
    network, batch = outer
    weights = ChannelGroups(network).weights
    losses, constants = {"depth": -2.0, "kind": 0.5}, {"depth": -1.5, "kind": 0.4}
    reference = Reference(losses, constants=constants, scale="skill", unlearned=("kind",))
    found = outer_gradient(network, weights, batch, tiny_data.tasks, reference)
    ratio = outer_gradient(network, weights, batch, tiny_data.tasks[:1], Reference({"depth": 0.5}))
    for a, b in zip(found, ratio, strict=True):  # one task of two is learned: it has the weight of both
        torch.testing.assert_close(a, b)


class _TwoScales(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.early = torch.nn.Conv2d(2, 3, 1)
        self.late = torch.nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        early = self.early(images)
        return [early, self.late(early)]


class _Pick(torch.nn.Module):
    def forward(self, features: list[Tensor]) -> Tensor:
        return features[0][:, :1]


def test_a_layer_that_the_episodes_tasks_do_not_read_has_an_outer_gradient_of_zero(
    tiny_data: MultiTaskData,
) -> None:
    network = MultiTaskNet(_TwoScales(), {"depth": _Pick()})
    batch = tiny_data.val.batch(torch.arange(4))
    early, late = outer_gradient(network, ChannelGroups(network).weights, batch, tiny_data.tasks[:1], ONES)
    assert float(early.abs().max()) > 0
    assert torch.equal(late, torch.zeros(3, 3, 1, 1))


def test_the_gradients_of_parts_add_up_to_the_batchs(tiny_data: MultiTaskData) -> None:
    torch.manual_seed(0)
    heads = {
        "depth": nn.Conv2d(4, 1, 1),
        "kind": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    }
    network = MultiTaskNet(nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Softplus()), heads)  # no batch norm
    weights, batch = list(network.parameters()), tiny_data.val.batch(torch.arange(7))
    references = Reference({"depth": 2.0, "kind": 0.5})
    whole = outer_gradient(network, weights, batch, tiny_data.tasks, references)
    for count in (1, 2, 3, 7):
        parts = outer_gradient(network, weights, batch, tiny_data.tasks, references, batch.split(count))
        for one, other in zip(whole, parts, strict=True):
            torch.testing.assert_close(one, other)
