"""The compact model that a sparsifier hands out."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ms_automl.errors import ConfigError
from ms_automl.sparsifier import Sparsifier
from tests.unit.loops import adamw, batches, classifier, example, trained

pytestmark = pytest.mark.filterwarnings("ignore:.* went at once")  # trainings of a few steps


@pytest.mark.parametrize("grouping", ["input_channel", "output_channel", "coupled"])
def test_the_compact_model_is_smaller_of_the_same_class_and_answers_the_same(grouping):
    model = classifier()
    sparsifier = trained(model, grouping=grouping, target=0.6)
    small = sparsifier.compact()
    images, _ = next(batches(1, seed=9))
    with torch.no_grad():
        torch.testing.assert_close(small(images), model.eval()(images), rtol=1e-4, atol=1e-5)
    assert type(small) is type(model)
    assert sum(v.numel() for v in small.parameters()) < sum(v.numel() for v in model.parameters())


def test_compacting_before_the_zeros_are_final_is_said():
    model = classifier()
    sparsifier = Sparsifier(model, adamw(model), example=example(), steps=10, target=0.5)
    with pytest.warns(UserWarning, match="the zeros are not final: 0 of the 8 steps"):
        sparsifier.compact()


def test_single_weights_leave_nothing_to_take_out():
    model = classifier()
    sparsifier = trained(model, grouping="weight")
    with pytest.raises(ConfigError, match="take grouping='input_channel'"):
        sparsifier.compact()


def test_an_average_of_the_weights_is_compacted_to_the_same_channels():
    model = classifier()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    sparsifier = trained(model, target=0.6, after=lambda step, one: average.update_parameters(model))
    small, plain = sparsifier.compact(average), sparsifier.compact()
    assert [value.shape for value in small.parameters()] == [value.shape for value in plain.parameters()]
    images, _ = next(batches(1, seed=9))
    masked = copy.deepcopy(average.module).eval()
    with torch.no_grad():
        for value, own in zip(masked.parameters(), model.parameters(), strict=True):
            value[own == 0] = 0
        torch.testing.assert_close(small(images), masked(images), rtol=1e-4, atol=1e-5)


def test_an_average_of_something_else_is_refused():
    model = classifier()
    sparsifier = trained(model)
    with pytest.raises(
        ConfigError, match="a Classifier with weights of the shapes that were trained, but got a Linear"
    ):
        sparsifier.compact(nn.Linear(3, 3))


def test_zeros_that_other_weights_have_overwritten_are_zeroed_again_and_said():
    model = classifier()
    kept = {}

    def keep(step, sparsifier):
        if step == 5:
            kept.update(copy.deepcopy(model.state_dict()))

    sparsifier = trained(model, target=0.6, after=keep)
    shapes = [value.shape for value in sparsifier.compact().parameters()]
    model.load_state_dict(kept)
    with pytest.warns(UserWarning, match="some of the frozen zeros had come back"):
        small = sparsifier.compact()
    assert [value.shape for value in small.parameters()] == shapes


def test_a_computed_weight_is_no_obstacle_to_compaction():
    model = classifier()
    nn.utils.parametrizations.weight_norm(model.body[0])
    sparsifier = trained(model, target=0.3)
    small = sparsifier.compact()
    images, _ = next(batches(1, seed=9))
    with torch.no_grad():
        torch.testing.assert_close(small(images), model.eval()(images), rtol=1e-4, atol=1e-5)


def test_zeros_that_cannot_be_taken_out_are_said():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

        def forward(self, images):
            features = self.a(images).relu()
            mixed = torch.einsum("bchw,bdhw->bcd", features, features).softmax(-1)
            return self.head((mixed @ self.b(features).flatten(2)).mean(2))

    torch.manual_seed(0)
    sparsifier = trained(Odd(), target=0.3, grouping="output_channel")
    with pytest.warns(UserWarning, match="% of the zero weights stay in the compact model, such as in 'b'"):
        sparsifier.compact()
