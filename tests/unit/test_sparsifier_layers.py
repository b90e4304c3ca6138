"""Which layers of a model a sparsifier takes, and which it leaves alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ms_automl
from ms_automl.errors import NetworkError
from ms_automl.sparsifier import Sparsifier
from tests.unit.loops import adamw, classifier, example

LAYERS = ("stem.0", "body.0", "down")


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        ({}, LAYERS),
        ({"keep": ["body"]}, ("stem.0", "down")),
        ({"keep": "stem.0"}, ("body.0", "down")),
        ({"keep": lambda name: name.startswith("b")}, ("stem.0", "down")),
        ({"only": ["body", "stem.0"]}, ("stem.0", "body.0")),
        ({"only": ["body", "down"], "keep": ["down"]}, ("body.0",)),
    ],
)
@pytest.mark.filterwarnings("ignore:λ can act on")
def test_layers_are_chosen_by_name_or_predicate(arguments, taken):
    model = classifier()
    arguments |= {"target": 0.05, "grouping": "input_channel"}
    sparsifier = Sparsifier(model, adamw(model), example=example(), steps=10, **arguments)
    assert sparsifier.groups.names == taken


def test_a_name_that_no_module_has_is_refused():
    model = classifier()
    with pytest.raises(NetworkError, match="`keep` names 'trunk', which the model does not have"):
        Sparsifier(model, adamw(model), example=example(), steps=10, target=0.1, keep=["trunk"])


@pytest.mark.parametrize(
    "tail", [nn.Identity(), nn.AvgPool2d(2), nn.Sequential(nn.BatchNorm2d(5), nn.Upsample(scale_factor=2))]
)
@pytest.mark.parametrize("grouping", ["input_channel", "output_channel", "coupled"])
def test_a_layer_whose_outputs_are_the_models_own_is_left_alone(tail, grouping):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 9, 3), nn.ReLU(), nn.Conv2d(9, 8, 1), nn.ReLU(), nn.Conv2d(8, 5, 1), tail)
    sparsifier = Sparsifier(model, adamw(model), example=example(), steps=10, target=0.1, grouping=grouping)
    assert "4" not in sparsifier.groups.names
    assert sparsifier.groups.left_out["4"] == "its outputs are the model's own"


class Stream(nn.Module):
    """Gives its residual stream, into which several layers write and which each of them but the last reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.wide = nn.ModuleList([nn.Conv2d(12, 40, 1), nn.Conv2d(12, 40, 1)])
        self.back = nn.ModuleList([nn.Conv2d(40, 12, 1), nn.Conv2d(40, 12, 1)])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images)
        for wide, back in zip(self.wide, self.back, strict=True):
            x = x + back(wide(x).relu())
        return x


@pytest.mark.parametrize("grouping", ["input_channel", "coupled"])
def test_of_the_layers_that_write_an_output_the_last_alone_is_left_alone(grouping):
    """What the model gives keeps its width, and hidden channels behind it go."""
    torch.manual_seed(0)
    model = Stream()
    optimizer = adamw(model)
    sparsifier = Sparsifier(model, optimizer, example=example(), steps=10, target=0.4, grouping=grouping)
    assert sparsifier.groups.left_out["back.1"] == "its outputs are the model's own"
    assert {"wide.0", "wide.1"} <= set(sparsifier.groups.names)
    for _ in range(10):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 12, 12)).square().mean().backward()
        optimizer.step()
        sparsifier.step()
    small = sparsifier.compact()
    assert small(example()).shape == model(example()).shape
    parameters = [sum(value.numel() for value in one.parameters()) for one in (small, model)]
    assert parameters[0] < 0.65 * parameters[1]


def test_a_layer_that_no_optimizer_trains_is_left_alone():
    model = classifier()
    optimizer = torch.optim.SGD([*model.stem.parameters(), *model.down.parameters()], lr=0.1)
    sparsifier = Sparsifier(model, optimizer, example=example(), steps=10, target=0.1)
    assert sparsifier.groups.left_out == {
        "body.0": "no optimizer that was given trains it",
        "head": "its outputs are the model's own",
    }


def test_of_a_multi_task_network_the_trunk_alone_is_thinned_out(tiny_network, tiny_data):
    network = tiny_network()
    images = tiny_data.train.batch(torch.arange(1)).images
    sparsifier = ms_automl.Sparsifier(network, adamw(network), example=images, steps=10, target=0.5)
    assert sparsifier.groups.total < sum(value.numel() for value in network.trunk.parameters())
    assert sparsifier.groups.share == pytest.approx(
        sparsifier.groups.total / sum(value.numel() for value in network.trunk.parameters())
    )


def test_less_than_half_of_the_weights_in_reach_is_said_before_anything_trains():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 50))
    with pytest.warns(UserWarning, match=r"λ can act on 0\.5\d* % of the model's weights"):
        Sparsifier(model, adamw(model), example=example(), steps=10, target=0.002)


@pytest.mark.parametrize(
    "head",
    [
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 4)),
        lambda: Cosine(8, 4),
        lambda: Einsum(8, 4),
        lambda: nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 4)),
    ],
)
def test_the_last_convolution_in_front_of_a_head_of_any_kind_is_thinned_out(head):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head()
    )
    sparsifier = Sparsifier(model, adamw(model), example=example(), steps=10, target=0.1, grouping="input_channel")
    assert sparsifier.groups.names[:2] == ("0", "2")
    assert set(sparsifier.groups.names[2:]) <= {"6.0"}  # the hidden layer of a head


class Cosine(nn.Linear):
    def forward(self, features):
        return F.linear(F.normalize(features), F.normalize(self.weight))


class Einsum(nn.Linear):
    def forward(self, features):
        return torch.einsum("bc,kc->bk", features, self.weight)


def test_a_weight_of_two_layers_is_kept_under_either_name():
    for name in ("body.0", "body.3"):
        model = classifier()
        twin = nn.Conv2d(12, 12, 3, padding=1)
        twin.weight = model.body[0].weight
        model.body.append(twin)
        sparsifier = Sparsifier(model, adamw(model), example=example(), steps=10, keep=[name], target=0.1)
        assert sparsifier.groups.names == ("stem.0", "down")


class Block(nn.Module):
    """What coupled groups reach beyond their layers: norms, a grouped convolution, a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.point = nn.Sequential(nn.Conv2d(8, 12, 1), nn.GroupNorm(3, 12), nn.ReLU(), nn.Conv2d(12, 8, 1))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)

    def forward(self, images):
        deep = self.depthwise(self.stem(images)) * self.scale
        return self.head(self.norm(self.point(deep).mean((2, 3))))


@pytest.mark.parametrize("name", ["stem", "stem.0", "stem.1", "depthwise", "point", "point.1", "point.3", "norm"])
@pytest.mark.filterwarnings("ignore:λ can act on")
def test_nothing_of_what_is_kept_changes_where_channels_are_coupled(name):
    """Were all groups gone at once: weights, norms, biases."""
    torch.manual_seed(0)
    model = Block()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand_like(parameter) + 0.5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    groups = _coupled(model, keep=[name]).groups
    groups.scale_(torch.zeros(len(groups.layer)))
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert not [key for key in changed if key.startswith(f"{name}.")]


@pytest.mark.filterwarnings("ignore:λ can act on")
def test_only_is_of_layers_and_what_passes_their_channels_goes_along():
    groups = _coupled(Block(), only=["point"]).groups
    assert groups.names == ("point.0", "point.3")
    assert len(groups.companions) == 6  # the bias and the norm behind each
    with pytest.raises(NetworkError, match=r"no coupled channel .*'depthwise' \(it is not in `only`\)"):
        _coupled(Block(), only=["stem"])


@pytest.mark.filterwarnings("ignore:λ can act on")
def test_what_no_optimizer_trains_keeps_its_channels():
    model = Block()
    optimizer = torch.optim.SGD(
        [value for name, value in model.named_parameters() if name != "stem.1.bias"], lr=0.1
    )
    groups = _coupled(model, optimizer).groups
    assert groups.names == ("point.0", "point.3")


class Scales(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return x * self.scale.view(1, -1, 1, 1)


@pytest.mark.filterwarnings("ignore:λ can act on")
@pytest.mark.parametrize("name", ["2", "5"])
def test_a_parameter_of_two_modules_is_kept_under_either_name(name):
    scale = nn.Parameter(torch.ones(8))
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), Scales(scale), nn.Conv2d(8, 8, 3), nn.ReLU(), Scales(scale)
    )
    model.extend([nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1)])
    groups = _coupled(model, keep=[name]).groups
    assert groups.names == ("6",)


def test_a_grouped_convolution_that_makes_the_models_own_outputs_is_left_alone():
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6)
    )
    groups = _coupled(model).groups
    assert groups.names == ("0",)


def _coupled(model, optimizer=None, **arguments):
    optimizer = adamw(model) if optimizer is None else optimizer
    return Sparsifier(model, optimizer, example=example(), steps=10, target=0.05, grouping="coupled", **arguments)
