"""Networks of strangers: served, or refused in one line before anything trains."""

import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from ms_automl.comparison.selection import compacted
from ms_automl.data import MultiTaskData, TensorSplit
from ms_automl.errors import NetworkError
from ms_automl.models import MultiTaskNet, check_network, flops_of_a_sample
from ms_automl.models.archive import Architecture, load, save_model
from ms_automl.models.leaves import leaves
from ms_automl.models.profile import size_of
from ms_automl.sparsity import build_groups
from ms_automl.tasks import depth
from ms_automl.training import TrainingLoop, TrainingSettings

TASK = depth("d")
SHAPE = (3, 16, 16)
SETTINGS = TrainingSettings(steps=2, batch_size=4, report_every=2)


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def network(trunk: nn.Module, head: nn.Module | None = None) -> MultiTaskNet:
    return MultiTaskNet(trunk, {"d": head or conv(8, 1)})


def data() -> MultiTaskData:
    images = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(1))
    split = TensorSplit(images, {"d": images[:, :1] ** 2 + 1})
    return MultiTaskData("noise", split, split, split, [TASK])


class Through(nn.Module):
    """A convolution, and something of another kind behind it."""

    def __init__(self, other: nn.Module, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.other, self.does = conv(3, 8), other, forward

    def forward(self, images: Tensor) -> Tensor:
        return self.does(self.other, torch.relu(self.first(images)))


# ---- served ---------------------------------------------------------------------------------------------

OTHERS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module, Tensor], Tensor]]] = {
    "Conv3d": (lambda: nn.Conv3d(1, 1, 3, padding=1), lambda m, x: m(x[:, None])[:, 0]),
    "Conv3d, BatchNorm3d": (
        lambda: nn.Sequential(nn.Conv3d(1, 1, 3, padding=1), nn.BatchNorm3d(1)),
        lambda m, x: m(x[:, None])[:, 0],
    ),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(1, 1, 3, padding=1), lambda m, x: m(x[:, None])[:, 0]),
    "Conv1d": (lambda: nn.Conv1d(8, 8, 3, padding=1), lambda m, x: m(x.flatten(2)).view_as(x)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(8, 8, 3, padding=1), lambda m, x: m(x)),
    "grouped": (lambda: nn.Conv2d(8, 8, 3, padding=1, groups=2), lambda m, x: m(x)),
    "LSTM": (lambda: nn.LSTM(8, 8, batch_first=True), lambda m, x: x + m(x.mean(3).mT)[0].mT[..., None]),
}


@pytest.mark.parametrize("kind", OTHERS.values(), ids=OTHERS)
def test_layers_of_other_kinds_are_trained_counted_and_thinned_out_where_they_mix_channels(kind: Any) -> None:
    build, forward = kind
    net = network(Through(build(), forward))
    check_network(net, SHAPE, [TASK])
    loop = TrainingLoop(data(), net, SETTINGS, 0)
    mixing = {name for name, one in net.trunk.named_modules() if type(one).__name__.startswith("Conv")}
    grouped = {name for name in mixing if net.trunk.get_submodule(name).groups > 1}
    assert set(loop.sparsifier.groups.names) == mixing - grouped
    assert net.trunk.first.weight.is_contiguous(memory_format=torch.channels_last)
    assert "test/d/loss" in loop.interval()
    assert size_of(net, SHAPE)["trunk_macs"] >= 8 * 27 * 256
    assert not loop.sparsifier.groups.left_out


class Pair(NamedTuple):
    low: Tensor
    high: Tensor


@dataclass
class Pyramid:
    low: Tensor
    high: tuple[Tensor, ...]


class Named(dict):
    """As the outputs of some libraries: a mapping with attributes."""

    __getattr__ = dict.__getitem__


FORMS: dict[str, tuple[Callable[[Tensor, Tensor], Any], Callable[[Any], tuple[Tensor, Tensor]]]] = {
    "dict": (lambda a, b: {"low": a, "high": b}, lambda f: (f["low"], f["high"])),
    "list": (lambda a, b: [a, b], lambda f: (f[0], f[1])),
    "tuple": (lambda a, b: (a, b), lambda f: f),
    "nested": (
        lambda a, b: {"maps": [a, (b, a)], "size": 3, "none": None},
        lambda f: (f["maps"][0], f["maps"][1][0]),
    ),
    "NamedTuple": (Pair, lambda f: (f.low, f.high)),
    "dataclass": (lambda a, b: Pyramid(a, (b,)), lambda f: (f.low, f.high[0])),
    "mapping": (lambda a, b: Named(low=a, high=b), lambda f: (f.low, f.high)),
}


class Several(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.a, self.b, self.form = conv(3, 8), nn.Conv2d(8, 8, 3, 2, 1), form

    def forward(self, images: Tensor) -> Any:
        a = torch.relu(self.a(images))
        return FORMS[self.form][0](a, torch.relu(self.b(a)))


class Both(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.c, self.up, self.form = nn.Conv2d(16, 1, 1), nn.Upsample(scale_factor=2), form

    def forward(self, features: Any) -> Tensor:
        low, high = FORMS[self.form][1](features)
        return self.c(torch.cat([low, self.up(high)], 1))


def several(image_shape: object, heads: dict[str, object], form: str = "dict") -> MultiTaskNet:
    torch.manual_seed(0)
    return MultiTaskNet(Several(form), {name: Both(form) for name in heads})


@pytest.mark.parametrize("form", FORMS)
def test_a_trunk_may_give_its_features_in_any_form(form, tmp_path) -> None:
    net = several(SHAPE, {"d": TASK.head}, form)
    check_network(net, SHAPE, [TASK])
    single = size_of(several(SHAPE, {"d": TASK.head}, "tuple"), SHAPE)
    assert size_of(net, SHAPE) == single
    assert flops_of_a_sample(net, SHAPE)[0] > 2 * flops_of_a_sample(net, SHAPE)[1]
    assert build_groups(net, "coupled", SHAPE).names == ("a", "b")
    groups = TrainingLoop(data(), net, SETTINGS, 0).sparsifier.groups
    groups.scale_((torch.arange(len(groups.layer)) % 2).float())
    architecture = Architecture(f"{__name__}:several", {"form": form}, SHAPE, {"d": TASK.head})
    save_model(net, tmp_path / "model", architecture)
    small = compacted(tmp_path / "model", "input_channel", torch.randn(4, *SHAPE))
    assert not small.why
    assert small.macs_ratio is not None
    assert load(tmp_path / "model")(torch.randn(1, *SHAPE))["d"].shape == (1, 1, 16, 16)


def test_leaves_are_the_tensors_in_order() -> None:
    a, b = torch.zeros(1), torch.ones(1)
    assert leaves({"x": [a, None, "text"], "y": Pyramid(b, (a,))}) == [a, b, a]
    assert leaves(3) == leaves(None) == []


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.scale = conv(8, 8), nn.Parameter(torch.tensor(0.1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.inner(x)


class Remembers(nn.Module):
    """Keeps what it computed, as code that shows attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.last = x.sigmoid()
        return x * self.last


@pytest.mark.parametrize("middle", [Scale, Remembers])
def test_a_scalar_parameter_and_a_remembered_tensor_are_served(middle: type[nn.Module], tmp_path) -> None:
    net = network(nn.Sequential(conv(3, 8), middle(), nn.ReLU(), conv(8, 8)))
    net(torch.randn(1, *SHAPE))
    check_network(net, SHAPE, [TASK])
    for grouping in ("input_channel", "coupled"):
        build_groups(net, grouping, SHAPE)
    TrainingLoop(data(), net, SETTINGS, 0).interval()
    net.train()(torch.randn(2, *SHAPE))
    save_model(net, tmp_path, Architecture("small_resnet", {}, SHAPE, {}))


def test_a_compiled_trunk_is_seen_through() -> None:
    net = network(torch.compile(nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 8))))
    assert build_groups(net, "input_channel", SHAPE).names == ("_orig_mod.0", "_orig_mod.2")


# ---- refused --------------------------------------------------------------------------------------------


class Does(nn.Module):
    def __init__(self, what: Callable[[Tensor], Any], *parts: nn.Module) -> None:
        super().__init__()
        self.does, self.parts = what, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Any:
        return self.does(x)


class Counter(nn.Module):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


def fail(x: Tensor) -> Tensor:
    raise ValueError("two\nlines")


def in_training(x: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        raise ValueError("only in training")
    return x


def overwritten(x: Tensor) -> Tensor:
    y = x.exp()
    y.add_(1)  # exp's own result is needed for its gradient
    return y


def nan_weight() -> nn.Module:
    module = conv(8, 8)
    module.weight.data[0, 0, 0, 0] = float("nan")
    return module


def inference_weight() -> nn.Module:
    with torch.inference_mode():
        return conv(8, 8)


def meta_weight() -> nn.Module:
    return nn.Conv2d(8, 8, 3, padding=1, device="meta")


def uncopyable() -> nn.Module:
    module = conv(8, 8)
    module.log = io.BufferedReader(io.BytesIO())
    return module


def nan_average() -> nn.Module:
    norm = nn.BatchNorm2d(8)
    norm.running_var.fill_(torch.nan)
    return norm


WRONG: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "lazy": (
        lambda: nn.LazyConv2d(8, 3, padding=1),
        r"'trunk\.1\.weight' is not initialised yet.*call the network",
    ),
    "lazy norm": (nn.LazyBatchNorm2d, r"'trunk\.1\.weight' is not initialised yet"),
    "NaN": (nan_weight, r"'trunk\.1\.weight' holds values that are NaN or infinite"),
    "half": (lambda: conv(8, 8).half(), r"'trunk\.1\.weight' is float16, expected float32"),
    "double": (lambda: conv(8, 8).double(), r"'trunk\.1\.weight' is float64, expected float32"),
    "inference": (inference_weight, r"'trunk\.1\.weight' was made under torch.inference_mode"),
    "meta": (meta_weight, r"'trunk\.1\.weight' is on meta: a factory makes its network on the CPU"),
    "half output": (lambda: Does(lambda x: x.half()), "task 'd': the head gives float16, expected float32"),
    "random": (lambda: Does(lambda x: x + torch.rand(1)), "task 'd': the same images give other outputs"),
    "dropout": (
        lambda: Does(lambda x: nn.functional.dropout(x, 0.5, training=True)),
        "nothing may be random or remembered in evaluation mode",
    ),
    "Python's random": (lambda: Does(lambda x: x * random.random()), "task 'd': the same images give other out"),
    "counts": (Counter, "task 'd': the same images give other outputs"),
    "others of the batch": (lambda: Does(lambda x: x - x.mean(0)), "an image's output depends on the others of"),
    "the first of the batch": (lambda: Does(lambda x: x[:1].expand(len(x), -1, -1, -1)), "depends on the others"),
    "averages of NaN": (nan_average, "the head gives NaN or infinite values in evaluation mode"),
    "raises": (lambda: Does(fail), r"fails on images of shape \(2, 3, 16, 16\): ValueError: two$"),
    "raises in training": (lambda: Does(in_training), r"fails in training .*: ValueError: only in training$"),
    "in place": (lambda: Does(overwritten), "fails in training .*: RuntimeError: one of the variables needed for"),
    "uncopyable": (uncopyable, r"the network cannot be copied \(TypeError: "),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_network_that_cannot_be_trained_as_it_is_is_refused_in_one_line(wrong: Any) -> None:
    build, words = wrong
    head = nn.Identity() if "float16, " in words and "head" in words else None
    trunk = nn.Sequential(nn.Conv2d(3, 1 if head else 8, 3, padding=1), build())
    with pytest.raises(NetworkError, match=words) as caught:
        check_network(network(trunk, head), SHAPE, [TASK])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "first", [nn.ReLU(inplace=True), Does(lambda x: x.mul_(2)), Does(lambda x: x.clamp_(0)[:, :])]
)
def test_a_network_that_changes_its_images_is_refused(first: nn.Module) -> None:
    with pytest.raises(NetworkError, match="the network changes the images it is given"):
        check_network(network(nn.Sequential(first, conv(3, 8))), SHAPE, [TASK])


def test_a_lazy_network_that_has_seen_images_is_served() -> None:
    net = network(nn.Sequential(nn.LazyConv2d(8, 3, padding=1)), nn.LazyConv2d(1, 1))
    with pytest.raises(NetworkError, match="not initialised yet"):
        build_groups(net, "input_channel", SHAPE)
    net(torch.randn(1, *SHAPE))
    check_network(net, SHAPE, [TASK])
    assert build_groups(net, "input_channel", SHAPE).names == ("0",)


class NoDict(MultiTaskNet):
    def forward(self, images: Tensor) -> Any:
        return [head(self.trunk(images)) for head in self.heads.values()]


class Forgets(MultiTaskNet):
    def forward(self, images: Tensor) -> Any:
        return {}


def test_what_is_no_output_by_task_is_refused() -> None:
    with pytest.raises(NetworkError, match="must give outputs by task, but gave list"):
        check_network(NoDict(conv(3, 8), {"d": conv(8, 1)}), SHAPE, [TASK])
    with pytest.raises(NetworkError, match="task 'd': the head gives a NoneType, expected a tensor"):
        check_network(Forgets(conv(3, 8), {"d": conv(8, 1)}), SHAPE, [TASK])


def test_a_trunk_without_parameters_is_refused() -> None:
    with pytest.raises(NetworkError, match="the trunk has no ungrouped convolution"):
        check_network(network(nn.AvgPool2d(2)), SHAPE, [TASK])
    with pytest.raises(NetworkError, match="the trunk has no ungrouped convolution"):
        build_groups(network(nn.AvgPool2d(2)), "input_channel", SHAPE)
