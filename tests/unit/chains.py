"""Small chains of convolutions, and what becomes of their zeros."""

import pytest
import torch
from torch import Tensor, nn

from ms_automl.data import MultiTaskData, TensorSplit
from ms_automl.models import MultiTaskNet
from ms_automl.sparsity import GROUPINGS, Groups, build_groups, measure
from ms_automl.tasks import depth
from ms_automl.training import TrainingSettings

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
