import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ms_automl.errors import ConfigError
from ms_automl.models import MultiTaskNet
from ms_automl.sparsity import ChannelGroups
from search_spaces import SPACES, Parameter, Space

LAYERS = ("stem", "block1.conv1", "block1.conv2")
BOUNDS = (1e-3, 1e-1)
each_space = pytest.mark.parametrize("name", sorted(SPACES))


@each_space
def test_a_space_gives_every_layer_exactly_one_lambda_within_the_bounds(name: str) -> None:
    space = SPACES[name](LAYERS, BOUNDS)
    assert space.name == name
    assert [parameter.name for parameter in space.parameters] == list(space.layers)
    assert sorted(layer for layers in space.layers.values() for layer in layers) == sorted(LAYERS)
    for parameter in space.parameters:
        assert (parameter.low, parameter.high, parameter.scale) == (*BOUNDS, "log")


@each_space
@given(values=st.lists(st.floats(*BOUNDS), min_size=3, max_size=3))
def test_lambdas_and_ties_agree_on_which_parameter_drives_a_layer(name: str, values: list[float]) -> None:
    space = SPACES[name](LAYERS, BOUNDS)
    chosen = {p.name: value for p, value in zip(space.parameters, values, strict=False)}
    lambdas = space.lambdas(chosen)
    assert tuple(lambdas) == LAYERS
    for layer, tie in zip(LAYERS, space.ties(LAYERS), strict=True):
        assert lambdas[layer] == chosen[space.parameters[tie].name]


def test_the_scalar_space_ties_all_layers_and_the_per_layer_space_none() -> None:
    scalar, per_layer = (SPACES[name](LAYERS, BOUNDS) for name in ("scalar", "per_layer"))
    assert scalar.ties(LAYERS) == [0, 0, 0]
    assert per_layer.ties(LAYERS) == [0, 1, 2]
    assert per_layer.ties(LAYERS[::-1]) == [2, 1, 0]
    assert [p.name for p in per_layer.parameters] == [f"lambda/{layer}" for layer in LAYERS]
    assert scalar.lambdas({"lambda": 0.02}) == dict.fromkeys(LAYERS, 0.02)


def test_the_stages_are_the_child_modules_of_the_trunk() -> None:
    layers = ("stem", "layer3.0.conv1", "layer3.0.conv2", "layer4.0.conv2", "layer3.1.conv1")
    space = SPACES["per_stage"](layers, BOUNDS)
    assert space.layers == {
        "lambda/stem": ("stem",),
        "lambda/layer3": ("layer3.0.conv1", "layer3.0.conv2", "layer3.1.conv1"),
        "lambda/layer4": ("layer4.0.conv2",),
    }
    assert space.ties(layers) == [0, 1, 1, 2, 1]


def test_the_stages_of_the_small_resnet_are_its_stem_and_its_blocks(
    tiny_network: Callable[[], MultiTaskNet],
) -> None:
    space = SPACES["per_stage"](ChannelGroups(tiny_network()).names, BOUNDS)
    assert list(space.layers) == ["lambda/stem", *(f"lambda/block{index}" for index in range(1, 7))]
    assert space.layers["lambda/block2"] == ("block2.conv1", "block2.conv2")
    assert space.layers["lambda/block3"] == ("block3.conv1", "block3.conv2", "block3.shortcut")


@pytest.mark.parametrize(
    ("low", "high", "scale"),
    [(0.2, 0.1, "log"), (0.0, 0.1, "log"), (-1.0, 0.1, "log"), (0.1, math.inf, "log"), (1.0, 0.0, "linear")],
)
def test_bounds_that_hold_no_value_are_refused(low: float, high: float, scale: str) -> None:
    with pytest.raises(ConfigError, match=f"must hold, but got low={low}, high={high}"):
        Parameter("x", low, high, scale)  # type: ignore[arg-type]


def test_a_linear_parameter_may_start_at_zero_and_a_range_may_be_a_point() -> None:
    assert Parameter("level", 0.0, 0.9, "linear").low == 0
    assert Parameter("lambda", 0.1, 0.1).high == 0.1


@pytest.mark.parametrize(
    "layers",
    [{"a": ("x",), "b": ("x",)}, {"a": ("x", "x"), "b": ("y",)}, {"a": ("x",)}, {"b": ("x",), "a": ("y",)}],
)
def test_a_space_whose_layers_do_not_fit_its_parameters_is_refused(layers: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ConfigError, match="space 'own'"):
        Space("own", (Parameter("a", 0.1, 1), Parameter("b", 0.1, 1)), layers)
