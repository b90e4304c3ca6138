"""Transformers: hidden units, heads and the width of the residual stream go, and the rest computes the same."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import SwinTransformer
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from ms_automl.errors import NetworkError
from ms_automl.models import MultiTaskNet
from ms_automl.models.onnx_form import to_onnx
from ms_automl.models.replaced import CountedLayerNorm
from ms_automl.models.surgery import Surgery, operate
from ms_automl.sparsity import build_groups
from ms_automl.sparsity.compact import compact, randomised
from ms_automl.sparsity.equality import check_equal, probes

SHAPE = (3, 16, 16)
WIDTH, HEADS, HIDDEN = 12, 3, 20


class Attention(nn.Module):
    """q, k and v of one layer, their product step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = HEADS, nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.transpose(-2, -1)) * 0.5
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Fused(Attention):
    """torch's one operation for the product, with an offset for each head."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.randn(HEADS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (one.unflatten(2, (self.heads, -1)).transpose(1, 2) for one in self.qkv(x).chunk(3, -1))
        return self.out(F.scaled_dot_product_attention(q, k, v, self.offset).transpose(1, 2).flatten(2))


class FixedHeads(Attention):
    """The number of heads is written in the code: what each of them has may shrink."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 3, -1).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.transpose(-2, -1)) * 0.5
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Rigid(Attention):
    """Both are written in the code, and nothing may shrink."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.transpose(-2, -1)) * 0.5
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(*x.shape[:2], 12))


class Transformer(nn.Module):
    """A small ViT of two blocks with a class token and positions."""

    def __init__(self, attention: type[nn.Module], norm: type[nn.Module] = nn.LayerNorm) -> None:
        super().__init__()
        self.embed, self.token = nn.Conv2d(3, WIDTH, 4, 4), nn.Parameter(torch.randn(1, 1, WIDTH))
        self.places = nn.Parameter(torch.randn(1, 17, WIDTH))
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "before": norm(WIDTH),
                    "mix": attention(),
                    "between": norm(WIDTH),
                    "up": nn.Linear(WIDTH, HIDDEN),
                    "down": nn.Linear(HIDDEN, WIDTH),
                }
            )
            for _ in range(2)
        )

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        for block in self.blocks:
            x = x + block["mix"](block["before"](x))
            x = x + block["down"](F.gelu(block["up"](block["between"](x))))
        return x[:, 0]


def network(trunk: nn.Module, features: int = WIDTH) -> MultiTaskNet:
    torch.manual_seed(0)
    return randomised(MultiTaskNet(trunk, {"kind": nn.Linear(features, 4)}), zeros=False)


def halved(whole: MultiTaskNet, grouping: str, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> MultiTaskNet:
    """With a random half of its groups at zero."""
    groups = build_groups(whole, grouping, shape)
    drawn = torch.rand(len(groups.layer), generator=torch.Generator().manual_seed(seed))
    groups.scale_((drawn < 0.5).float())
    return whole


def zeros(net: nn.Module) -> int:
    return sum(int((parameter == 0).sum()) for parameter in net.parameters())


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize("attention", [Attention, Fused, FixedHeads, Rigid])
@pytest.mark.parametrize("grouping", ["input_channel", "coupled"])
def test_what_is_left_computes_the_same_on_images_of_any_scale(attention, norm, grouping):
    for seed in range(3):
        sparse = halved(network(Transformer(attention, norm)), grouping, seed)
        small, surgery = compact(sparse, SHAPE)
        assert sum(one.numel() for one in small.parameters()) < sum(one.numel() for one in sparse.parameters())
        images = [7 * one.double() for one in probes(SHAPE)]
        check_equal(copy.deepcopy(sparse).double(), copy.deepcopy(small).double(), images)
        again = copy.deepcopy(sparse)
        operate(again, Surgery.from_dict(surgery.to_dict()))
        again.load_state_dict(small.state_dict())
        check_equal(sparse, again, probes(SHAPE))


@pytest.mark.parametrize(
    ("attention", "units"), [(Attention, HEADS), (Fused, HEADS), (FixedHeads, WIDTH // HEADS), (Rigid, None)]
)
def test_heads_are_groups_where_their_number_is_no_constant_of_the_code(attention, units):
    groups = build_groups(network(Transformer(attention)), "coupled", SHAPE)
    counts = dict(zip(groups.names, groups.counts, strict=True))
    assert counts.get("blocks.0.mix.qkv") == units
    assert counts["blocks.0.up"] == HIDDEN
    assert counts["embed"] == WIDTH


def test_no_zero_is_left_of_a_transformer_whose_channels_are_coupled():
    sparse = halved(network(Transformer(Attention)), "coupled", seed=1)
    small, _ = compact(sparse, SHAPE)
    assert zeros(small) < 0.02 * zeros(sparse)
    assert isinstance(small.trunk.blocks[0]["before"], CountedLayerNorm)
    assert small.trunk.blocks[0]["mix"].heads < HEADS


def test_a_swin_transformer_loses_its_hidden_units_and_no_more():
    swin = SwinTransformer([2, 2], 12, [2, 2], [2, 2], [2, 2], num_classes=4)
    sparse = halved(network(swin, 4), "coupled")
    small, _ = compact(sparse, SHAPE)
    assert small.trunk.features[1][0].mlp[0].weight.shape[0] < 48
    assert small.trunk.features[1][0].attn.qkv.weight.shape == (36, 12)


@pytest.mark.parametrize("grouping", ["input_channel", "coupled"])
def test_a_convnext_is_cut_through_norms_scales_and_depthwise_convolutions(grouping):
    trunk = ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=4)
    sparse = halved(network(trunk, 4), grouping, shape=(3, 32, 32))
    before = zeros(sparse)
    small, _ = compact(sparse, (3, 32, 32))
    assert zeros(small) < 0.1 * before


def test_a_compact_transformer_goes_into_a_program_and_into_onnx():
    small, _ = compact(halved(network(Transformer(Attention)), "coupled"), SHAPE)
    program = torch.export.export(
        small, (torch.randn(2, *SHAPE),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    ).module()
    images = torch.randn(5, *SHAPE)
    torch.testing.assert_close(program(images)["kind"], small(images)["kind"])
    to_onnx(small, SHAPE)  # compared there


class Held(nn.Module):
    """The number of heads is a constant of the code, and the layers are in a container that nobody calls."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"qkv": nn.Linear(8, 24), "out": nn.Linear(8, 8)})

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.parts["qkv"](x).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        return self.parts["out"](((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).flatten(2))


class Counting(Attention):
    """The number of heads is an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = 2, nn.Linear(8, 24), nn.Linear(8, 8)


class Listed(nn.Module):
    """Attention between two layers, in a list."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Conv2d(3, 8, 4, 4), attention, nn.Linear(8, 8)])

    def forward(self, x: Tensor) -> Tensor:
        first, attention, last = self.parts
        return last(attention(first(x).flatten(2).transpose(1, 2))).mean(1)


@pytest.mark.parametrize("attention", [Held, Counting])
@pytest.mark.parametrize("gone", [4, 8])
def test_whose_code_has_a_size_is_found_behind_containers_and_where_all_of_it_goes(attention, gone):
    sparse = network(Listed(attention()), 8)
    with torch.no_grad():
        sparse.trunk.parts[2].weight[:, :gone] = 0
        if attention is Held:
            sparse.trunk.parts[1].parts["out"].weight[:, :4] = 0
    small, _ = compact(sparse, SHAPE)
    check_equal(sparse, small, probes(SHAPE))


def test_two_shuffles_of_different_parts_are_followed_as_far_as_they_go_together():
    class Shuffle(nn.Module):
        def __init__(self, parts: int) -> None:
            super().__init__()
            self.work = lambda x: x.unflatten(1, (parts, -1)).transpose(1, 2).flatten(1, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.work(x)

    trunk = nn.Sequential(nn.Conv2d(3, 6, 3), Shuffle(2), Shuffle(3), nn.Conv2d(6, 6, 3), nn.Flatten(2))
    groups = build_groups(MultiTaskNet(trunk, {"k": nn.Conv1d(6, 4, 1)}).eval(), "coupled", SHAPE)
    assert "3" in groups.names


def test_a_trunk_that_gives_nan_where_channels_are_zero_is_refused_in_one_line():
    class Divided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / x.abs().amax((2, 3), True)

    trunk = nn.Sequential(nn.Conv2d(3, 6, 3), Divided(), nn.Conv2d(6, 6, 3))
    with pytest.raises(NetworkError, match="gives NaN or infinity") as caught:
        build_groups(MultiTaskNet(trunk, {"k": nn.Conv2d(6, 4, 1)}).eval(), "coupled", SHAPE)
    assert "\n" not in str(caught.value)
