import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ms_automl.errors import ConfigError
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
