"""A comparison with a network of one's own, of the kinds that are not a plain chain of convolutions."""

import pytest
import torch

import ms_automl
from tests.integration.command import ONNX, TINY, finished

pytestmark = [
    pytest.mark.integration,
    pytest.mark.whole,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]

OWN = """
import torch
from torch import nn
from ms_automl.models import MultiTaskNet


class Pyramid(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 3, padding=1).requires_grad_(False)  # pretrained, say
        self.low, self.high = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, 2, 1)
        self.mixer = nn.Parameter(torch.randn(width, 40 * width) / 3)  # no layer of torch's: λ leaves them alone
        self.back = nn.Parameter(torch.randn(40 * width, width) / 18)

    def forward(self, images):
        x = torch.relu(self.patches(images))
        x = x + (torch.relu(x.mean((2, 3)) @ self.mixer) @ self.back)[:, :, None, None]
        low = torch.relu(self.low(x))
        return {"low": low, "others": [torch.relu(self.high(low))]}


class Head(nn.Module):
    def __init__(self, width, spec):
        super().__init__()
        self.dense, self.up = spec.dense, nn.Upsample(scale_factor=2)
        self.last = nn.Conv2d(2 * width, spec.channels, 1)

    def forward(self, features):
        maps = self.last(torch.cat([features["low"], self.up(features["others"][0])], 1))
        return maps if self.dense else maps.mean((2, 3))


def network(image_shape, heads, kind):
    torch.manual_seed(0)
    return MultiTaskNet(Pyramid(kind), {name: Head(kind, spec) for name, spec in heads.items()})
"""


def test_a_half_frozen_trunk_of_several_outputs_ends_with_a_table_and_says_what_lambda_acts_on(
    tmp_path, monkeypatch
):
    (tmp_path / "own.py").write_text(OWN)
    ours = ["network.factory=own:network", "network.args={kind: 8}", "lambda.low=100", "lambda.high=1000"]
    search = finished(tmp_path, "--arms", "meta", settings=[*TINY, ONNX, *ours, "budget.trials=2"])
    assert search.status == 0, search.shown + search.errors
    shown = " ".join(search.shown.split())
    assert "λ can act on 17.7 % of the trunk's parameters, and no more of them can go to zero" in shown
    assert "left out: 'patches' (it is frozen (requires_grad=False))" in shown
    assert "not compacted" not in shown
    assert "as ONNX" not in shown
    monkeypatch.syspath_prepend(tmp_path)
    network = ms_automl.load(search.out / "best" / "meta-0")
    import own

    fresh = own.network((3, 32, 32), {}, 8)
    assert torch.equal(network.trunk.patches.weight, fresh.trunk.patches.weight)
    assert search.rows["meta"]["sparsity_param"] > 0
    zeros = sum(int((conv.weight == 0).sum()) for conv in network.penalised().values())
    row = search.rows["meta"]
    assert zeros == round(row["sparsity_param"] * sum(c.weight.numel() for c in network.penalised().values()))
    whole = sum(parameter.numel() for parameter in network.trunk.parameters())
    assert zeros == round((1 - row["density"]) * whole)
    assert f"of the trunk's {whole:,} weights" in shown
    wanted = ["objective.kind=target", "objective.target=0.6"]
    refused = finished(tmp_path, "--out", "refused", "--arms", "meta", settings=[*TINY, *ours, *wanted])
    assert refused.status == 2
    assert "`target <= 0.154`" in refused.errors and "got target=0.6: λ can act on 17.7 %" in refused.errors
