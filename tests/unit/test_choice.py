"""Which kind of groups a model gets when nobody says."""

import pytest
import torch
from torch import nn

from ms_automl.errors import NetworkError
from ms_automl.models import MultiTaskNet
from ms_automl.sparsifier import Sparsifier
from ms_automl.sparsity.choice import choose
from tests.unit.loops import adamw, classifier, example
from tests.zoo.blocks import BLOCKS
from tests.zoo.torchvisions import resnet

SHAPE = (3, 64, 64)


def of(model: nn.Module) -> MultiTaskNet:
    return MultiTaskNet(model, {"output": nn.Identity()})


def test_input_channels_where_their_zeros_can_be_taken_out():
    choice = choose(of(resnet()), SHAPE)
    assert choice.grouping == "input_channel"
    assert "% of the weights can go" in choice.why


@pytest.mark.parametrize("kind", ["grouped", "attention in torch", "attention with grouped queries"])
def test_coupled_channels_where_others_would_stay(kind):
    choice = choose(of(BLOCKS[kind]()), SHAPE)
    assert choice.grouping == "coupled"
    assert "with input_channel:" in choice.why


def test_what_one_kind_refuses_the_other_serves_and_the_reason_is_told():
    choice = choose(of(BLOCKS["softplus"]()), SHAPE)
    assert choice.grouping == "input_channel"


class Chance(nn.Module):
    """Never gives the same twice."""

    def forward(self, x):
        return nn.functional.dropout(x, 0.5, training=True)


def test_a_kind_of_which_nothing_can_go_is_not_chosen():
    """All channels of a stream that is normalised as one group go together, and one of each stream stays."""
    norm = lambda: nn.GroupNorm(1, 16)  # noqa: E731
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 3), norm(), nn.ReLU(), nn.Conv2d(16, 16, 3), norm(), nn.ReLU(), nn.Conv2d(16, 16, 1)),
        *(norm(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)),
    )
    choice = choose(of(model), (3, 16, 16))
    assert choice.grouping == "input_channel"
    assert "coupled: 0 % of the weights can go" in choice.why


def test_a_model_that_neither_serves_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), Chance(), nn.Conv2d(8, 8, 3))
    with pytest.raises(NetworkError, match=r"could not be taken out .*name a `grouping`"):
        Sparsifier(model, adamw(model), example=torch.rand(1, *SHAPE), steps=10, target=0.1)


def test_the_choice_leaves_the_model_and_its_randomness_alone():
    model = classifier()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    choose(of(model), tuple(example().shape[1:]))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_sparsifier_tells_what_it_chose_and_takes_what_it_is_told():
    model = classifier()
    free = Sparsifier(model, adamw(model), example=example(), steps=10, target=0.1)
    assert free.summary().attrs == {"grouping": free.grouping, "why": free.choice.why}
    assert free.choice.why
    told = Sparsifier(model, adamw(model), example=example(), steps=10, target=0.1, grouping="output_channel")
    assert told.grouping == "output_channel"
    assert "% of the weights can go" in told.choice.why


def test_a_kind_that_was_asked_for_is_tried_before_anything_trains():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), Chance(), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 4, 1))
    with pytest.warns(UserWarning, match="could not be taken out of this model: compaction changed the output"):
        Sparsifier(
            model, adamw(model), example=torch.rand(1, *SHAPE), steps=10, target=0.1, grouping="input_channel"
        )
