import copy
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn

from ms_automl.data import MultiTaskData
from ms_automl.errors import NetworkError
from ms_automl.meta import LambdaSchedule
from ms_automl.models import FactoredConv2d, MultiTaskNet, contract, head_specs, overparameterise
from ms_automl.models.archive import Architecture, load, save_model
from ms_automl.sparsity import ChannelGroups, build_groups, measure
from ms_automl.training import TrainingSettings
from trainables import METHODS

Build = Callable[[], MultiTaskNet]
SETTINGS = TrainingSettings(steps=12, batch_size=6, lr=5e-3, report_every=12)


def factored(network: nn.Module) -> dict[str, FactoredConv2d]:
    return {name: module for name, module in network.named_modules() if isinstance(module, FactoredConv2d)}


def disturb(network: nn.Module) -> None:
    """Move every factor off its start, as training does."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def gap(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    return max(float(((one[name] - other[name]).norm() / other[name].norm()).detach()) for name in other)


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(2)).to(dtype)


# ---- the start ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_factoring_changes_no_output(tiny_network: Build, dtype: torch.dtype, tolerance: float) -> None:
    network = tiny_network().to(dtype)
    before = copy.deepcopy(network)(images(dtype))
    overparameterise(network)
    assert gap(network(images(dtype)), before) < tolerance


def test_every_trunk_convolution_and_the_heads_first_ones_are_factored(tiny_network: Build) -> None:
    network = tiny_network()
    trunk = {f"trunk.{name}" for name in network.penalised()}
    overparameterise(network)
    assert set(factored(network)) == trunk | {"heads.depth.0", "heads.kind.0"}
    assert isinstance(network.heads["depth"][3], nn.Conv2d)


def test_the_factors_are_orthogonal_where_they_should_be(tiny_network: Build) -> None:
    network = tiny_network().double()
    overparameterise(network)
    for name, conv in factored(network).items():
        torch.testing.assert_close(conv.left @ conv.left.T, torch.eye(len(conv.left), dtype=torch.float64))
        rows = conv.weight.flatten(1)
        gram = (
            rows @ rows.T
        )  # V = PᵀW: its rows are orthogonal, their lengths the singular values in falling order
        torch.testing.assert_close(gram, torch.diag(gram.diagonal()))
        assert bool((gram.diagonal().diff() <= 1e-12).all())
        if name.startswith("trunk."):
            torch.testing.assert_close(conv.core, torch.eye(len(conv.core), dtype=torch.float64))


def test_a_group_starts_as_long_as_the_ordinary_one(tiny_network: Build) -> None:
    network = tiny_network()
    plain = ChannelGroups(network)
    norms, sizes, total = plain.norms(), plain.size, plain.total
    overparameterise(network)
    groups = ChannelGroups(network)
    torch.testing.assert_close(groups.norms(), norms)
    assert torch.equal(groups.size, sizes)
    assert groups.total == total
    assert groups.names == plain.names


def test_heads_share_two_factors_and_have_one_each(tiny_network: Build) -> None:
    network = tiny_network()
    overparameterise(network)
    depth, kind = (factored(network)[f"heads.{task}.0"] for task in ("depth", "kind"))
    assert depth.left is kind.left
    assert depth.weight is kind.weight
    assert depth.core is not kind.core
    network(images())["depth"].sum().backward()
    assert depth.weight.grad is not None
    assert kind.core.grad is None


def test_no_random_number_is_drawn(tiny_network: Build) -> None:
    network = tiny_network()
    state = torch.get_rng_state()
    overparameterise(network)
    contract(network)
    assert torch.equal(torch.get_rng_state(), state)


def test_stride_padding_dilation_and_bias_are_kept() -> None:
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=2, dilation=2, padding_mode="reflect")
    network = MultiTaskNet(nn.Sequential(conv), {})
    before = network.trunk(images())
    overparameterise(network)
    for one in (network, contract(network)):
        assert one.trunk[0] is not conv
        torch.testing.assert_close(one.trunk(images()), before)


# ---- what is left alone, and what is refused ------------------------------------------------------------


class Scaled(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(2 * input)


def test_grouped_convolutions_and_own_classes_stay_as_they_are() -> None:
    trunk = nn.Sequential(nn.Conv2d(2, 4, 1), Scaled(4, 4, 1), nn.Conv2d(4, 4, 3, groups=2))
    network = MultiTaskNet(trunk, {})
    overparameterise(network)
    assert list(factored(network)) == ["trunk.0"]
    assert list(network.penalised()) == ["0", "1"]


@pytest.mark.parametrize(
    "heads",
    [
        {"one": nn.Conv2d(2, 3, 1)},
        {"one": nn.Conv2d(2, 3, 1), "other": nn.Conv2d(2, 4, 1)},
        {"one": nn.Conv2d(2, 3, 1), "other": nn.Flatten()},
        {"one": nn.Conv2d(2, 4, 1), "other": nn.Conv2d(2, 4, 1, groups=2)},
    ],
    ids=["one head", "other shape", "no convolution", "grouped"],
)
def test_heads_that_cannot_share_stay_as_they_are(heads: dict[str, nn.Module]) -> None:
    network = MultiTaskNet(nn.Sequential(nn.Conv2d(2, 2, 1)), heads)
    overparameterise(network)
    assert list(factored(network)) == ["trunk.0"]


def test_convolutions_that_share_a_weight_are_refused() -> None:
    trunk = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1))
    trunk[1].weight = trunk[0].weight
    with pytest.raises(NetworkError, match="share a weight: give each one its own"):
        overparameterise(MultiTaskNet(trunk, {}))
    with pytest.raises(NetworkError, match="share a weight"):
        overparameterise(MultiTaskNet(nn.Sequential(*[nn.Conv2d(2, 2, 1)] * 2), {}))


# ---- contraction ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("training", [True, False])
def test_the_contracted_network_is_ordinary_and_gives_the_same_outputs(
    tiny_network: Build, dtype: torch.dtype, tolerance: float, training: bool
) -> None:
    network = tiny_network().to(dtype)
    overparameterise(network)
    disturb(network)
    network.train(training)
    plain = contract(network)
    assert not factored(plain)
    assert {name: value.shape for name, value in plain.state_dict().items()} == {
        name: value.shape for name, value in tiny_network().state_dict().items()
    }
    assert gap(plain(images(dtype)), network(images(dtype))) < tolerance
    assert {module.training for module in plain.modules()} == {training}


def test_contracting_leaves_the_factored_network_alone(tiny_network: Build) -> None:
    network = tiny_network()
    overparameterise(network)
    before = copy.deepcopy(network.state_dict())
    plain = contract(network)
    disturb(plain)
    assert list(network.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_groups_of_zeros_stay_exactly_zero_and_no_other_becomes_so(tiny_network: Build) -> None:
    network = tiny_network()
    overparameterise(network)
    disturb(network)
    groups = ChannelGroups(network)
    alive = (torch.rand(groups.size.shape, generator=torch.Generator().manual_seed(3)) < 0.5).float()
    groups.scale_(alive)
    plain = ChannelGroups(contract(network))
    assert torch.equal(plain.norms() > 0, alive > 0)
    assert measure(plain) == measure(groups)


# ---- training and saving --------------------------------------------------------------------------------


def test_training_moves_every_factor(tiny_network: Build, tiny_data: MultiTaskData) -> None:
    network = tiny_network()
    method = METHODS["overparam"].build(tiny_data, network, SETTINGS, 0)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    method.step()
    for name, parameter in network.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_a_trained_network_is_saved_contracted_with_its_zeros(
    tiny_network: Build, tiny_data: MultiTaskData, tmp_path
) -> None:
    network = tiny_network()
    layers = ChannelGroups(network).names
    schedule = LambdaSchedule.constant(dict.fromkeys(layers, 15.0))
    report = METHODS["overparam"].build(tiny_data, network, SETTINGS, 0, schedule=schedule).step()
    heads = head_specs(tiny_data.tasks)
    args = {"width": 4, "hidden": 4}
    save_model(network, tmp_path, Architecture("small_resnet", args, (2, 8, 8), heads))
    loaded = load(tmp_path)
    assert not factored(loaded)
    assert gap(loaded(images()), network.eval()(images())) < 1e-5
    assert 0 < report["sparsity/trunk"] < report["sparsity/param"] == measure(ChannelGroups(loaded)).param
    whole = measure(build_groups(loaded, "input_channel", (2, 8, 8)))
    assert report["density"] == whole.density  # of the weights that are saved, not of their factors
