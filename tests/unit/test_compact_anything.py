"""Whatever stands in the middle of a trunk, its compact form computes the same."""

import copy

import pytest
import torch
from torch import nn

from ms_automl.models.surgery import Surgery, operate
from ms_automl.sparsity.compact import compact, randomised
from ms_automl.sparsity.equality import check_equal, probes
from tests.networks import NORMALISED, SERVED, SHAPE, STAY, WIDTH, halved, network

ALL = SERVED | NORMALISED | STAY


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", list(ALL))
@pytest.mark.parametrize("axis", [0, 1])
def test_outputs_stay_on_images_of_any_scale(name, axis):
    for seed in (0, 1):
        sparse = halved(randomised(network(ALL[name]()), seed, zeros=False), axis, seed)
        small, surgery = compact(sparse, SHAPE)
        check_equal(
            copy.deepcopy(sparse).double(), copy.deepcopy(small).double(), [7 * p.double() for p in probes(SHAPE)]
        )
        again = copy.deepcopy(sparse)
        operate(again, Surgery.from_dict(surgery.to_dict()))
        again.load_state_dict(small.state_dict())


@pytest.mark.parametrize("name", list(SERVED))
def test_channels_that_nobody_can_feel_go(name):
    sparse = network(SERVED[name]())
    with torch.no_grad():
        for module in sparse.trunk.modules():
            if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
                module.weight.fill_(0.1)
                weight = module.weight.transpose(0, 1) if getattr(module, "transposed", False) else module.weight
                if weight.shape[1] == WIDTH:
                    weight[:, 1:] = 0
        sparse.trunk.b.weight[:, 1 + (name == "channels of zeros") :] = 0  # there the first is one of zeros
    small, _ = compact(sparse, SHAPE)
    assert small.trunk.a.weight.shape[0] < WIDTH


@pytest.mark.parametrize("name", list(NORMALISED))
def test_channels_that_are_zero_go_and_are_counted_on(name):
    sparse = network(NORMALISED[name]())
    gone = torch.arange(WIDTH) % 2 == 1
    with torch.no_grad():
        for module in sparse.trunk.modules():
            for key, value in module.named_parameters(recurse=False):
                if module is not sparse.trunk.b and len(value) == WIDTH:
                    value[gone] = 0
                if key == "weight" and value.ndim > 1 and value.shape[1] == WIDTH:
                    value[:, gone] = 0
    small, _ = compact(sparse, SHAPE)
    assert small.trunk.a.weight.shape[0] == WIDTH // 2


@pytest.mark.parametrize("name", list(NORMALISED))
def test_channels_of_a_mean_stay_unless_they_are_zero(name):
    sparse = network(NORMALISED[name]())
    with torch.no_grad():
        for module in sparse.trunk.modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and module is not sparse.trunk.a:
                module.weight[:, 1:] = 0
    small, _ = compact(sparse, SHAPE)
    assert small.trunk.a.weight.shape[0] == WIDTH


@pytest.mark.parametrize("name", list(STAY))
def test_channels_that_cannot_be_followed_stay(name):
    sparse = network(STAY[name]())
    with torch.no_grad():
        sparse.trunk.b.weight[:, 1:] = 0
    small, _ = compact(sparse, SHAPE)
    assert small.trunk.a.weight.shape[0] == WIDTH
