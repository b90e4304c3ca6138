"""What does not train does not change, and no channel is counted as gone beside it."""

import pytest
import torch
from torch import nn

from ms_automl.errors import ConfigError, NetworkError
from ms_automl.meta import LambdaSchedule, Objective, Reference, WaterfillSettings
from ms_automl.models import MultiTaskNet, check_network, overparameterise
from ms_automl.sparsity import build_groups
from ms_automl.training import Trainable, TrainingSettings
from tests.unit.chains import SETTINGS, SHAPE, TASK, chain, conv, data, each_grouping, half, names
from trainables import FixedLambda, MetaSparsity, Pruned


def trained(network: MultiTaskNet, method: str, grouping: str) -> Trainable:
    settings = TrainingSettings(**{**vars(SETTINGS), "grouping": grouping})
    if method == "fixed":
        schedule = LambdaSchedule.constant(dict.fromkeys(names(network, grouping), 30.0))
        return FixedLambda(data(), network, settings, 0, schedule=schedule)
    if method == "pruned":
        return Pruned(data(), network, settings, 0, level=0.8)
    reference = Reference({"d": 1.0}, [(step, {"d": 1.0}) for step in range(9)])
    return MetaSparsity(
        data(), network, settings, 0, bounds=(0.5, 500.0), objective=Objective("target", target=0.5),
        reference=reference, learning=WaterfillSettings(),
    )  # fmt: skip


FROZEN = {
    "the first convolution": ["stem"],
    "one in the middle": ["one"],
    "stem and norm": ["stem", "stem_norm"],
    "a bias": ["two.bias"],
    "a batch norm": ["norm"],
    "a depthwise convolution": ["depthwise"],
    "what writes a residual stream": ["two", "depthwise.bias"],
}


@each_grouping
@pytest.mark.parametrize(
    ("frozen", "method"),
    [*((parts, "fixed") for parts in FROZEN.values()), (["one", "stem_norm"], "pruned"), (["two"], "meta")],
)
def test_what_is_frozen_stays_bit_for_bit(frozen: list[str], method: str, grouping: str) -> None:
    network = half(frozen)
    before = {name: value.clone() for name, value in network.named_parameters() if not value.requires_grad}
    assert before
    run = trained(network, method, grouping)
    while not run.done:
        report = run.step()
    after = dict(network.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())
    # ... and is counted nowhere.
    convs = {
        name: one
        for name, one in network.trunk.named_modules()
        if isinstance(one, nn.Conv2d) and one.weight.requires_grad
    }
    weights = {id(weight) for weight in run.loop.sparsifier.groups.weights}
    assert weights <= {id(one.weight) for one in convs.values()}
    assert 0 < report["sparsity/param"] < 1


@pytest.mark.parametrize("frozen", FROZEN.values(), ids=FROZEN)
@pytest.mark.parametrize("train", [False, True])
def test_a_coupled_channel_beside_what_is_frozen_is_not_felt_once_it_is_zero(
    frozen: list[str], train: bool
) -> None:
    network = half(frozen)
    groups = build_groups(network, "coupled", SHAPE)
    images = torch.randn(4, *SHAPE)
    network.train()(images)  # running averages of their own
    alive = (torch.arange(len(groups.layer)) % 2).float()
    groups.scale_(alive)
    before = network.train(train)(images)["d"]
    with torch.no_grad():  # what reads a dead channel reads zeros
        for weight, read in zip(groups.weights, groups.memberships[1].spread(alive), strict=True):
            weight.add_(5 * (read == 0))
    torch.testing.assert_close(network.train(train)(images)["d"], before, rtol=1e-4, atol=1e-4)


def test_channels_that_something_frozen_writes_have_no_coupled_group() -> None:
    whole = build_groups(half([]), "coupled", SHAPE)
    assert whole.names == ("stem", "one", "last")
    for frozen, left in (
        ("stem", ("one", "last")),
        ("two.bias", ("one", "last")),
        ("stem_norm.bias", ("one", "last")),
        ("norm.weight", ("stem", "last")),
        ("depthwise.bias", ("stem", "last")),
        ("depthwise.weight", ("stem", "one", "last")),  # given zeros it gives its bias, which goes with them
    ):
        assert build_groups(half([frozen]), "coupled", SHAPE).names == left, frozen
    network = half([])
    network.trunk.norm = nn.BatchNorm2d(8, affine=False)  # its running averages outlive the channel
    assert build_groups(network, "coupled", SHAPE).names == ("stem", "last")
    stuck = half(["stem_norm", "norm.bias", "last.bias"])
    with pytest.raises(
        NetworkError, match=r"no coupled channel .*something frozen or computed writes into all of them"
    ):
        build_groups(stuck, "coupled", SHAPE)


def test_a_frozen_trunk_is_refused_in_one_line() -> None:
    network = chain(conv(8, 8))
    network.trunk.requires_grad_(False)
    for refuse in (lambda: check_network(network, SHAPE, [TASK]), lambda: build_groups(network, "coupled", SHAPE)):
        with pytest.raises(NetworkError, match=r"'0', '2', '4' \(it is frozen \(requires_grad=False\)\)$"):
            refuse()


def test_a_lambda_for_a_frozen_layer_is_refused_with_the_reason() -> None:
    network = half(["one"])
    schedule = LambdaSchedule.constant(dict.fromkeys(("stem", "one", "two", "last"), 1.0))
    with pytest.raises(ConfigError, match=r"layers stem, two, last,.*: 'one' \(it is frozen"):
        FixedLambda(data(), network, SETTINGS, 0, schedule=schedule)


def test_a_frozen_convolution_may_be_named_removable_and_is_not_factored() -> None:
    network = half(["one"])
    assert network.removable == {"one", "two"}
    before = network.trunk.one.weight.clone()
    overparameterise(network)
    assert type(network.trunk.one) is nn.Conv2d
    assert torch.equal(network.trunk.one.weight, before)
    assert type(network.trunk.two) is not nn.Conv2d
