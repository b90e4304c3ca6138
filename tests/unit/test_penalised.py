"""Which weights go to zero: those that are parameters, that train, that are reached, and whose zeros count."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from ms_automl.data import MultiTaskData, TensorSplit
from ms_automl.errors import ConfigError, NetworkError
from ms_automl.meta import LambdaSchedule, LearnerSettings, Objective, Reference
from ms_automl.models import (
    MultiTaskNet,
    check_network,
    find_penalised,
    names_of_modules,
    overparameterise,
    plain_convolution,
    shared_weights,
)
from ms_automl.sparsity import GROUPINGS, Groups, build_groups, measure, remark
from ms_automl.tasks import depth
from ms_automl.training import Trainable, TrainingSettings
from trainables import FixedLambda, MetaSparsity, Pruned

TASK = depth("d")
SHAPE = (3, 8, 8)
SETTINGS = TrainingSettings(steps=8, batch_size=4, report_every=4, weight_decay=0.1)

each_grouping = pytest.mark.parametrize("grouping", GROUPINGS)
apart = pytest.mark.parametrize("grouping", [name for name in GROUPINGS if name != "coupled"])


def conv(inputs: int, outputs: int, **options: bool) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def chain(*middle: nn.Module) -> MultiTaskNet:
    """A convolution, something, a convolution, a head."""
    torch.manual_seed(0)
    return MultiTaskNet(nn.Sequential(conv(3, 8), nn.ReLU(), *middle, nn.ReLU(), conv(8, 8)), {"d": conv(8, 1)})


def names(network: MultiTaskNet, grouping: str = "input_channel") -> list[str]:
    return list(build_groups(network, grouping, SHAPE).names)


def data() -> MultiTaskData:
    images = torch.randn(16, *SHAPE, generator=torch.Generator().manual_seed(1))
    split = TensorSplit(images, {"d": images[:, :1] ** 2 + 1})
    return MultiTaskData("noise", split, split, split, [TASK])


def kept_zero(groups: Groups, network: MultiTaskNet) -> None:
    """Zero every second group: each weight that is said to be zero is a zero of the network."""
    groups.scale_((torch.arange(len(groups.layer)) % 2).float())
    zeros = sum(int((conv.weight == 0).sum()) for conv in network.penalised().values())
    assert zeros == pytest.approx(measure(groups).param * groups.total)
    assert zeros > 0


# ---- computed weights -----------------------------------------------------------------------------------


class LowRank(nn.Module):
    """W + B A."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.randn(conv.out_channels, 2))
        self.a = nn.Parameter(torch.randn(2, conv.weight[0].numel()))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.b @ self.a).view_as(weight)


def low_rank(module: nn.Conv2d) -> nn.Module:
    return parametrize.register_parametrization(module, "weight", LowRank(module))


COMPUTED = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "low rank": low_rank,
}


@pytest.mark.parametrize("computed", COMPUTED.values(), ids=COMPUTED)
def test_a_computed_weight_is_in_no_group_and_alone_it_is_refused(computed: Callable[..., nn.Module]) -> None:
    network = chain(computed(conv(8, 8)))
    check_network(network, SHAPE, [TASK])
    for grouping in ("input_channel", "output_channel", "weight"):
        groups = build_groups(network, grouping, SHAPE)
        assert groups.names == ("0", "4")
        assert "computed from other parameters" in groups.left_out["2"]
    kept_zero(groups, network)
    alone = MultiTaskNet(nn.Sequential(computed(conv(3, 8))), {"d": conv(8, 1)})
    for refuse in (lambda: check_network(alone, SHAPE, [TASK]), lambda: build_groups(alone, "weight", SHAPE)):
        with pytest.raises(NetworkError, match=r"no channel of the trunk can be driven to zero: '0' .*computed"):
            refuse()


@pytest.mark.parametrize("computed", COMPUTED.values(), ids=COMPUTED)
def test_coupled_channels_that_a_computed_weight_writes_stay(computed: Callable[..., nn.Module]) -> None:
    network = chain(computed(conv(8, 8))).eval()
    groups = build_groups(network, "coupled", SHAPE)
    assert groups.names == ("0", "4")  # what '2' writes has no group
    assert groups.counts == [8, 8]
    before = network.trunk[2].weight.detach().clone()
    groups.scale_((torch.arange(len(groups.layer)) % 2).float())
    assert torch.equal(network.trunk[2].weight, before)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    "hooked",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        lambda module: prune.l1_unstructured(module, "weight", amount=0.5),
        lambda module: prune.ln_structured(module, "weight", amount=0.5, n=2, dim=1),
    ],
    ids=["weight_norm", "spectral_norm", "pruned", "pruned channels"],
)
def test_a_weight_that_a_hook_computes_is_refused_with_what_to_do(hooked: Callable[..., nn.Module]) -> None:
    network = chain(hooked(conv(8, 8)))
    for _ in range(2):  # a forward leaves another tensor behind
        with pytest.raises(NetworkError, match=r"'weight' of 'trunk\.2' is computed by a hook.*make it a param"):
            check_network(network, SHAPE, [TASK])
        with pytest.raises(NetworkError, match=r"'weight' of 'trunk\.2' is computed by a hook"):
            build_groups(network, "input_channel", SHAPE)
        network(torch.randn(1, *SHAPE))
    head = MultiTaskNet(conv(3, 8), {"d": hooked(conv(8, 1))})
    with pytest.raises(NetworkError, match=r"'weight' of 'heads\.d' is computed by a hook"):
        check_network(head, SHAPE, [TASK])


# ---- frozen weights -------------------------------------------------------------------------------------


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
        reference=reference, learning=LearnerSettings("waterfill"),
    )  # fmt: skip


class Half(nn.Module):
    """A residual block whose parts can be frozen one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = conv(3, 8, bias=False), nn.BatchNorm2d(8)
        self.one, self.norm, self.two = conv(8, 8), nn.BatchNorm2d(8), conv(8, 8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.last = conv(8, 8)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(images)))
        y = torch.relu(self.depthwise(self.norm(self.one(x))))
        return self.last(torch.relu(x + self.two(y)))


FROZEN = {
    "the first convolution": ["stem"],
    "one in the middle": ["one"],
    "stem and norm": ["stem", "stem_norm"],
    "a bias": ["two.bias"],
    "a batch norm": ["norm"],
    "a depthwise convolution": ["depthwise"],
    "what writes a residual stream": ["two", "depthwise.bias"],
}


def half(frozen: list[str]) -> MultiTaskNet:
    torch.manual_seed(0)
    network = MultiTaskNet(Half(), {"d": conv(8, 1)}, removable=["one", "two"])
    with torch.no_grad():
        for parameter in network.parameters():  # no β of 0
            parameter.add_(0.1 * torch.randn(parameter.shape))
    for name, parameter in network.trunk.named_parameters():
        if any(name == part or name.startswith(f"{part}.") for part in frozen):
            parameter.requires_grad_(False)
    return network


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
    convs = {name: one for name, one in network.convolutions().items() if one.weight.requires_grad}
    weights = {id(weight) for weight in run.loop.groups.weights}
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
        for weight, read in zip(groups.weights, groups.sides[1].spread(alive), strict=True):
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
    with pytest.raises(NetworkError, match="something frozen or computed writes into every channel"):
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


# ---- shared weights, several names ----------------------------------------------------------------------


def tied() -> MultiTaskNet:
    network = chain(conv(8, 8))
    network.trunk[4].weight = network.trunk[2].weight
    return network


@apart
def test_a_weight_that_two_convolutions_use_is_one_layer_and_shrinks_once(grouping: str) -> None:
    network = tied()
    groups = build_groups(network, grouping, SHAPE)
    assert groups.names == ("0", "2")
    assert groups.total == 8 * 3 * 9 + 8 * 8 * 9
    before = network.trunk[4].weight.clone()
    groups.scale_(torch.full_like(groups.size, 0.5))
    assert torch.equal(network.trunk[4].weight, 0.5 * before)
    check_network(network, SHAPE, [TASK])


def test_a_weight_may_go_whole_only_where_all_that_use_it_may() -> None:
    network = tied()
    for removable, may_go in ((["2"], [False, False]), (["4"], [False, False]), (["4", "2"], [False, True])):
        network.removable = frozenset(removable)
        assert build_groups(network, "input_channel", SHAPE).removable.tolist() == may_go
    network.heads["d"] = conv(8, 8)
    network.heads["d"].weight = network.trunk[2].weight
    assert build_groups(network, "input_channel", SHAPE).removable.tolist() == [False, False]


def test_coupled_channels_of_a_shared_weight_or_bias_are_refused() -> None:
    with pytest.raises(NetworkError, match=r"'trunk\.2' and 'trunk\.4' share a weight.*input_channel$"):
        build_groups(tied(), "coupled", SHAPE)
    network = chain(conv(8, 8))
    network.trunk[4].bias = network.trunk[2].bias
    with pytest.raises(NetworkError, match=r"'trunk\.2' and 'trunk\.4' share a weight"):
        build_groups(network, "coupled", SHAPE)
    network = chain(conv(8, 8))
    network.heads["d"] = conv(8, 8)
    network.heads["d"].weight = network.trunk[2].weight
    with pytest.raises(NetworkError, match=r"'trunk\.2' and 'heads\.d' share a weight"):
        build_groups(network, "coupled", SHAPE)


def alias_data(network: MultiTaskNet) -> None:
    network.trunk[4].weight.data = network.trunk[2].weight.data


def alias_view(network: MultiTaskNet) -> None:
    network.trunk[4].weight = nn.Parameter(network.trunk[2].weight.detach().flip(0)[:])
    network.trunk[4].weight = nn.Parameter(network.trunk[2].weight.detach()[:])


def alias_part(network: MultiTaskNet) -> None:
    network.trunk[0].bias.data = network.trunk[2].weight.data[0, :, 0, 0]


@each_grouping
@pytest.mark.parametrize("alias", [alias_data, alias_view, alias_part])
def test_two_parameters_in_one_memory_are_refused(alias: Callable[[MultiTaskNet], None], grouping: str) -> None:
    network = chain(conv(8, 8))
    alias(network)
    for refuse in (lambda: check_network(network, SHAPE, [TASK]), lambda: build_groups(network, grouping, SHAPE)):
        with pytest.raises(NetworkError, match=r"are two parameters in the same memory.*b\.weight = a\.weight"):
            refuse()


def test_parts_of_one_memory_are_parameters_of_their_own() -> None:
    network = chain(conv(8, 8))
    both = torch.randn(2, 8, 8, 3, 3)
    for place, part in ((2, both[0]), (4, both[1])):
        network.trunk[place].weight = nn.Parameter(part)
    check_network(network, SHAPE, [TASK])
    assert names(network) == ["0", "2", "4"]


class Twice(nn.Module):
    """A convolution of two names that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([conv(3, 8), conv(8, 8)])
        self.stem, self.again = self.layers

    def forward(self, images: Tensor) -> Tensor:
        return self.again(torch.relu(self.layers[1](torch.relu(self.stem(images)))))


@apart
def test_a_convolution_of_two_names_that_is_called_twice_is_one_layer(grouping: str) -> None:
    network = MultiTaskNet(Twice(), {"d": conv(8, 1)}, removable=["again"])
    groups = build_groups(network, grouping, SHAPE)
    assert groups.names == ("layers.0", "layers.1")
    assert groups.removable.tolist() == [False, True]
    kept_zero(groups, network)
    check_network(network, SHAPE, [TASK])


def test_names_and_shared_weights_are_told() -> None:
    network = MultiTaskNet(Twice(), {"d": conv(8, 1)})
    assert names_of_modules(network)[network.trunk.again] == ("trunk.layers.1", "trunk.again")
    assert shared_weights(network) == []
    assert shared_weights(tied()) == [("trunk.2", "trunk.4")]
    three = nn.Sequential(conv(8, 8), conv(8, 8), conv(8, 8))
    three[2].weight, three[1].bias = three[0].weight, three[0].bias
    assert shared_weights(three) == [("0", "2"), ("0", "1")]


# ---- convolutions of one's own --------------------------------------------------------------------------


class Activated(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return F.relu(super().forward(input) - 0.1)


class Same(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(F.pad(input, (1, 1, 1, 1)), self.weight, self.bias)[..., 1:-1, 1:-1]


class Standardised(nn.Conv2d):
    """timm's StdConv2d in short."""

    def forward(self, input: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, [1, 2, 3], keepdim=True)
        return self._conv_forward(input, (self.weight - mean) / (variance + 1e-6).sqrt(), self.bias)


class Scaled(nn.Conv2d):
    """timm's ScaledStdConv2d in short."""

    def __init__(self, *arguments: int, **options: int) -> None:
        super().__init__(*arguments, **options)
        self.gain = nn.Parameter(torch.ones(self.out_channels))

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        flat = weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, weight=self.gain, training=True).reshape_as(weight)
        return super()._conv_forward(input, weight, bias)


class Skipping(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return input + super().forward(input)


class Adapted(nn.Conv2d):
    """A low-rank branch beside the weight."""

    def __init__(self, *arguments: int, **options: int) -> None:
        super().__init__(*arguments, **options)
        self.down, self.up = nn.Conv2d(self.in_channels, 2, 1), nn.Conv2d(2, self.out_channels, 1)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + self.up(self.down(input))


class Centred(nn.Conv2d):
    """Each kernel without its mean: zero channels stay zero, single weights and filters do not."""

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight - self.weight.mean((2, 3), keepdim=True), self.bias)


class Masked(nn.Conv2d):
    """Takes more than images, and cannot be tried by itself."""

    def forward(self, input: Tensor, mask: Tensor) -> Tensor:
        return super().forward(input) * mask


class GivesMask(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.masked = Masked(8, 8, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        return self.masked(input, torch.ones(8, 8))


def hooked() -> nn.Conv2d:
    module = conv(8, 8)
    module.register_forward_hook(lambda module, inputs, output: output + inputs[0])
    return module


def instance() -> nn.Conv2d:
    module = conv(8, 8)
    module.forward = lambda input: F.conv2d(input, module.weight - module.weight.mean(1, keepdim=True), padding=1)
    return module


KEEP = {"relu": Activated, "same": Same}
BREAK = {"standardised": Standardised, "scaled": Scaled, "skipping": Skipping, "adapted": Adapted}


@apart
@pytest.mark.parametrize("kind", KEEP.values(), ids=KEEP)
def test_a_class_whose_zeros_count_is_penalised(kind: type[nn.Conv2d], grouping: str) -> None:
    network = chain(kind(8, 8, 3, padding=1))
    assert names(network, grouping) == ["0", "2", "4"]
    assert not plain_convolution(network.trunk[2])


@each_grouping
@pytest.mark.parametrize("kind", BREAK.values(), ids=BREAK)
def test_a_class_that_answers_channels_of_zero_weights_is_left_out(kind: type[nn.Conv2d], grouping: str) -> None:
    network = chain(kind(8, 8, 3, padding=1))
    groups = build_groups(network, grouping, SHAPE)
    assert "2" not in groups.names
    assert groups.left_out["2"] == f"zeros of a {kind.__name__} are not seen to silence a channel"
    check_network(network, SHAPE, [TASK])


def test_a_trunk_of_such_a_class_alone_is_refused() -> None:
    with pytest.raises(NetworkError, match=r"'0' \(zeros of a Standardised are not seen to silence"):
        check_network(
            MultiTaskNet(nn.Sequential(Standardised(3, 3, 3, padding=1)), {"d": conv(3, 1)}), SHAPE, [TASK]
        )


def test_a_class_that_cannot_be_tried_is_left_out() -> None:
    groups = build_groups(chain(GivesMask()), "input_channel", SHAPE)
    assert groups.left_out == {"2.masked": "zeros of a Masked are not seen to silence a channel"}


def test_hooks_and_forwards_of_an_instance_are_seen() -> None:
    for module in (hooked(), instance()):
        assert not plain_convolution(module)
        assert "2" in build_groups(chain(module), "input_channel", SHAPE).left_out
    quiet = conv(8, 8)
    quiet.register_forward_hook(lambda *_: None)
    assert not plain_convolution(quiet)
    assert names(chain(quiet)) == ["0", "2", "4"]


def test_a_class_may_count_for_channels_and_not_for_single_weights() -> None:
    network = chain(Centred(8, 8, 3, padding=1))
    assert names(network, "input_channel") == ["0", "2", "4"]
    assert names(network, "weight") == ["0", "4"]


def test_trying_a_class_leaves_it_and_the_random_numbers_alone() -> None:
    network = chain(Scaled(8, 8, 3, padding=1))
    before, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    find_penalised(network, SHAPE)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), random)


class Renamed(nn.Conv2d):
    def __init__(self, *arguments: int, **options: int) -> None:
        super().__init__(*arguments, **options)
        self.note = "an __init__ of its own changes nothing"


def test_a_plain_convolution_is_what_another_may_stand_in_for() -> None:
    assert plain_convolution(conv(3, 8))
    assert plain_convolution(nn.Conv2d(4, 4, 3, groups=4))
    assert plain_convolution(Renamed(3, 8, 3))
    others = (Activated(3, 8, 3), Scaled(3, 8, 3), parametrizations.weight_norm(conv(3, 8)), nn.Conv1d(3, 8, 3))
    assert not any(plain_convolution(module) for module in others)


# ---- what is not reached --------------------------------------------------------------------------------


class Branches(nn.Module):
    """Beside what is used: spare, for training alone, under no_grad, and a weight that another module applies."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.last = conv(3, 8), conv(8, 8)
        self.spare, self.training_only, self.constant = conv(8, 8), conv(8, 8), conv(8, 8)
        self.applied = conv(8, 8)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.used(images))
        with torch.no_grad():
            y = self.constant(x)
        x = x + y + F.conv2d(x, self.applied.weight + 1, padding=1)
        return self.last(x) + (self.training_only(x) if self.training else 0)


@apart
def test_what_evaluation_or_no_gradient_reaches_is_left_out(grouping: str) -> None:
    network = MultiTaskNet(Branches(), {"d": conv(8, 1)})
    groups = build_groups(network, grouping, SHAPE)
    assert set(groups.names) <= {"used", "last"}
    # What a computed weight, or one without a gradient, writes is heard beside it: such channels have no group.
    assert build_groups(network, "coupled", SHAPE).names == ("last",)
    assert groups.left_out == {
        "spare": "evaluation does not reach it",
        "training_only": "evaluation does not reach it",
        "applied": "evaluation does not reach it",
        "constant": "no gradient reaches it",
    }
    check_network(network, SHAPE, [TASK])


# ---- what is said ---------------------------------------------------------------------------------------


class Patches(nn.Module):
    """A small ViT: a patch embedding, and what λ cannot act on."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 4, 4)
        self.block = nn.TransformerEncoderLayer(16, 2, 64, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(images)
        return self.block(x.flatten(2).mT).mT.unflatten(2, x.shape[2:])


def test_it_is_said_where_lambda_acts_on_less_than_half_of_the_trunk_or_leaves_something_out() -> None:
    whole = build_groups(chain(conv(8, 8)), "input_channel", SHAPE)
    assert whole.share > 0.9
    assert remark(whole) == ""
    trunk = Patches()
    groups = build_groups(MultiTaskNet(trunk, {"d": nn.Identity()}), "input_channel", SHAPE)
    parameters = sum(parameter.numel() for parameter in trunk.parameters())
    assert groups.share == 16 * 3 * 16 / parameters
    assert remark(groups) == (
        f"λ acts on {100 * groups.share:.3g} % of the trunk's parameters, "
        "and zeros and density are shares of these alone"
    )
    half_frozen = build_groups(half(["two"]), "input_channel", SHAPE)
    assert remark(half_frozen).endswith("; left out: 'two' (it is frozen (requires_grad=False))")
