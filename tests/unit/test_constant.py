import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ms_automl.data import MultiTaskData, TensorSplit
from ms_automl.tasks import (
    HeadSpec,
    Metric,
    Task,
    binary,
    classification,
    depth,
    edges,
    heatmaps,
    keypoints,
    multilabel,
    normals,
    ordinal,
    regression,
    segmentation,
)
from ms_automl.training.constant import best_constant, constant_losses, extremes

COUNT = 40


def data_of(task: Task, target: Tensor, valid: Tensor | None = None) -> MultiTaskData:
    split = TensorSplit(
        torch.zeros(len(target), 1, 6, 6), {task.name: target}, None if valid is None else {task.name: valid}
    )
    return MultiTaskData("made", split, split, split, [task])


def own(loss: Callable[[Tensor, Tensor, Tensor], Tensor], channels: int = 1) -> Task:
    metric = Metric(lambda prediction, target, valid: valid.sum().double(), float, "min", "labels")
    return Task("own", HeadSpec(channels, dense=False), loss, {"count": metric})


def likelihood(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Gaussian, of the first channel of the target; the prediction is its mean and log standard deviation."""
    mean, spread = prediction[:, 0], prediction[:, 1]
    each = 0.5 * ((target[:, 0] - mean) / spread.exp()).square() + spread
    return torch.where(valid, each, 0.0).sum() / valid.sum().clamp(min=1)


def test_classes_have_their_entropy() -> None:
    target = torch.arange(COUNT) % 4
    target[target == 3] = 0  # shares 1/2, 1/4, 1/4
    found = constant_losses(data_of(classification("kind", 3), target), 16)
    assert list(found) == ["val/kind/constant", "test/kind/constant"]
    assert list(found.values()) == [pytest.approx(1.5 * math.log(2))] * 2


def test_a_class_that_no_label_has_costs_less_than_half_a_label_of_it() -> None:
    target = torch.arange(COUNT) % 4
    target[target == 3] = 0
    found = constant_losses(data_of(classification("kind", 4), target), 16)["val/kind/constant"]
    entropy = 1.5 * math.log(2)
    assert entropy - 1e-6 < found < entropy + math.log((COUNT + 0.5) / COUNT)


def test_yes_and_no_have_the_entropy_of_their_share() -> None:
    target = (torch.arange(COUNT) % 4 == 0).float()
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert constant_losses(data_of(binary("large"), target), 16)["val/large/constant"] == pytest.approx(entropy)
    dense = target.reshape(-1, 1, 1, 1).expand(-1, 1, 6, 6).clone()
    assert constant_losses(data_of(edges(), dense), 16)["val/edges/constant"] == pytest.approx(entropy)


def test_levels_have_the_mean_entropy_of_their_thresholds() -> None:
    target = torch.arange(COUNT) % 4  # above 0 are 3/4, above 1 are 1/2, above 2 are 1/4
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    found = constant_losses(data_of(ordinal("grade", 4), target), 16)["val/grade/constant"]
    assert found == pytest.approx((2 * quarter + math.log(2)) / 3)


def test_several_answers_and_numbers_have_a_constant_each_of_the_labels_that_count() -> None:
    columns = torch.stack([torch.arange(COUNT) % 2, torch.arange(COUNT) % 4 == 0], 1).float()
    valid = torch.ones(COUNT, 2, dtype=torch.bool)
    valid[::2, 1] = False  # of the second the odd ones are known, and all of them are no
    found = constant_losses(data_of(multilabel("some", 2), columns, valid), 16)["val/some/constant"]
    assert found == pytest.approx(math.log(2) * COUNT / (1.5 * COUNT), abs=1e-4)
    task = regression("some", 2, loss="squared")
    found = constant_losses(data_of(task, columns, valid), 16)["val/some/constant"]
    assert found == pytest.approx(0.25 * COUNT / (1.5 * COUNT), abs=1e-6)


def test_absolute_errors_have_the_deviation_from_the_median() -> None:
    target = torch.arange(COUNT).float().reshape(-1, 1, 1, 1).expand(-1, 1, 6, 6).clone()
    target[-1] = 1000.0
    middle = target[:, 0, 0, 0].median()
    expected = float((target - middle).abs().mean())
    assert constant_losses(data_of(depth(), target), 16)["val/depth/constant"] == pytest.approx(expected)


def test_directions_have_the_deviation_from_their_mean_direction() -> None:
    target = F.normalize(torch.randn(COUNT, 3, 6, 6) + torch.tensor([0.0, 0.0, 2.0]).view(1, 3, 1, 1))
    mean = F.normalize(target.mean((0, 2, 3)), dim=0)
    expected = float(1 - (target * mean.view(1, 3, 1, 1)).sum(1).mean())
    found = constant_losses(data_of(normals(), target), 16)["val/normals/constant"]
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_loss_of_the_users_own_is_minimised_whatever_its_prediction_means() -> None:
    values = torch.linspace(-3, 5, COUNT)
    target = torch.stack([values, torch.zeros(COUNT)], 1)
    found = constant_losses(data_of(own(likelihood, 2), target), 16)["val/own/constant"]
    assert found == pytest.approx(0.5 + math.log(float(values.std(correction=0))), abs=1e-4)


def test_labels_that_do_not_count_have_no_part() -> None:
    target = torch.arange(COUNT) % 3
    valid = target != 2
    target[~valid] = 255
    found = constant_losses(data_of(classification("kind", 4), target, valid), 16)["val/kind/constant"]
    assert found == pytest.approx(math.log(2), abs=0.03)  # classes without a label keep half a count


def test_it_is_fitted_to_the_training_split_and_measured_on_the_others() -> None:
    task = classification("kind", 2)
    train = TensorSplit(torch.zeros(40, 1, 6, 6), {"kind": torch.arange(40) % 2})
    other = TensorSplit(torch.zeros(40, 1, 6, 6), {"kind": torch.zeros(40, dtype=torch.int64)})
    found = constant_losses(MultiTaskData("made", train, other, train, [task]), 16)
    assert found == {
        "val/kind/constant": pytest.approx(math.log(2)),
        "test/kind/constant": pytest.approx(math.log(2)),
    }


def test_a_loss_without_a_closed_form_is_no_worse_than_the_best_of_a_grid() -> None:
    def lopsided(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        off = target - prediction
        return torch.where(off > 0, 5 * off, -off).square().mean()

    task, target = own(lopsided), torch.randn(COUNT, 1)
    batch = data_of(task, target).train.batch(torch.arange(COUNT))
    found = lopsided(best_constant(task, [batch]).expand(COUNT, 1), target, batch.valid["own"])
    grid = min(
        lopsided(torch.full((COUNT, 1), float(v)), target, batch.valid["own"]) for v in torch.linspace(-3, 5, 500)
    )
    assert float(found) <= float(grid) + 1e-5


DRAWN = torch.Generator().manual_seed(0)  # what is drawn here must not depend on what is collected before


@pytest.mark.parametrize(
    ("task", "target", "zero"),
    [
        (segmentation("seg", 3), torch.randint(0, 3, (COUNT, 6, 6), generator=DRAWN), True),
        (depth(), torch.rand(COUNT, 1, 6, 6, generator=DRAWN), True),
        (depth(), 1e-5 * torch.rand(COUNT, 1, 6, 6, generator=DRAWN), True),
        (edges(), torch.randint(0, 2, (COUNT, 1, 6, 6), generator=DRAWN).float(), True),
        (ordinal("grade", 4), torch.randint(0, 4, (COUNT,), generator=DRAWN), True),
        (multilabel("some", 3), torch.randint(0, 2, (COUNT, 3), generator=DRAWN).float(), True),
        (regression("pose", 3), torch.randn(COUNT, 3, generator=DRAWN), True),
        (keypoints("joints", 2), torch.randn(COUNT, 4, generator=DRAWN), True),
        (heatmaps("corners", 2), torch.rand(COUNT, 2, 6, 6, generator=DRAWN), True),
        (own(likelihood, 2), torch.randn(COUNT, 2, generator=DRAWN), False),
        (own(lambda p, t, v: (p - t).square().mean() - 2.38), torch.randn(COUNT, 1, generator=DRAWN), False),
        (own(lambda p, t, v: (p - t).square().mean() + 5.0), torch.randn(COUNT, 1, generator=DRAWN), False),
        (own(lambda p, t, v: -F.cosine_similarity(p, t).mean(), 2), torch.randn(COUNT, 2, generator=DRAWN), False),
    ],
)  # fmt: skip
def test_a_ratio_is_for_losses_that_are_zero_at_their_best(task: Task, target: Tensor, zero: bool) -> None:
    assert extremes(data_of(task, target))[task.name].has_zero is zero


def test_smoothed_labels_leave_no_zero() -> None:
    def smoothed(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        return F.cross_entropy(prediction, target, label_smoothing=0.1)

    task = Task("kind", HeadSpec(4, dense=False), smoothed, own(smoothed).metrics, kind="classes")
    assert not extremes(data_of(task, torch.arange(COUNT) % 4))["kind"].has_zero
