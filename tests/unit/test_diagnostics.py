"""What a run that learns λ says about itself."""

import pytest
import torch

from ms_automl.meta import Reference
from ms_automl.meta.diagnostics import COLLAPSE, GONE, at_bounds, ceiling, end
from ms_automl.meta.step import Evaluation

REFERENCE = Reference({"a": 0.5, "b": 2.0}, [(10, {"a": 1.0, "b": 4.0})])


def scaled(factor: float) -> dict[str, float]:
    return {name: factor * loss for name, loss in REFERENCE.losses.items()}


def test_a_network_that_ended_well_has_nothing_said_about_it() -> None:
    assert end(scaled(1.0), 0.5, REFERENCE) == []
    assert end(scaled(0.2), 1.0, REFERENCE) == []


def test_a_network_of_hardly_any_weights_is_said_to_be_gone() -> None:
    assert end(scaled(1.0), GONE, REFERENCE) == []
    (line,) = end(scaled(1.0), 0.0123, REFERENCE)
    assert line == "the network is all but gone: 98.8 % of the weights that λ acts on are zero"


def test_a_loss_of_more_than_twice_the_dense_networks_is_called_a_collapse() -> None:
    assert end(scaled(1.99), 0.5, REFERENCE) == []
    (line,) = end(scaled(3.14), 0.5, REFERENCE)
    assert line == "the network collapsed: its validation loss is 3.1 times the dense network's"


def test_a_network_that_is_gone_and_collapsed_is_said_to_be_both() -> None:
    assert len(end(scaled(9.0), 0.001, REFERENCE)) == 2


def test_the_end_is_judged_by_the_final_losses_and_the_way_there_by_those_of_the_same_step() -> None:
    assert end({"a": 1.0, "b": 4.2}, 0.5, REFERENCE) != []
    assert ceiling(Evaluation(10, 0.5, {"a": 1.0, "b": 4.2}, 0.5), REFERENCE, torch.ones(2), 0.1) is None


@pytest.mark.parametrize(("rise", "expected"), [(-0.5, False), (0.99, False), (1.01, True), (1e6, True)])
def test_a_network_has_collapsed_where_the_rise_is_more_than_sparsity_can_be_worth(
    rise: float, expected: bool
) -> None:
    losses = {name: (1 + rise * COLLAPSE) * loss for name, loss in dict(REFERENCE.course)[10].items()}
    found = ceiling(Evaluation(10, 0.5, losses, 0.5), REFERENCE, torch.ones(2), 0.1)
    assert (found is not None) is expected


def test_a_lambda_between_its_bounds_is_nothing_to_speak_of() -> None:
    assert at_bounds(("a", "b"), torch.tensor([0.011, 0.99]), (0.01, 1.0)) == []


def test_each_bound_that_lambda_lies_at_has_a_line_with_its_layers() -> None:
    lines = at_bounds(("a", "b", "c"), torch.tensor([0.01, 1.0, 0.01]), (0.01, 1.0))
    assert lines == [
        "λ ended at its lower bound 0.01 in a, c: widen lambda.low and lambda.high",
        "λ ended at its upper bound 1 in b: widen lambda.low and lambda.high",
    ]


def test_a_bound_is_recognised_through_float32_however_large_or_small() -> None:
    for bounds in ((1e-7, 3e4), (0.05, 5.0), (1e-20, 1e20)):
        at = torch.tensor(bounds, dtype=torch.float64).log().float().exp()
        assert len(at_bounds(("a", "b"), at, bounds)) == 2


def test_a_long_list_of_layers_is_cut_after_three() -> None:
    (line,) = at_bounds(tuple("abcde"), torch.ones(5), (0.01, 1.0))
    assert "in a, b, c and 2 more: widen" in line
    (line,) = at_bounds(tuple("abc"), torch.ones(3), (0.01, 1.0))
    assert "in a, b, c: widen" in line
