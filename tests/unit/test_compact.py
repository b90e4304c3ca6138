"""A compact network computes what the masked one does, whatever is zero in it."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ms_automl.errors import NetworkError
from ms_automl.models import MultiTaskNet, flops_of_a_sample, head_specs, overparameterise, small_resnet
from ms_automl.models.surgery import Surgery, operate
from ms_automl.sparsity import GROUPINGS, build_groups
from ms_automl.sparsity.compact import check_equal, compact, leftovers
from ms_automl.tasks import classification, depth
from tests.unit.test_coupled import branches

SHAPE = (3, 8, 8)
TASKS = (depth("depth"), classification("kind", 3))


class Block(nn.Module):
    """Two convolutions, with a skip around them where that is asked for."""

    def __init__(self, inputs: int, outputs: int, inside: int, stride: int, bias: bool, norm: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, inside, 3, stride, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(inside) if norm else nn.Identity()
        self.second = nn.Conv2d(inside, outputs, 3, padding=1, bias=bias)
        self.skip = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else nn.Identity()
        self.last = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.skip(x) + self.last(self.second(F.relu(self.norm(self.first(x))))))


@st.composite
def networks(draw):
    """Trunks of blocks with random widths, strides, biases and norms, and two heads."""
    torch.manual_seed(draw(st.integers(0, 1000)))
    blocks, inputs, removable = [], 3, []
    for index in range(draw(st.integers(1, 3))):
        outputs, inside = draw(st.integers(1, 6)), draw(st.integers(1, 6))
        stride, bias, norm = draw(st.sampled_from((1, 1, 2))), draw(st.booleans()), draw(st.booleans())
        blocks.append(Block(inputs, outputs, inside, stride, bias, norm))
        removable += [f"{index}.first", f"{index}.second"]
        inputs = outputs
    heads = {
        "depth": nn.Conv2d(inputs, 1, 3, padding=1),
        "kind": nn.Sequential(nn.AdaptiveAvgPool2d((2, 2)), nn.Flatten(), nn.Linear(inputs * 4, 3)),
    }
    return trained(MultiTaskNet(nn.Sequential(*blocks), heads, removable))


def trained(network: MultiTaskNet) -> MultiTaskNet:
    """With batch-norm statistics, γ and β that no new network has."""
    generator = torch.Generator().manual_seed(7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            for tensor in (module.running_var, module.weight.data):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return network.eval()


def zero(network: MultiTaskNet, grouping: str, gone: Tensor) -> MultiTaskNet:
    build_groups(network, grouping, SHAPE).scale_((~gone).float())
    return network


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@settings(max_examples=40, deadline=None)
@given(networks(), st.sampled_from(("input_channel", "output_channel", "coupled")), st.data())
def test_outputs_stay_whatever_is_zero(network, grouping, data):
    try:
        count = len(build_groups(network, grouping, SHAPE).layer)
    except NetworkError:  # coupled channels that the images are added to
        assume(False)
    gone = torch.tensor(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    zero(network, grouping, gone)
    before = copy.deepcopy(network.state_dict())
    small, surgery = compact(network, SHAPE, torch.rand(3, *SHAPE))  # it checks 1e-5 itself, on these too
    assert check_equal(network, small, torch.rand(5, *SHAPE)) <= 1e-5
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert parameters(small) <= parameters(network)
    # What is on disk is the surgery and the tensors: a new network gets the same shape from them.
    again = copy.deepcopy(network)
    operate(again, Surgery.from_dict(surgery.to_dict()))
    again.load_state_dict(small.state_dict())
    check_equal(small, again, torch.rand(2, *SHAPE))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return trained(small_resnet(SHAPE, head_specs(TASKS), width=8, hidden=8))


@pytest.mark.parametrize("grouping", ["input_channel", "output_channel", "coupled"])
@pytest.mark.parametrize("case", ["nothing", "all but one of each layer", "all of one layer but one group"])
def test_the_extremes(network, grouping, case):
    groups = build_groups(network, grouping, SHAPE)
    gone = torch.zeros(len(groups.layer), dtype=torch.bool)
    if case == "all but one of each layer":
        gone[:] = True
        gone[groups.starts] = False
    elif case != "nothing":
        gone[groups.layer == 5] = True
        gone[groups.starts[5]] = False
    small, surgery = compact(zero(network, grouping, gone), SHAPE)
    if case == "nothing":
        assert replace(surgery, folded={}) == Surgery() and len(surgery.folded) == 16
    else:
        assert parameters(small) < parameters(network)


def test_a_whole_branch_goes_and_its_skip_stays(network):
    with torch.no_grad():
        network.trunk.block4.conv1.weight.zero_()
        network.trunk.block4.conv2.weight.zero_()
    small, surgery = compact(network, SHAPE)
    assert set(surgery.empty) == {"trunk.block4.conv1", "trunk.block4.conv2"}
    assert parameters(network) - parameters(small) >= 2 * 12 * 12 * 9
    shares = (flops_of_a_sample(small, SHAPE)[1], flops_of_a_sample(network, SHAPE)[1])
    assert shares[0] == pytest.approx(shares[1] - 2 * 2 * 12 * 12 * 9 * 4)  # 2 convolutions, 2 x 2 pixels


def test_inputs_that_one_reader_ignores_and_another_needs_are_left_out_by_picking(network):
    with torch.no_grad():
        network.trunk.block5.conv1.weight[:, ::2] = 0
    small, surgery = compact(network, SHAPE)
    assert surgery.selected == {"trunk.block5.conv1": [1, 3, 5, 7, 9, 11]}
    assert small.trunk.block5.conv1.weight.shape[1] == 6
    assert leftovers(network, surgery)["block5.conv1"].stayed == 0


def test_constants_behind_batch_norm_are_exact_at_the_borders(network):
    """relu(β) of a zero filter meets zero padding there, so a bias cannot hold it; one constant channel stays."""
    with torch.no_grad():
        network.trunk.block2.conv1.weight[:5] = 0
        network.trunk.block2.bn1.bias.abs_()
    small, _ = compact(network, SHAPE)
    assert small.trunk.block2.conv1.out_channels == 8 - 5 + 1
    check_equal(network, small, torch.randn(3, *SHAPE))


def test_what_stays_of_the_zeros_is_told_with_the_reason(network):
    with torch.no_grad():
        network.trunk.block6.conv2.weight[0] = 0  # a filter that writes the stream others need
        network.trunk.block5.conv1.weight[:, 0] = 0  # too few to be worth picking
        network.trunk.block4.conv1.weight[0, 0, 0, 0] = 0
    _, surgery = compact(network, SHAPE)
    found = leftovers(network, surgery)
    assert found["block6.conv2"].zeros == found["block6.conv2"].stayed == 12 * 9
    assert "stream" in found["block6.conv2"].why
    assert "pick" in found["block5.conv1"].why and found["block5.conv1"].stayed == 12 * 9
    assert found["block4.conv1"].why == "single weights"
    assert found["stem"].why == ""


def test_concatenations_depthwise_and_gates_are_followed():
    network = trained(branches())
    for grouping in ("input_channel", "output_channel", "coupled"):
        sparse = copy.deepcopy(network)
        groups = build_groups(sparse, grouping, SHAPE)
        zero(sparse, grouping, torch.arange(len(groups.layer)) % 2 == 0)
        small, _ = compact(sparse, SHAPE)
        check_equal(sparse, small, torch.randn(2, *SHAPE))


def test_factored_convolutions_are_contracted_first(network):
    overparameterise(network)
    small, _ = compact(network, SHAPE)
    assert not any(hasattr(module, "core") for module in small.modules())


class _Hidden(nn.Module):
    """Mixes channels where no trace can see it."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.from_numpy(x.detach().numpy().mean(1, keepdims=True))


def test_what_a_trace_cannot_see_keeps_its_channels_and_all_else_is_cut():
    trunk = nn.Sequential(nn.Conv2d(3, 4, 1), _Hidden(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    network = MultiTaskNet(trunk, {"depth": nn.Conv2d(4, 1, 1)}).eval()
    with torch.no_grad():
        trunk[2].weight[:, 0] = 0
        trunk[4].weight[:, 1:] = 0
    small, surgery = compact(network, SHAPE)
    assert surgery.outputs == {"trunk.2": [0]} and small.trunk[0].weight.shape[0] == 4


def test_every_grouping_but_single_weights_is_covered():
    assert set(GROUPINGS) == {"input_channel", "output_channel", "coupled", "weight"}


@pytest.mark.parametrize(
    "broken", [{}, {"outputs": 3}, {"outputs": {}, "inputs": {}, "selected": {}, "empty": 1, "folded": {}}]
)
def test_a_damaged_description_is_one_clear_line(broken):
    with pytest.raises(NetworkError, match="description of the compact network is damaged"):
        Surgery.from_dict(broken)


def test_a_surgery_of_another_network_is_refused(network):
    with pytest.raises(NetworkError, match="does not fit this architecture"):
        operate(network, Surgery(empty=("trunk.block9.conv1",)))
