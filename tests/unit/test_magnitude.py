from collections.abc import Callable

import pytest
import torch

from ms_automl.sparsity import ChannelGroups, MagnitudeImportance


def test_the_magnitude_cost_is_the_share_among_the_layers_larger_groups_per_weight(
    make_groups: Callable[..., ChannelGroups],
) -> None:
    groups = make_groups([(3, 2, 1), (2, 4, 3)])
    squares = [4.0, 1.0, 3.0, 9.0, 8.0]
    groups.scale_(torch.tensor(squares).sqrt() / groups.norms())
    expected = [4 / 4 / 2, 1 / 8 / 2, 3 / 7 / 2, 9 / 9 / 36, 8 / 17 / 36]
    assert MagnitudeImportance(groups).cost().tolist() == pytest.approx(expected, rel=1e-5)


def test_magnitude_costs_do_not_change_with_a_layers_scale_nor_with_gradients(
    make_groups: Callable[..., ChannelGroups],
) -> None:
    groups = make_groups([(4, 4, 3), (5, 2, 1)])
    importance = MagnitudeImportance(groups)
    before = importance.cost()
    groups.weights[0].data *= 100
    importance.observe([torch.randn_like(weight) for weight in groups.weights])
    torch.testing.assert_close(importance.cost(), before)
    importance.load_state_dict(importance.state_dict())
    chosen = importance.lowest(0.4)
    assert float(before[chosen].max()) <= float(before[~chosen].min())
    assert float(groups.size[chosen].sum()) >= 0.4 * groups.total


def test_a_layer_of_zeros_costs_nothing(make_groups: Callable[..., ChannelGroups]) -> None:
    groups = make_groups([(3, 2, 1)])
    groups.scale_(torch.zeros(3))
    assert MagnitudeImportance(groups).cost().tolist() == [0.0] * 3
