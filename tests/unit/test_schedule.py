import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ms_automl.errors import ConfigError
from ms_automl.meta import LambdaSchedule


def test_lambda_is_linear_between_knots_and_constant_outside() -> None:
    schedule = LambdaSchedule(("a", "b"), ((0.01, 1.0), (1.0, 1.0), (4.0, 0.25)))
    for phase, expected in {0: (0.01, 1), 0.25: (0.505, 1), 0.5: (1, 1), 0.75: (2.5, 0.625), 1: (4, 0.25)}.items():
        assert schedule.lambda_at(phase).tolist() == pytest.approx(expected)
    assert torch.equal(schedule.lambda_at(1.7), schedule.lambda_at(1))
    assert torch.equal(schedule.lambda_at(-0.1), schedule.lambda_at(0))


def test_a_constant_is_the_same_throughout() -> None:
    schedule = LambdaSchedule.constant({"a": 0.3, "b": 0.0})
    assert schedule.layers == ("a", "b")
    for phase in (0.0, 0.3, 1.0):
        assert schedule.lambda_at(phase).tolist() == pytest.approx([0.3, 0.0])


def test_a_lambda_of_zero_is_exactly_zero() -> None:
    schedule = LambdaSchedule(("a",), ((0.0,), (0.0,), (0.05,)))
    assert schedule.lambda_at(0).item() == 0
    assert schedule.lambda_at(0.3).item() == 0
    assert schedule.lambda_at(0.75).item() == pytest.approx(0.025)
    assert schedule.lambda_at(1).item() == pytest.approx(0.05)


def test_shares_are_linear_between_knots_and_missing_where_all_groups_are_touched() -> None:
    schedule = LambdaSchedule(("a",), ((0.1,), (0.2,)), ((0.0,), (0.8,)))
    found = schedule.shares_at(0.25)
    assert found is not None
    assert found.tolist() == pytest.approx([0.2])
    assert LambdaSchedule.constant({"a": 1}).shares_at(0.5) is None


@given(
    st.lists(st.lists(st.floats(0, 1e6), min_size=2, max_size=2), min_size=1, max_size=8),
    st.booleans(),
    st.floats(0, 1e6),
    st.floats(0, 1),
)
def test_a_schedule_survives_json(values: list[list[float]], shared: bool, rest: float, phase: float) -> None:
    shares = tuple((0.25, 1.0) for _ in values) if shared else None
    schedule = LambdaSchedule(("a", "b"), tuple(map(tuple, values)), shares, rest)
    again = LambdaSchedule.from_dict(json.loads(json.dumps(schedule.to_dict())))
    assert again == schedule
    assert torch.equal(again.lambda_at(phase), schedule.lambda_at(phase))


def test_scaling_multiplies_each_layer_and_clipping_bounds_all() -> None:
    schedule = LambdaSchedule(("a", "b"), ((0.1, 1.0), (0.2, 2.0)), ((0.5, 0.5), (1.0, 1.0)))
    scaled = schedule.scaled([2.0, 0.5])
    assert scaled.values == ((0.2, 0.5), (0.4, 1.0))
    assert scaled.clipped(0.3, 0.9).values == ((0.3, 0.5), (0.4, 0.9))
    assert scaled.shares == scaled.clipped(0.3, 0.9).shares == schedule.shares


def test_the_lambda_of_the_rest_stays_what_it_is_when_others_are_scaled_or_clipped() -> None:
    schedule = LambdaSchedule(("a",), ((0.1,), (0.2,)), ((0.5,), (1.0,)), rest=0.05)
    assert schedule.scaled([3.0]).rest == schedule.clipped(0.3, 0.9).rest == 0.05


def test_a_schedule_written_before_there_was_a_rest_has_none() -> None:
    old = {"layers": ["a"], "values": [[0.1]], "shares": [[0.5]]}
    assert LambdaSchedule.from_dict(old) == LambdaSchedule(("a",), ((0.1,),), ((0.5,),), rest=0.0)
    assert LambdaSchedule.from_dict({"layers": ["a"], "values": [[0.1]]}).shares is None


def test_a_whole_number_is_a_rest_too() -> None:
    assert LambdaSchedule.from_dict({"layers": ["a"], "values": [[1]], "rest": 0}).rest == 0


@pytest.mark.parametrize("rest", [-1e-9, math.nan, math.inf])
def test_a_rest_that_is_negative_or_not_finite_is_refused(rest: float) -> None:
    with pytest.raises(ConfigError, match=r"λ of the rest must be finite, `λ >= 0`, one or one a layer, but got"):
        LambdaSchedule(("a",), ((0.1,),), ((0.5,),), rest=rest)


@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf])
def test_a_lambda_that_is_negative_or_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=r"λ must be finite, `λ >= 0`"):
        LambdaSchedule.constant({"a": 0.1, "b": value})


@pytest.mark.parametrize(
    ("values", "shares"),
    [
        ((), None),
        (((0.1,),), None),
        (((0.1, 0.1),), ((0.5,),)),
        (((0.1, 0.1),), ((0.5, 1.5),)),
        (((0.1, 0.1),), ((0.5, math.nan),)),
        (((0.1, 0.1),), ()),
    ],
)
def test_knots_that_do_not_fit_the_layers_are_refused(values: object, shares: object) -> None:
    with pytest.raises(ConfigError, match="for each of 2 layers"):
        LambdaSchedule(("a", "b"), values, shares)  # type: ignore[arg-type]
