"""What gradual pruning ranks groups by, where they are compared with their own kind alone."""

import pytest
import torch
from torch import nn

from ms_automl.comparison.experiment import Experiment
from ms_automl.config import load_config
from ms_automl.driver.assembly import assemble
from ms_automl.errors import ConfigError
from ms_automl.models import MultiTaskNet
from ms_automl.sparsity import CRITERIA, build_groups
from ms_automl.training import TrainingSettings
from trainables import Pruned

SHAPE = (3, 8, 8)


def network() -> MultiTaskNet:
    torch.manual_seed(0)
    trunk = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 20, 1),
    )
    return MultiTaskNet(trunk, {"d": nn.Conv2d(20, 1, 1)})


def by_layer(groups, chosen):
    return [int(part.sum()) for part in torch.split(chosen, groups.counts)]


@pytest.mark.parametrize("criterion", ["l2", "fpgm"])
@pytest.mark.parametrize("grouping", ["input_channel", "output_channel"])
def test_each_layer_loses_the_same_share_whatever_its_scale(criterion, grouping):
    dense = network()
    with torch.no_grad():
        dense.trunk[2].weight.mul_(100)
    groups = build_groups(dense, grouping, SHAPE)
    importance = CRITERIA[criterion](groups)
    chosen = importance.lowest(0.5)
    for count, lost in zip(groups.counts, by_layer(groups, chosen), strict=True):
        assert abs(lost - count / 2) <= 1
    assert float(groups.zeroed(torch.argsort(~chosen, stable=True))[int(chosen.sum()) - 1]) >= 0.5 * groups.total


def test_within_a_layer_the_smallest_norms_go():
    groups = build_groups(network(), "input_channel", SHAPE)
    chosen = CRITERIA["l2"](groups).lowest(0.5)
    for norms, gone in zip(
        torch.split(groups.norms(), groups.counts), torch.split(chosen, groups.counts), strict=True
    ):
        if bool(gone.any()) and not bool(gone.all()):
            assert norms[gone].max() < norms[~gone].min()


def test_within_a_layer_those_go_that_are_nearest_to_all_others():
    dense = network()
    groups = build_groups(dense, "input_channel", SHAPE)
    weight = dense.trunk[2].weight.detach()
    distances = [float(sum((weight[:, c] - weight[:, d]).norm() for d in range(8))) for c in range(8)]
    chosen = CRITERIA["fpgm"](groups).lowest(0.5)
    mine = torch.split(chosen, groups.counts)[groups.names.index("2")]
    nearest = sorted(range(8), key=lambda c: distances[c])[: int(mine.sum())]
    assert sorted(nearest) == mine.nonzero().flatten().tolist()


def test_channels_that_are_gone_are_no_neighbours():
    """Many zeros at one place would draw the median there, and the small ones after them."""
    dense = network()
    groups = build_groups(dense, "input_channel", SHAPE)
    gone = CRITERIA["fpgm"](groups).lowest(0.3)
    groups.scale_((~gone).float())
    more = CRITERIA["fpgm"](groups).lowest(0.6, gone)
    assert bool((more | ~gone).all())  # those stay gone
    weight = dense.trunk[2].weight.detach()
    mine, before = (torch.split(one, groups.counts)[groups.names.index("2")] for one in (more, gone))
    living = (~before).nonzero().flatten().tolist()
    distances = {c: float(sum((weight[:, c] - weight[:, d]).norm() for d in living)) for c in living}
    new = [c for c in living if bool(mine[c])]
    assert new == sorted(sorted(living, key=lambda c: distances[c])[: len(new)])


def test_taylor_scores_are_ranked_among_groups_of_equal_structure():
    dense = network()
    groups = build_groups(dense, "input_channel", SHAPE)
    importance = CRITERIA["isomorphic"](groups)
    generator = torch.Generator().manual_seed(1)
    scales = [1.0, 1.0, 100.0, 1.0]  # the third layer matters more than its twin, the second
    for _ in range(5):
        importance.observe(
            [torch.randn(w.shape, generator=generator) * s for w, s in zip(groups.weights, scales, strict=True)]
        )
    chosen = by_layer(groups, importance.lowest(0.45))
    assert groups.names == ("0", "2", "4", "6")
    assert chosen[1] >= 6 and chosen[2] <= 2  # of one structure: 8 slices of [8, 3, 3] each
    assert abs(chosen[1] + chosen[2] - 8) <= 2 and abs(chosen[3] - 4) <= 1
    restored = CRITERIA["isomorphic"](groups)
    restored.load_state_dict(importance.state_dict())
    assert torch.equal(restored.cost(), importance.cost())


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_training_ends_at_the_level_that_is_asked(criterion, tiny_data, tiny_network):
    settings = TrainingSettings(steps=20, report_every=10, batch_size=8)
    trial = Pruned(tiny_data, tiny_network(), settings, 0, level=0.4, criterion=criterion)
    while not trial.done:
        metrics = trial.step()
    assert metrics["sparsity/param"] == pytest.approx(0.4, abs=0.08)


def test_distances_are_between_slices_and_coupled_channels_are_none():
    config = load_config("smoke", arms=["prune-fpgm"], settings=["training.grouping=coupled"])
    with pytest.raises(ConfigError, match=r"slices of one weight, but got .*coupled.* 'prune-fpgm' out"):
        assemble(Experiment(config), None)
    with pytest.raises(ConfigError, match="slices of one weight"):
        CRITERIA["fpgm"](build_groups(network(), "coupled", SHAPE))
