"""``nn.MultiheadAttention``: heads and width go, whoever calls it and however, and what it tells is heeded."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

from ms_automl.models import MultiTaskNet
from ms_automl.models.attention import CutAttention, EmptyAttention
from ms_automl.models.onnx_form import to_onnx
from ms_automl.models.surgery import Surgery, operate
from ms_automl.sparsifier import Sparsifier
from ms_automl.sparsity import build_groups
from ms_automl.sparsity.compact import compact, randomised
from ms_automl.sparsity.equality import check_equal, probes
from tests.unit.loops import adamw

SHAPE = (3, 16, 16)
WIDTH, HEADS = 12, 3


class Tokens(nn.Module):
    """An image as tokens, something in the middle, and their mean."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.embed, self.middle, self.last = nn.Conv2d(3, WIDTH, 4, 4), middle, nn.Linear(WIDTH, 8)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.middle(self.embed(images).flatten(2).transpose(1, 2)).mean(1))


class Attends(nn.Module):
    """Self-attention as people call it."""

    def __init__(self, batch_first: bool = True, bias: bool = True, **options: object) -> None:
        super().__init__()
        self.mix, self.norm = (
            nn.MultiheadAttention(WIDTH, HEADS, bias=bias, batch_first=batch_first),
            nn.LayerNorm(WIDTH),
        )
        self.batch_first, self.options = batch_first, options

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        y = y if self.batch_first else y.transpose(0, 1)
        y = self.mix(y, y, value=y, **self.options)[0]
        return x + (y if self.batch_first else y.transpose(0, 1))


class Pools(nn.Module):
    """A learned query asks all tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.mix = (
            nn.Parameter(torch.randn(1, 1, WIDTH)),
            nn.MultiheadAttention(WIDTH, HEADS, batch_first=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.query.expand(len(x), -1, -1), x, x, need_weights=False)[0]


class Decodes(nn.Module):
    """Queries of another stream than keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(WIDTH, WIDTH)
        self.layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 20, batch_first=True, norm_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, self.other(x).relu())


class Padded(nn.Module):
    """torch's encoder as it comes, nested tensors and all, told which tokens are none."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 20, batch_first=True)  # of an odd number torch makes none
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, x: Tensor) -> Tensor:
        padding = torch.zeros(x.shape[:2], dtype=torch.bool)
        padding[:, -3:] = True
        return self.encoder(x, src_key_padding_mask=padding)[:, :-3]  # nobody reads what there is for the others


class Asks(nn.Module):
    """Reads of the attention how many heads it has."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.zeros(len(x) * self.mix.num_heads, 16, 16)
        mask[:: self.mix.num_heads, :, :4] = -5  # of the first head
        return x + self.mix.num_heads * self.mix(x, x, x, attn_mask=mask)[0]


class Chain(nn.Sequential):
    """Knows attention by its class."""

    def forward(self, x: Tensor) -> Tensor:
        for part in self:
            x = x + part(x, x, x)[0] if isinstance(part, nn.MultiheadAttention) else part(x)
        return x


def encoder(**options: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 20, activation="gelu", **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


MIDDLES = {
    "plain": Attends,
    "tokens first": lambda: Attends(batch_first=False),
    "no bias": lambda: Attends(bias=False),
    "no weights asked": lambda: Attends(need_weights=False),
    "causal": lambda: Attends(attn_mask=torch.ones(16, 16).triu(1).bool(), is_causal=True, need_weights=False),
    "encoder": lambda: encoder(batch_first=True),
    "encoder, norm first": lambda: encoder(batch_first=True, norm_first=True),
    "encoder, padded": Padded,
    "asks for the number": Asks,
    "known by class": lambda: Chain(nn.LayerNorm(WIDTH), nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)),
    "pooling": Pools,
    "decoder": Decodes,
}


def network(middle: nn.Module, seed: int = 0) -> MultiTaskNet:
    torch.manual_seed(0)
    return randomised(MultiTaskNet(Tokens(middle), {"kind": nn.Linear(8, 4)}), seed, zeros=False)


def half(whole: MultiTaskNet, seed: int, shape: tuple[int, int, int] = SHAPE) -> MultiTaskNet:
    groups = build_groups(whole, "coupled", shape)
    drawn = torch.rand(len(groups.layer), generator=torch.Generator().manual_seed(seed))
    groups.scale_((drawn < 0.5).float())
    return whole


def zeros(net: nn.Module) -> int:
    return sum(int((parameter == 0).sum()) for parameter in net.parameters())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", MIDDLES)
def test_heads_and_width_go_and_the_rest_computes_the_same(name):
    whole = network(MIDDLES[name]())
    groups = build_groups(whole, "coupled", SHAPE)
    counts = dict(zip(groups.names, groups.counts, strict=True))
    (mix, *_) = [name for name, part in whole.trunk.named_modules() if isinstance(part, nn.MultiheadAttention)]
    assert counts[mix] == whole.trunk.get_submodule(mix).num_heads
    assert not any(name.endswith("out_proj") for name in groups.left_out)
    for seed in range(4):
        sparse = half(network(MIDDLES[name](), seed), seed)
        before = zeros(sparse)
        small, surgery = compact(sparse, SHAPE)
        assert before and zeros(small) < 0.02 * before
        again = copy.deepcopy(sparse)
        operate(again, Surgery.from_dict(surgery.to_dict()))
        again.load_state_dict(small.state_dict())
        check_equal(sparse, again, [3 * one for one in probes(SHAPE)])


def test_attention_without_a_head_left_is_compacted():
    sparse = network(Attends())
    groups = build_groups(sparse, "coupled", SHAPE)
    attention = groups.names.index("middle.mix")
    groups.scale_((groups.layer != attention).float())
    small, _ = compact(sparse, SHAPE)
    assert isinstance(small.trunk.middle.mix, EmptyAttention)


class Tells(nn.Module):
    """What it gives answers the weights of all heads, or the sum of them over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y, shares = self.mix(x, x, x)
        return y * shares.amax(-1, keepdim=True)


def test_heads_stay_where_somebody_reads_their_weights():
    groups = build_groups(network(Tells()), "coupled", SHAPE)
    assert "middle.mix" not in groups.names
    sparse = half(network(Tells()), 1)
    compact(sparse, SHAPE)  # compared there


class Subclass(nn.MultiheadAttention):
    """Another scale."""

    def forward(self, query: Tensor, *others: Tensor, **options: object) -> tuple[Tensor, Tensor | None]:
        return super().forward(2 * query, *others, **options)


@pytest.mark.parametrize(
    "mix",
    [
        Subclass(WIDTH, HEADS, batch_first=True),
        nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, add_bias_kv=True),
        nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, add_zero_attn=True),
        nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, kdim=WIDTH + 0, vdim=WIDTH),
    ],
)
def test_attention_of_another_kind_is_exact_whatever_stays(mix):
    middle = Attends(need_weights=False)
    middle.mix = mix
    for seed in range(3):
        compact(half(network(copy.deepcopy(middle), seed), seed), SHAPE)  # compared there


def test_frozen_and_kept_attention_is_left_as_it_is():
    model = Tokens(Attends())
    model.middle.mix.in_proj_weight.requires_grad_(False)
    assert "middle.mix" not in build_groups(MultiTaskNet(model, {"k": nn.Linear(8, 2)}), "coupled", SHAPE).names
    model = Tokens(nn.Sequential(Attends(), Attends()))
    options = {"steps": 10, "target": 0.1, "grouping": "coupled"}
    with pytest.warns(UserWarning, match=r"'middle.1.mix.out_proj' \(it is in `keep`\)"):
        sparsifier = Sparsifier(
            model, adamw(model), example=torch.rand(1, *SHAPE), keep=["middle.1.mix"], **options
        )
    assert "middle.0.mix" in sparsifier.groups.names
    before = copy.deepcopy(model.middle[1].mix.state_dict())
    sparsifier.groups.scale_(torch.zeros(len(sparsifier.groups.layer)))
    after = model.middle[1].mix.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_only_is_of_attention_too():
    options = {"steps": 10, "target": 0.05, "grouping": "coupled", "example": torch.rand(1, *SHAPE)}
    model = Tokens(Attends())
    with pytest.warns(UserWarning, match="it is not in `only`"):
        groups = Sparsifier(model, adamw(model), only=["middle.mix"], **options).groups
    assert groups.names == ("middle.mix",)
    model = Tokens(nn.Sequential(Attends(), nn.Linear(WIDTH, 20), nn.ReLU(), nn.Linear(20, WIDTH)))
    before = copy.deepcopy(model.middle[0].state_dict())
    with pytest.warns(UserWarning, match="it is not in `only`"):
        groups = Sparsifier(model, adamw(model), only=["middle.1", "middle.3"], **options).groups
    groups.scale_(torch.zeros(len(groups.layer)))
    assert all(torch.equal(value, before[key]) for key, value in model.middle[0].state_dict().items())


def test_weights_that_training_alone_reads_count_the_heads_that_are_gone():
    sparse = half(network(Attends()), 1)
    small, _ = compact(sparse, SHAPE)
    x = torch.randn(2, 7, WIDTH)
    kept = [index for index, width in enumerate(sparse.trunk.embed.weight.flatten(1).abs().sum(1)) if width > 0]
    whole, cut = sparse.trunk.middle.mix, small.trunk.middle.mix
    given = torch.zeros(2, 7, WIDTH)
    given[..., kept] = x[..., kept]
    expected = whole(given, given, given)[1]
    torch.testing.assert_close(cut(*[x[..., kept]] * 3)[1], expected)


def test_an_axis_in_the_code_is_told_from_another_number_of_its_length():
    """Of torchvision's ViT the width and the side of its images are both 32 here."""
    vit = VisionTransformer(32, 8, 2, 4, 32, 48, num_classes=4)
    sparse = half(randomised(MultiTaskNet(vit, {"kind": nn.Linear(4, 4)}), zeros=False), 1, (3, 32, 32))
    small, _ = compact(sparse, (3, 32, 32))
    assert small.trunk.hidden_dim == small.trunk.conv_proj.out_channels < 32
    assert small.trunk.image_size == 32


def test_compact_attention_goes_into_a_program_and_into_onnx():
    small, _ = compact(half(network(Attends()), 1), SHAPE)
    images = torch.randn(5, *SHAPE)
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(small, (torch.randn(2, *SHAPE),), dynamic_shapes=shapes).module()
    torch.testing.assert_close(program(images)["kind"], small(images)["kind"])
    to_onnx(small, SHAPE)  # compared there


@pytest.mark.filterwarnings("ignore:Support for mismatched")
@pytest.mark.parametrize("batch_first", [True, False])
def test_it_is_called_as_torchs_attention_is(batch_first):
    torch.manual_seed(0)
    torchs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first).eval()
    nn.init.normal_(torchs.in_proj_bias)
    ours = CutAttention(torchs)
    hidden = torch.rand(2 * HEADS, 5, 7) < 0.3
    hidden[:, :, 0] = False
    padding = torch.zeros(2, 7).bool()
    padding[1, 5:] = True
    query, key = torch.randn(2, 5, WIDTH), torch.randn(2, 7, WIDTH)
    given = [one if batch_first else one.transpose(0, 1) for one in (query, key, key)]
    masks = (None, hidden[0], -3 * hidden[0].float(), hidden)
    for mask, pad, asked, mean in itertools.product(masks, (None, padding), (True, False), (True, False)):
        options = {
            "attn_mask": mask,
            "key_padding_mask": pad,
            "need_weights": asked,
            "average_attn_weights": mean,
        }
        torch.testing.assert_close(ours(*given, **options), torchs(*given, **options))
    torch.testing.assert_close(ours(*[query[0]] * 3), torchs(*[query[0]] * 3))
