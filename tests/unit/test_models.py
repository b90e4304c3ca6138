import pytest
import torch
from torch import Tensor, nn

from ms_automl.errors import NetworkError
from ms_automl.models import (
    NETWORKS,
    MultiTaskNet,
    check_network,
    flops_of_a_sample,
    head_specs,
    small_resnet,
)
from ms_automl.tasks import binary, classification, depth, normals

TASKS = [depth("depth"), normals(), classification("kind", 3), binary("indoor")]
SHAPE = (3, 12, 16)


def net(**arguments: int) -> MultiTaskNet:
    return small_resnet(SHAPE, head_specs(TASKS), **arguments)


def test_every_head_gives_the_shape_its_task_asks_for() -> None:
    outputs = net(width=4, hidden=4)(torch.randn(2, *SHAPE))
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        "depth": (2, 1, 12, 16),
        "normals": (2, 3, 12, 16),
        "kind": (2, 3),
        "indoor": (2, 1),
    }


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 32, 48), (4, 64, 4)])
def test_small_resnet_takes_any_image_with_sides_that_are_multiples_of_four(shape: tuple[int, int, int]) -> None:
    check_network(small_resnet(shape, head_specs(TASKS), width=4, hidden=2), shape, TASKS)


@pytest.mark.parametrize("shape", [(3, 30, 32), (3, 32, 49)])
def test_other_image_sides_are_refused_with_what_to_do(shape: tuple[int, int, int]) -> None:
    with pytest.raises(NetworkError, match=f"multiples of 4, but got {shape[1]} x {shape[2]}: pad"):
        small_resnet(shape, head_specs(TASKS))


@pytest.mark.parametrize("bad", [{"width": 3}, {"width": 5}, {"width": 0}, {"hidden": 0}])
def test_a_width_out_of_range_is_refused_with_its_value(bad: dict[str, int]) -> None:
    ((name, value),) = bad.items()
    with pytest.raises(NetworkError, match=f"must hold, but got .*{name}={value}"):
        net(**bad)


def test_no_block_of_the_default_network_holds_more_than_a_quarter_of_the_trunks_weights() -> None:
    trunk = net().trunk
    sizes: dict[str, int] = {}
    for name, module in trunk.named_modules():
        if isinstance(module, nn.Conv2d):
            block = name.partition(".")[0]
            sizes[block] = sizes.get(block, 0) + module.weight.numel()
    assert len(sizes) == 7
    assert max(sizes.values()) <= 0.25 * sum(sizes.values())


def test_every_convolution_of_the_trunk_and_none_of_a_head_is_penalised() -> None:
    network = net()
    convs = {name: m for name, m in network.trunk.named_modules() if isinstance(m, nn.Conv2d)}
    assert network.penalised() == convs
    assert len(convs) == 1 + 6 * 2 + 1


def test_only_convolutions_with_a_skip_around_them_may_go_entirely() -> None:
    network = net(width=4, hidden=4).eval()
    assert network.removable == set(network.penalised()) - {"stem", "block3.shortcut"}
    for name in network.removable:
        nn.init.zeros_(network.penalised()[name].weight)
    images = torch.randn(2, *SHAPE)
    assert not torch.equal(network(images)["depth"], network(2 * images)["depth"])  # the signal passes


def test_the_trunk_is_computed_once_for_all_heads() -> None:
    network, calls = net(width=4, hidden=4), []
    network.trunk.register_forward_hook(lambda *_: calls.append(1))
    network(torch.randn(2, *SHAPE))
    assert len(calls) == 1


def test_depthwise_convolutions_are_no_groups_and_cannot_be_removable() -> None:
    trunk = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1))
    assert list(MultiTaskNet(trunk, {}, ["1"]).penalised()) == ["1"]
    for unknown in ("0", "2", "trunk.1", ""):
        with pytest.raises(NetworkError, match=rf"`removable` names \['{unknown}'\], which are no layers"):
            MultiTaskNet(trunk, {}, [unknown, "1"])


@pytest.mark.parametrize("training", [True, False])
def test_the_check_leaves_state_mode_and_random_numbers_alone(training: bool) -> None:
    network = net(width=4, hidden=4).train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    check_network(network, SHAPE, TASKS)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training is training
    assert torch.equal(torch.get_rng_state(), random)


def simple(**heads: nn.Module) -> MultiTaskNet:
    return MultiTaskNet(nn.Conv2d(3, 2, 1), heads)


def test_a_head_of_the_wrong_shape_is_named_with_both_shapes() -> None:
    network = simple(depth=nn.Conv2d(2, 2, 1))
    with pytest.raises(NetworkError, match=r"'depth'.*gives shape \(2, 2, 12, 16\), expected \(2, 1, 12, 16\)"):
        check_network(network, SHAPE, TASKS[:1])


def test_a_missing_head_is_named_with_those_there_are() -> None:
    with pytest.raises(NetworkError, match="no head for normals, indoor; heads: depth, kind"):
        check_network(simple(depth=nn.Identity(), kind=nn.Identity()), SHAPE, TASKS)


class _Typo(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features["late"]  # type: ignore[call-overload]


class _Pair(nn.Module):
    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return features, features


@pytest.mark.parametrize(
    "head", [nn.Conv2d(5, 1, 1), nn.Linear(3, 1), _Typo()], ids=["channels", "linear", "typo"]
)
def test_a_network_that_fails_on_images_is_an_error_in_one_line(head: nn.Module) -> None:
    network = simple(depth=head).train()
    with pytest.raises(NetworkError, match=r"fails on images of shape \(2, 3, 12, 16\): .+") as error:
        check_network(network, SHAPE, TASKS[:1])
    assert "\n" not in str(error.value)
    assert network.training


def test_a_head_that_gives_no_tensor_is_named() -> None:
    with pytest.raises(NetworkError, match="task 'depth': the head gives a tuple, expected a tensor"):
        check_network(simple(depth=_Pair()), SHAPE, TASKS[:1])


def test_a_network_of_another_class_or_without_convolutions_is_refused() -> None:
    with pytest.raises(NetworkError, match="must return a MultiTaskNet, but returned Conv2d"):
        check_network(nn.Conv2d(3, 1, 1), SHAPE, TASKS)
    with pytest.raises(NetworkError, match="no ungrouped convolution and no linear layer"):
        check_network(MultiTaskNet(nn.Flatten(), {}), SHAPE, TASKS)


def test_every_network_of_the_table_passes_the_check() -> None:
    shape = (3, 16, 24)
    for factory in NETWORKS.values():
        check_network(factory(shape, head_specs(TASKS), width=4, hidden=4), shape, TASKS)


def test_flops_are_those_of_the_layers_and_leave_the_network_as_it_is() -> None:
    network = net(width=8, hidden=8)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    both, forward = flops_of_a_sample(network, SHAPE)
    sizes: dict[nn.Module, int] = {}

    def note(layer: nn.Module, _: object, output: Tensor) -> None:
        sizes[layer] = output.shape[-2:].numel() if output.ndim == 4 else 1

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        layer.register_forward_hook(note)
    network.eval()(torch.zeros(1, *SHAPE))
    assert forward == 2 * sum(layer.weight.numel() * sizes[layer] for layer in layers)
    # Each layer takes two more of the same, but the first needs no gradient of the image.
    assert 2.5 * forward < both < 3 * forward
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class _Looking(nn.Module):
    """Does as it sees."""

    def forward(self, features: Tensor) -> Tensor:
        return features if float(features.detach().sum()) < 0 else features + torch.ones(1)


def test_flops_of_a_network_that_looks_at_values_are_counted_on_values() -> None:
    plain, looking = simple(depth=nn.Identity()), simple(depth=_Looking())
    assert (
        flops_of_a_sample(looking, SHAPE)
        == flops_of_a_sample(plain, SHAPE)
        == (2 * 2 * 6 * 12 * 16, 2 * 6 * 12 * 16)
    )
