"""Coupled channels: found through residuals, concatenations and depthwise layers, and gone without a trace."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ms_automl.errors import NetworkError
from ms_automl.models import MultiTaskNet, head_specs, small_resnet
from ms_automl.sparsity import Groups, build_groups, measure, prox_
from ms_automl.sparsity.coupling import couple
from ms_automl.tasks import depth
from tests.zoo.parts import Function

STREAMS = (
    "stem",
    *(f"block{i}.conv1" for i in (1, 2, 3)),
    "block3.conv2",
    *(f"block{i}.conv1" for i in (4, 5, 6)),
)
SHAPE = (3, 8, 8)


def conv(inputs: int, outputs: int, size: int = 1, **options: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


class Branches(nn.Module):
    """(a ⧺ b) + c behind a depthwise convolution, gated, read by d."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 2), conv(3, 4, 3), conv(3, 6)
        self.depthwise = conv(6, 6, 3, groups=6)
        self.norm = nn.BatchNorm2d(6)
        self.gate = nn.Linear(6, 6)
        self.d = conv(6 + 3, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.cat([self.a(images), self.b(images)], 1) + self.c(images)
        x = F.silu(self.norm(self.depthwise(x)))
        x = x * self.gate(x.mean((2, 3))).sigmoid()[:, :, None, None]
        return self.d(torch.cat([x, images], 1))


def residual() -> MultiTaskNet:
    torch.manual_seed(0)
    return small_resnet(SHAPE, head_specs([depth("d")]), width=4, hidden=4)


def branches() -> MultiTaskNet:
    torch.manual_seed(0)
    return MultiTaskNet(Branches(), {"d": conv(5, 1)})


each_network = pytest.mark.parametrize("build", [residual, branches])


def every_second(groups: Groups) -> Tensor:
    return (torch.arange(len(groups.layer)) % 2).float()


def output(network: MultiTaskNet, train: bool) -> Tensor:
    network.train(train)
    images = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(7))
    return network(images)["d"]


def test_the_streams_of_a_residual_network_run_through_its_additions() -> None:
    groups = build_groups(residual(), "coupled", SHAPE)
    assert groups.names == STREAMS
    assert groups.counts == [4, 4, 4, 6, 6, 6, 6, 6]
    kept = [name for name, may_go in zip(STREAMS, groups.removable, strict=True) if not may_go]
    assert kept == ["stem", "block3.conv2"]
    # the stem's: written by 3 rows x 9 and two convolutions, read by three and a shortcut
    assert float(groups.size[0]) == 3 * 9 + 2 * 4 * 9 + 2 * 4 * 9 + 6 * 9 + 6
    assert groups.total == sum(weight.numel() for weight in groups.weights)
    assert groups.total < float(groups.size.sum())


def test_channels_are_followed_through_concatenation_addition_depthwise_convolution_and_gate() -> None:
    coupling = couple(branches(), SHAPE)
    assert coupling.streams == ("a", "b", "d")
    assert coupling.counts == (2, 4, 5)
    assert coupling.outputs["c.weight"].tolist() == [0, 1, 2, 3, 4, 5]
    assert coupling.inputs["d.weight"].tolist() == [0, 1, 2, 3, 4, 5, -1, -1, -1]
    assert coupling.inputs["a.weight"].tolist() == [-1, -1, -1]
    assert {"a.bias", "b.bias", "c.bias", "d.bias", "depthwise.bias", "norm.weight", "norm.bias"} <= set(
        coupling.companions
    )
    assert not any(coupling.removable)


@each_network
@pytest.mark.parametrize("train", [False, True])
def test_a_dead_channel_is_gone_whatever_its_other_weights_say(
    build: Callable[[], MultiTaskNet], train: bool
) -> None:
    network = build()
    with torch.no_grad():
        for parameter in network.parameters():  # no γ of 1, no β of 0
            parameter.copy_(0.3 * torch.randn(parameter.shape) + 0.1)
    groups = build_groups(network, "coupled", SHAPE)
    whole = output(network, train)
    alive = every_second(groups)
    groups.scale_(alive)
    expected = output(network, train)
    assert not torch.allclose(whole, expected, rtol=0.05)
    coupling = couple(network, SHAPE)
    with torch.no_grad():  # what reads a dead channel reads zeros
        for name, layer in network.penalised().items():
            read = coupling.inputs[f"{name}.weight"]
            dead = (read >= 0) & (alive[read] == 0)
            layer.weight[:, dead] = 5.0
    torch.testing.assert_close(output(network, train), expected, rtol=1e-5, atol=1e-6)


def test_a_network_with_dead_channels_computes_what_the_smaller_network_does() -> None:
    network = residual()
    groups = build_groups(network, "coupled", SHAPE)
    alive = torch.ones(len(groups.layer))
    alive[groups.starts[1] : groups.starts[1] + 2] = 0  # two of the inner channels of block1
    groups.scale_(alive)
    block = network.trunk.get_submodule("block1")
    for train in (True, False):
        expected = output(network, train)
    small = residual()
    small.load_state_dict(network.state_dict())
    inner = small.trunk.get_submodule("block1")
    inner.conv1, inner.bn1, inner.conv2 = conv(4, 2, 3, bias=False), nn.BatchNorm2d(2), conv(2, 4, 3, bias=False)
    with torch.no_grad():
        inner.conv1.weight.copy_(block.conv1.weight[2:])
        inner.conv2.weight.copy_(block.conv2.weight[:, 2:])
        for name, value in inner.bn1.state_dict().items():
            value.copy_(block.bn1.state_dict()[name][2:] if value.ndim else block.bn1.state_dict()[name])
    torch.testing.assert_close(output(small, False), expected, rtol=1e-5, atol=1e-6)


def test_a_dead_channel_has_no_gradient_that_could_wake_it() -> None:
    network = residual()
    groups = build_groups(network, "coupled", SHAPE)
    alive = every_second(groups)
    groups.scale_(alive)
    output(network, True).square().sum().backward()
    for mask, gradient in zip(groups.per_weight(alive), groups.gradients(), strict=True):
        assert bool(torch.isfinite(gradient).all())
        assert bool((gradient[(mask == 0).expand_as(gradient)] == 0).all())


def test_a_weight_of_two_dead_groups_counts_once() -> None:
    groups = build_groups(residual(), "coupled", SHAPE)
    groups.scale_(every_second(groups))
    found = measure(groups)
    zeros = sum(int((weight == 0).sum()) for weight in groups.weights)
    assert found.param == pytest.approx(zeros / groups.total)
    assert found.group == 0.5
    assert found.param > 0.7


def test_the_strongest_prox_empties_branches_and_leaves_a_channel_to_every_residual_stream() -> None:
    network = residual()
    groups = build_groups(network, "coupled", SHAPE)
    prox_(groups, torch.full_like(groups.size, 1e6))
    kept = groups.layer_sum((groups.norms() > 0).float())
    assert dict(zip(groups.names, kept.tolist(), strict=True)) == {
        name: float(name in ("stem", "block3.conv2")) for name in STREAMS
    }
    assert float(output(network, True).detach().std(0).max()) > 0


class Early(nn.Module):
    """Two convolutions, both of which heads read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(3, 4), conv(4, 4)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        first = self.first(images)
        return {"early": first, "late": [first + self.second(F.relu(first))]}


def test_a_stream_that_a_head_reads_keeps_a_channel_whatever_the_network_names_removable() -> None:
    groups = build_groups(MultiTaskNet(Early(), {}, removable=["first", "second"]), "coupled", SHAPE)
    assert groups.names == ("first",)
    assert not bool(groups.removable.any())


class Refused(nn.Module):
    """A trunk with something in its middle."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.first, self.middle, self.last = conv(3, 4), middle, conv(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.middle(self.first(images)))


class Shift(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.ones(1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unused = conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_channels_that_pass_through_what_is_not_followed_have_no_group_and_it_is_said_why() -> None:
    groups = build_groups(MultiTaskNet(Refused(nn.Softmax(1)), {}), "coupled", SHAPE)
    assert groups.names == ("last",) and groups.counts == [2]
    assert groups.left_out == {"first": "it ends in 'middle' (Softmax)"}


@pytest.mark.parametrize("total", ["sum", "std", "var"])
def test_a_channel_of_zeros_has_none_in_its_sum_either(total: str) -> None:
    class Stacked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = conv(3, 8), conv(8, 8), nn.Linear(8, 5)

        def forward(self, images: Tensor) -> Tensor:
            x = self.a(images).relu()
            x = torch.stack([x, self.b(x)]).sum(0)
            return self.c(getattr(x, total)((2, 3)))

    groups = build_groups(MultiTaskNet(Stacked(), {}), "coupled", SHAPE)
    assert groups.names == ("a", "c") and groups.counts == [8, 5]


def test_where_no_channel_can_go_it_is_refused_in_one_line() -> None:
    trunk = nn.Sequential(conv(3, 4), nn.Softmax(1))
    with pytest.raises(
        NetworkError, match=r"no coupled channel of the trunk can go \('1' \(Softmax\)\); use gr"
    ) as caught:
        build_groups(MultiTaskNet(trunk, {}), "coupled", SHAPE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("felt", [nn.Sigmoid(), nn.Softplus(), nn.Sequential(nn.ReLU(), Function(torch.cos))])
def test_a_dead_channel_that_is_felt_costs_its_stream_and_no_other(felt) -> None:
    groups = build_groups(MultiTaskNet(Refused(felt), {}), "coupled", SHAPE)
    assert groups.names == ("last",)
    assert groups.left_out == {"first": "it ends in what gives something else than 0 for 0"}
    trunk = nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 6), felt, conv(6, 5))
    groups = build_groups(MultiTaskNet(trunk, {}), "coupled", SHAPE)
    assert groups.names == ("0", "4")


def test_a_convolution_that_evaluation_does_not_reach_has_no_groups() -> None:
    coupling = couple(MultiTaskNet(Refused(Unused()), {}), SHAPE)
    assert coupling.streams == ("first", "last")
    for index in (coupling.outputs["middle.unused.weight"], coupling.inputs["middle.unused.weight"]):
        assert bool((index == -1).all())


@pytest.mark.parametrize("kind", ["scalar", "tied", "weight_norm"])
def test_weights_of_other_kinds_are_coupled_or_refused_in_one_line(kind: str) -> None:
    class Trunk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = conv(3, 8, 3), conv(8, 8, 3), conv(8, 8, 3)
            self.scale = nn.Parameter(torch.tensor(0.1)) if kind == "scalar" else 1
            if kind == "tied":
                self.c.weight = self.b.weight
            if kind == "weight_norm":
                nn.utils.parametrizations.weight_norm(self.b)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.a(x))
            return x + self.scale * self.c(torch.relu(self.b(x)))

    network = MultiTaskNet(Trunk(), {"d": conv(8, 1)})
    if kind == "scalar":
        assert build_groups(network, "coupled", SHAPE).names == ("a", "b")
    else:  # tied: what b writes is what it reads, so a channel of all of them is one
        try:
            assert build_groups(network, "coupled", SHAPE).names
        except NetworkError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    "middle", [nn.PReLU(4), nn.InstanceNorm2d(4, affine=True), nn.GELU(), nn.Dropout(0.5), Shift()]
)
def test_a_trunk_of_layers_that_work_channel_by_channel_is_coupled(middle: nn.Module) -> None:
    groups = build_groups(MultiTaskNet(Refused(middle), {}), "coupled", SHAPE)
    assert groups.names == ("first", "last")
    assert groups.counts == [4, 2]


def test_weights_of_grouped_convolutions_count_where_they_go() -> None:
    network = MultiTaskNet(Refused(conv(4, 4, groups=2)), {})
    groups = build_groups(network, "coupled", SHAPE)
    assert groups.total == sum(
        network.trunk.get_parameter(f"{name}.weight").numel() for name in ("first", "middle", "last")
    )
    count = len(groups.layer)
    groups.scale_((torch.arange(count) > 0).float())
    zeros = sum(int((weight == 0).sum()) for weight in groups.weights)
    assert zeros == int(groups.zeroed(torch.arange(count))[0]) and (network.trunk.middle.weight[:, 0] == 0).all()


@pytest.mark.parametrize(
    ("middle", "streams"),
    [
        (nn.GroupNorm(2, 4), {"first": 2, "last": 2}),
        (conv(4, 4, groups=2), {"first": 2, "middle": 2, "last": 2}),
        (conv(4, 4, groups=4), {"first": 4, "last": 2}),
    ],
)
def test_channels_that_are_normalised_or_convolved_together_are_one(middle, streams) -> None:
    groups = build_groups(MultiTaskNet(Refused(middle), {}), "coupled", SHAPE)
    assert dict(zip(groups.names, groups.counts, strict=True)) == streams


def test_coupling_leaves_network_gradients_and_buffers_as_they_are() -> None:
    network = residual()
    network.trunk.get_submodule("block1").requires_grad_(False)
    trains = [parameter.requires_grad for parameter in network.parameters()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    build_groups(network, "coupled", SHAPE)
    assert network.trunk.training
    assert trains == [parameter.requires_grad for parameter in network.parameters()]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("grouping", ["input_channel", "output_channel", "coupled", "weight"])
def test_what_can_go_at_most_is_what_is_gone_when_each_layer_keeps_what_it_must(grouping: str) -> None:
    groups = build_groups(residual(), grouping, SHAPE)
    most, before = groups.most, [weight.clone() for weight in groups.weights]
    assert all(torch.equal(*pair) for pair in zip(before, groups.weights, strict=True))
    prox_(groups, torch.full_like(groups.size, 1e6))
    assert 0 < measure(groups).param <= most + 1e-9 < 1
    assert most - measure(groups).param < 0.05  # the strongest group is kept there, the smallest here
