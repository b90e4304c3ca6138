"""Compact models of networks whose tensors are not all float32, or that were changed on the way."""

import pytest
import torch
from torch import Tensor, nn

from ms_automl import Sparsifier
from ms_automl.errors import ConfigError, MsAutomlError
from tests.unit.loops import adamw


class Fourier(nn.Module):
    """A filter in the frequency domain, and a parameter of another precision in front."""

    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(3, dtype=kind), requires_grad=False)
        self.a, self.b = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 8, 3, padding=1)
        self.register_buffer("filter", torch.randn(1, 1, 8, 5, dtype=torch.complex64))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x + self.shift.to(x.dtype).view(1, 3, 1, 1))
        x = torch.fft.irfft2(torch.fft.rfft2(x) * self.filter)
        return self.head(self.b(x.relu()).mean((2, 3)))


def trained(model: nn.Module, target: float = 0.4, steps: int = 20, **options) -> Sparsifier:
    optimizer = adamw(model)
    images = torch.randn(4, 3, 8, 8)
    sparsifier = Sparsifier(model, optimizer, example=images, steps=steps, target=target, **options)
    for _ in range(steps):
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
        sparsifier.step()
    return sparsifier


@pytest.mark.filterwarnings("ignore:.* went at once")  # a training of a few steps
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
def test_every_tensor_keeps_its_precision_and_a_complex_one_its_imaginary_part(kind):
    torch.manual_seed(0)
    model = Fourier(kind)
    small = trained(model).compact()
    before = {name: value.dtype for name, value in model.state_dict().items()}
    assert {name: value.dtype for name, value in small.state_dict().items() if name in before} == before
    images = 3 * torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(small(images), model.eval()(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grouping", ["input_channel", "coupled"])
def test_a_u_net_with_transposed_convolutions_is_compacted(grouping):
    torch.manual_seed(0)

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.deep = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
            self.up, self.last = nn.ConvTranspose2d(16, 8, 2, 2), nn.ConvTranspose2d(16, 6, 2, 2)
            self.head = nn.Conv2d(6, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            one = self.down(x).relu()
            two = self.up(self.deep(one).relu()).relu()
            return self.head(self.last(torch.cat([one, two], 1)).relu())

    model = UNet()
    small = trained(model, grouping=grouping).compact()
    assert small.up.weight.shape[0] < 16
    images = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(small(images), model.eval()(images), rtol=1e-4, atol=1e-5)


def test_torchs_own_encoder_computes_the_same_in_evaluation():
    torch.manual_seed(0)

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Conv2d(3, 16, 4, 4)
            layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
            self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.encoder(self.embed(x).flatten(2).mT).mean(1))

    model = Encoder()
    small = trained(model, 0.3).compact()
    assert sum(one.numel() for one in small.parameters()) < sum(one.numel() for one in model.parameters())
    images = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(small(images), model.eval()(images), rtol=1e-4, atol=1e-5)


def test_a_layer_that_is_replaced_on_the_way_is_said_at_once():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 2))
    optimizer = adamw(model)
    sparsifier = Sparsifier(model, optimizer, example=torch.randn(1, 3, 8, 8), steps=10, target=0.2)
    model[2] = nn.Conv2d(8, 8, 3)
    model(torch.randn(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    with pytest.raises(ConfigError, match=r"'2\.weight' is no longer a weight of the model"):
        sparsifier.step()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"grouping": 3}, "unknown grouping '3'"),
        ({"prox_metric": 3}, "unknown prox_metric '3'"),
        ({"removable": 5}, "`removable` takes names of layers"),
        ({"removable": "9"}, r"`removable` names \['9'\]"),
        ({"target": None, "rule": lambda: 3}, "`rule` must take the groups"),
    ],
)
def test_arguments_of_wrong_types_are_one_line(given, words):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 2))
    with pytest.raises(MsAutomlError, match=words) as caught:
        Sparsifier(model, adamw(model), **{"example": torch.randn(1, 3, 8, 8), "steps": 10, "target": 0.2} | given)
    assert "\n" not in str(caught.value)
