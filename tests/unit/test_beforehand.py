"""What cannot be compacted is found out before training, and costs its own figure alone."""

import json

import pytest
import torch
from torch import Tensor, nn

from ms_automl.comparison.selection import compacted
from ms_automl.driver.exporting import export
from ms_automl.errors import NetworkError
from ms_automl.models import MultiTaskNet, head_specs, small_resnet
from ms_automl.models.archive import Architecture, save_model
from ms_automl.sparsity.beforehand import why_not
from ms_automl.sparsity.compact import compact
from ms_automl.sparsity.equality import TOLERANCE, check_equal, probes
from ms_automl.tasks import depth
from tests.networks import SERVED, SHAPE, STAY, network

IMAGES = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))


class Hidden(nn.Module):
    """Leaves torch for a moment."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.from_numpy(x.detach().numpy().mean(1, keepdims=True))


class Restless(nn.Module):
    """Never gives the same twice."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + torch.rand(()))


class Alone(nn.Module):
    """Does not take single images."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 1:
            raise ValueError("a batch needs two images\nat least")
        return x


def middle(layer: nn.Module) -> MultiTaskNet:
    torch.manual_seed(0)
    return network(nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), layer, nn.Conv2d(6, 6, 3, padding=1)))


def odd(image_shape, heads, layer: str) -> MultiTaskNet:
    """A factory."""
    return middle({"Restless": Restless, "Alone": Alone}[layer]())


@pytest.mark.parametrize("grouping", ["input_channel", "output_channel", "coupled", "weight"])
def test_nothing_stands_in_the_way_of_the_built_in_network(grouping):
    torch.manual_seed(0)
    assert (
        why_not(small_resnet((3, 16, 16), head_specs([depth("d")]), width=4, hidden=4), grouping, (3, 16, 16))
        == ""
    )


@pytest.mark.parametrize("name", ["FiLM", "a gate of one channel", "attention", "einsum"])
def test_nothing_stands_in_the_way_of_networks_of_ones_own(name):
    torch.manual_seed(0)
    assert why_not(network((SERVED | STAY)[name]()), "input_channel", SHAPE) == ""


def test_what_a_trace_does_not_see_stands_in_nobodys_way():
    assert why_not(middle(Hidden()), "input_channel", SHAPE) == ""


def test_what_cannot_be_compacted_is_told_before_training_in_one_line():
    why = why_not(middle(Restless()), "input_channel", SHAPE)
    assert "compaction changed the output 'd'" in why and "\n" not in why
    assert "two images" in why_not(middle(Alone()), "output_channel", SHAPE)


def test_the_check_leaves_network_and_random_numbers_as_they_are():
    whole = middle(nn.BatchNorm2d(6)).train()
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    state = torch.get_rng_state()
    why_not(whole, "input_channel", SHAPE)
    assert torch.equal(state, torch.get_rng_state())
    assert whole.training
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "words"), [("Restless", "compaction changed"), ("Alone", "a batch needs two images")]
)
def test_a_selected_model_that_cannot_be_compacted_costs_its_figures_and_no_more(kind, words, tmp_path):
    trained = middle({"Restless": Restless, "Alone": Alone}[kind]())
    with torch.no_grad():
        trained.trunk[2].weight[:, 0] = 0
    heads = head_specs([depth("d")])
    save_model(trained, tmp_path, Architecture("tests.unit.test_beforehand:odd", {"layer": kind}, SHAPE, heads))
    found = compacted(tmp_path, "input_channel", IMAGES)
    assert found.macs_ratio is None and found.latency_ratio is None
    assert words in found.why and "\n" not in found.why
    assert isinstance(found.network, MultiTaskNet)
    with pytest.raises(NetworkError, match=words):
        export(tmp_path, tmp_path / "out", ["torch"], IMAGES, rounds=2)
    assert json.loads((tmp_path / "model.json").read_text())["args"] == {"layer": kind}


class Outputs(nn.Module):
    """Whatever it is told to give."""

    def __init__(self, give) -> None:
        super().__init__()
        self.give = give

    def forward(self, x: Tensor) -> object:
        return self.give(x)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (lambda x: x, lambda x: x * (1 + TOLERANCE / 2), True),
        (lambda x: x, lambda x: x * (1 + TOLERANCE * 2), False),
        (lambda x: 0 * x, lambda x: 0 * x, True),
        (lambda x: 0 * x, lambda x: 1e-3 + 0 * x, False),
        (lambda x: x.clamp(min=10).sub(10), lambda x: x.clamp(min=10).sub(10) + 1e-9, True),  # 0 on faint images
        (lambda x: x.clamp(min=10).sub(10), lambda x: 0 * x, False),  # equal but on strong images
        (lambda x: x, lambda x: x + 0.01 * (x - 40).relu(), False),
        (
            lambda x: (x - 40).relu() / (x - 40).relu(),
            lambda x: (x - 40).relu() / (x - 40).relu(),
            True,
        ),  # NaN or 1
        (lambda x: x / 0, lambda x: x / 0, False),
        (lambda x: x / 0, lambda x: x, False),
        (lambda x: x, lambda x: x * float("nan"), False),
        (lambda x: {"a": x, "b": [x, 2 * x]}, lambda x: {"a": x, "b": [x, 2 * x]}, True),
        (lambda x: {"a": x, "b": [x, 2 * x]}, lambda x: {"a": x, "b": [x, 3 * x]}, False),
        (lambda x: (x, x), lambda x: (x, x[:, :1]), False),
    ],
)
def test_outputs_are_compared_on_images_of_several_scales(one, other, same):
    if same:
        check_equal(Outputs(one), Outputs(other), probes(SHAPE))
    else:
        with pytest.raises(NetworkError, match=r"compaction changed|nothing to compare"):
            check_equal(Outputs(one), Outputs(other), probes(SHAPE))


def test_a_wrong_plan_shows_on_random_weights_where_the_networks_own_hide_it():
    """Behind a closed gate nothing can be felt on any image; with other weights in the same places it can."""
    whole = middle(Hidden())
    with torch.no_grad():
        whole.trunk[2].weight.mul_(1e-12)
        whole.trunk[2].weight[:, 0] = 0
        whole.heads["d"].bias.fill_(1.0)
    small, _ = compact(whole, SHAPE)
    assert small.trunk[0].weight.shape[0] == 6
