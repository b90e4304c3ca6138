"""What is said of time, memory and arithmetic."""

import time

import pytest
import torch
from torch import Tensor, nn

from ms_automl.models import MultiTaskNet
from ms_automl.models.profile import Spread, latencies, peak_memory, size_of

IMAGES = torch.rand(4, 8, 16, 16)
PLANE = 4 * 16 * 16 * 4
"""Bytes of one channel of the batch."""


class Sleeps(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.calls = seconds, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        time.sleep(self.seconds)
        return images


def test_latencies_are_of_networks_in_turns_and_relative_to_the_first() -> None:
    slow, fast = Sleeps(0.02), Sleeps(0.01)
    found = latencies({"slow": slow, "fast": fast}, IMAGES, rounds=5)
    assert slow.calls == fast.calls == 1 + 2 * 5
    assert found["slow"].ratio == Spread(1, 1, 1)
    assert found["fast"].ms.median == pytest.approx(10, rel=0.5)
    assert 0.3 < found["fast"].ratio.median < 0.9


def test_peak_memory_counts_what_is_alive_at_once() -> None:
    conv, wide = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 24, 1)
    assert peak_memory(conv, IMAGES) == 8 * PLANE
    assert peak_memory(nn.Sequential(conv, nn.ReLU(), conv), IMAGES) == 2 * 8 * PLANE
    assert peak_memory(nn.Sequential(conv, nn.ReLU(inplace=True), nn.Flatten()), IMAGES) == 8 * PLANE
    assert peak_memory(nn.Sequential(conv, wide), IMAGES) == (8 + 24) * PLANE


def test_size_is_parameters_and_multiply_adds_of_an_image() -> None:
    network = MultiTaskNet(nn.Sequential(nn.Conv2d(8, 4, 3, padding=1)), {"head": nn.Conv2d(4, 2, 1)})
    size = size_of(network, (8, 16, 16))
    assert size["parameters"] == 8 * 4 * 9 + 4 + 4 * 2 + 2
    assert size["trunk_macs"] == 8 * 4 * 9 * 256
    assert size["macs"] == size["trunk_macs"] + 4 * 2 * 256
