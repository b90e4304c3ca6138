import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ms_automl.errors import ConfigError, DataError
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
from tests.conformance.pretended import pretended

TASKS = [
    segmentation("segmentation", 4),
    depth(),
    normals(full=True),
    edges(),
    classification("count", 5),
    binary("indoor"),
    ordinal("grade", 4),
    multilabel("findings", 3),
    regression("pose", 2),
    regression("age", loss="squared"),
    keypoints("joints", 2),
    heatmaps("corners", 2),
]
each_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


def sample(task: Task, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    prediction = torch.randn(task.head.shape(count, 3, 4), generator=rng)
    shape = task.target_shape(count, 3, 4)
    if task.classes is not None:
        target = torch.randint(task.classes, shape, generator=rng)
    elif task.kind == "binary":
        target = torch.randint(2, shape, generator=rng).float()
    else:
        target = torch.randn(shape, generator=rng).abs() + 0.1
    return prediction, target, torch.rand(task.valid_shape(count, 3, 4), generator=rng) < 0.7


def measure(task: Task, metric: str, *labels: torch.Tensor) -> float:
    return task.metrics[metric].value(task.metrics[metric].statistic(*labels))


def spoil(task: Task, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    bad = math.nan if task.classes is None else 255
    if target.ndim > valid.ndim:
        valid = valid[:, None]
    return target.masked_fill(~valid, bad)


@each_task
@pytest.mark.filterwarnings("ignore:.*does not have a deterministic implementation")
def test_loss_and_metrics_on_another_device_are_those_of_the_cpu(task: Task) -> None:
    labels = sample(task, 5, seed=0)
    with pretended() as device:
        there = [tensor.to(device) for tensor in labels]
        assert task.loss(*there).item() == pytest.approx(task.loss(*labels).item(), rel=1e-5)
        for name in task.metrics:
            assert measure(task, name, *there) == pytest.approx(measure(task, name, *labels), rel=1e-5)


@each_task
def test_what_invalid_labels_hold_changes_neither_loss_nor_gradient_nor_metric(task: Task) -> None:
    prediction, target, valid = sample(task, 5, seed=0)
    results = []
    for labels in (target, spoil(task, target, valid)):
        leaf = prediction.clone().requires_grad_()
        loss = task.loss(leaf, labels, valid)
        (gradient,) = torch.autograd.grad(loss, leaf)
        results.append(
            (loss.item(), gradient, [measure(task, m, prediction, labels, valid) for m in task.metrics])
        )
    assert math.isfinite(results[0][0])
    assert results[0][0] == results[1][0]
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=0)
    assert results[0][1].abs().sum() > 0
    assert results[0][2] == results[1][2]


@each_task
def test_a_batch_without_valid_labels_has_no_loss_no_gradient_and_no_metric(task: Task) -> None:
    prediction, target, valid = sample(task, 2, seed=1)
    nothing = torch.zeros_like(valid)
    leaf = prediction.requires_grad_()
    loss = task.loss(leaf, spoil(task, target, nothing), nothing)
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert loss.item() == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))
    assert all(math.isnan(measure(task, metric, prediction, target, nothing)) for metric in task.metrics)


@each_task
def test_the_loss_is_the_mean_of_the_losses_of_the_valid_labels_alone(task: Task) -> None:
    prediction, target, valid = sample(task, 4, seed=2)
    single = []
    for place in valid.nonzero():
        only = torch.zeros_like(valid)
        only[tuple(place)] = True
        single.append(task.loss(prediction, target, only))
    torch.testing.assert_close(task.loss(prediction, target, valid), torch.stack(single).mean())


@each_task
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 7), data=st.data())
def test_metrics_of_a_split_do_not_depend_on_how_it_is_cut_into_batches(
    task: Task, seed: int, count: int, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, count - 1))
    labels = sample(task, count, seed)
    for metric in task.metrics.values():
        parts = metric.statistic(*(x[:cut] for x in labels)) + metric.statistic(*(x[cut:] for x in labels))
        torch.testing.assert_close(parts, metric.statistic(*labels))
        assert parts.dtype == torch.float64


def test_segmentation_scores_agree_with_a_count_by_hand() -> None:
    task = segmentation("segmentation", 3)
    target = torch.tensor([[[0, 0, 1, 1, 1]]])
    guess = torch.tensor([[[0, 1, 1, 1, 0]]])
    valid = torch.tensor([[[True, True, True, True, False]]])
    prediction = torch.nn.functional.one_hot(guess, 3).movedim(-1, 1).float()
    # class 0: 1 hit of a union of 2; class 1: 2 of 3; class 2 does not occur and does not count.
    assert measure(task, "miou", prediction, target, valid) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert measure(task, "pixel_accuracy", prediction, target, valid) == pytest.approx(3 / 4)
    expected = (3 * math.log(1 + 2 / math.e) + math.log(math.e + 2)) / 4
    assert task.loss(prediction, target, valid).item() == pytest.approx(expected, rel=1e-6)


def test_depth_errors_agree_with_numbers_worked_by_hand() -> None:
    task = depth()
    target = torch.tensor([2.0, 4.0, 1.0]).reshape(1, 1, 1, 3)
    prediction = torch.tensor([3.0, 3.0, 9.0]).reshape(1, 1, 1, 3)
    valid = torch.tensor([[[True, True, False]]])
    assert task.loss(prediction, target, valid).item() == pytest.approx(1.0)
    assert measure(task, "abs_error", prediction, target, valid) == pytest.approx(1.0)
    assert measure(task, "rel_error", prediction, target, valid) == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_normals_are_compared_by_angle_whatever_the_length_of_the_prediction() -> None:
    task = normals()
    degrees = torch.tensor([0.0, 10.0, 60.0, 180.0])
    angle = torch.deg2rad(degrees)
    prediction = 7 * torch.stack([torch.sin(angle), torch.zeros(4), torch.cos(angle)]).reshape(1, 3, 1, 4)
    target = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1).expand(1, 3, 1, 4)
    valid = torch.ones(1, 1, 4, dtype=torch.bool)
    assert measure(task, "mean_angle", prediction, target, valid) == pytest.approx(62.5, abs=0.05)
    assert measure(task, "within_11", prediction, target, valid) == 0.5
    expected = 1 - (1 + math.cos(math.radians(10)) + 0.5 - 1) / 4
    assert task.loss(prediction, target, valid).item() == pytest.approx(expected, abs=1e-6)


def test_binary_scores_agree_with_numbers_worked_by_hand() -> None:
    prediction = torch.tensor([2.0, -1.0, 3.0, 1.0, -2.0])
    target = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0])
    valid = torch.tensor([True, True, True, True, False])
    # Two found rightly, one wrongly, one missed: F1 = 2 * 2 / (3 + 3); two of four right.
    task = binary("indoor")
    assert measure(task, "f1", prediction[:, None], target, valid) == pytest.approx(2 / 3)
    assert measure(task, "accuracy", prediction[:, None], target, valid) == pytest.approx(2 / 4)
    losses = [math.log1p(math.exp(x)) for x in (-2.0, 1.0, 3.0, -1.0)]
    assert task.loss(prediction[:, None], target, valid).item() == pytest.approx(sum(losses) / 4, rel=1e-6)
    row = (1, 1, 1, 5)
    pixels = (prediction.reshape(row), target.reshape(row), valid.reshape(1, 1, 5))
    assert measure(edges(), "f1", *pixels) == pytest.approx(2 / 3)
    # Below -1 in logits all four are found, three of them rightly, of the three there are: 2 * 3 / (4 + 3).
    assert measure(edges(), "ods_f1", *pixels) == pytest.approx(6 / 7)
    assert edges().loss(*pixels).item() == pytest.approx(sum(losses) / 4, rel=1e-6)


def test_classification_accuracy_counts_the_right_images() -> None:
    prediction = torch.eye(3)
    target, valid = torch.tensor([0, 2, 2]), torch.ones(3, dtype=torch.bool)
    assert measure(classification("count", 3), "accuracy", prediction, target, valid) == pytest.approx(2 / 3)


def test_levels_agree_with_numbers_worked_by_hand() -> None:
    task = ordinal("grade", 3)
    prediction = torch.tensor([[2.0, -1.0], [-1.0, -3.0], [1.0, 2.0]])  # levels 1, 0 and 2
    target, valid = torch.tensor([2, 0, 0]), torch.tensor([True, True, False])
    assert measure(task, "abs_error", prediction, target, valid) == pytest.approx(1 / 2)
    assert measure(task, "accuracy", prediction, target, valid) == pytest.approx(1 / 2)
    losses = [math.log1p(math.exp(x)) for x in (-2.0, 1.0, -1.0, -3.0)]
    assert task.loss(prediction, target, valid).item() == pytest.approx(sum(losses) / 4, rel=1e-6)


def test_several_answers_agree_with_numbers_worked_by_hand() -> None:
    task = multilabel("findings", 3)
    prediction = torch.tensor([[1.0, 1.0, -1.0], [1.0, -1.0, 1.0]])
    target = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    valid = torch.tensor([[True, True, True], [True, True, False]])
    # The first is found twice; the second is found where it is not and missed where it is; the third never is.
    assert measure(task, "accuracy", prediction, target, valid) == pytest.approx(3 / 5)
    assert measure(task, "f1", prediction, target, valid) == pytest.approx(2 * 2 / 6)
    assert measure(task, "macro_f1", prediction, target, valid) == pytest.approx((1 + 0) / 2)
    losses = [math.log1p(math.exp(x)) for x in (-1.0, 1.0, -1.0, -1.0, 1.0)]
    assert task.loss(prediction, target, valid).item() == pytest.approx(sum(losses) / 5, rel=1e-6)


def test_numbers_and_points_agree_with_what_is_worked_by_hand() -> None:
    target = torch.tensor([[0.0, 0.0, 5.0, 5.0], [1.0, 1.0, 1.0, 1.0]])
    prediction = torch.tensor([[3.0, 4.0, 9.0, 5.0], [1.0, 2.0, 1.0, 1.0]])
    valid = torch.tensor([[True, True, True, False], [True, True, True, True]])  # a point lacks its y
    for task, mean in ((keypoints("joints", 2), (5 + 1 + 0) / 3),):
        assert measure(task, "distance", prediction, target, valid) == pytest.approx(mean)
        assert task.loss(prediction, target, valid).item() == pytest.approx((3 + 4 + 4 + 1) / 7)
    task = regression("pose", 4, loss="squared", unit="m")
    assert measure(task, "abs_error", prediction, target, valid) == pytest.approx(12 / 7)
    assert measure(task, "rmse", prediction, target, valid) == pytest.approx(math.sqrt((9 + 16 + 16 + 1) / 7))
    assert task.loss(prediction, target, valid).item() == pytest.approx((9 + 16 + 16 + 1) / 7)


def test_peaks_are_as_far_apart_as_their_pixels() -> None:
    target, prediction = torch.zeros(1, 2, 5, 6), torch.zeros(1, 2, 5, 6)
    target[0, 0, 1, 1], prediction[0, 0, 4, 5] = 1, 2
    target[0, 1, 0, 0], prediction[0, 1, 3, 3] = 1, 1
    valid = torch.ones(1, 2, 5, 6, dtype=torch.bool)
    valid[0, 1] = False
    assert measure(heatmaps("corners", 2), "peak_distance", prediction, target, valid) == pytest.approx(5.0)
    assert heatmaps("corners", 2).loss(prediction, target, valid).item() == pytest.approx((1 + 4) / 30)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ordinal("grade", 1), "`levels >= 2` must hold, but got levels=1"),
        (lambda: keypoints("joints", 0), "`points >= 1` must hold, but got points=0"),
        (lambda: multilabel("findings", 0), "`channels >= 1` must hold"),
        (lambda: classification("kind", True), "`channels >= 1` must hold, but got channels=True"),
        (lambda: regression("age", weight="1"), "`0 < weight < inf` must hold"),  # type: ignore[arg-type]
        (lambda: regression("age", loss="l1"), "unknown loss 'l1'"),  # type: ignore[arg-type]
    ],
)
def test_a_task_of_nothing_is_refused(make, said) -> None:
    with pytest.raises((DataError, ConfigError), match=re.escape(said)):
        make()


def test_numbers_of_numpy_are_numbers() -> None:
    assert classification("kind", np.int64(10)).head == HeadSpec(10, dense=False)  # type: ignore[arg-type]
    assert ordinal("grade", np.int32(4)).classes == 4  # type: ignore[arg-type]


def test_a_task_with_an_unusable_name_or_weight_is_refused() -> None:
    with pytest.raises(DataError, match="letters, digits and underscores"):
        depth("my depth")
    with pytest.raises(DataError, match=r"`0 < weight < inf` must hold, but got weight=0"):
        depth(weight=0)


def head_and_metric() -> dict[str, object]:
    metric = Metric(lambda p, t, v: torch.ones(2).double(), lambda total: 1.0, "max", "1")
    return {"name": "x", "head": HeadSpec(1, True), "loss": lambda *_: torch.zeros(()), "metrics": {"m": metric}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "binry"}, "kind is one of classes, ordinal, values, binary, but got 'binry'"),
        ({"domain": "above 0"}, "domain is one of any, positive, unit, but got 'above 0'"),
        ({"kind": "ordinal"}, "ordinal classes are of an image, so its head is not dense"),
        ({"kind": "classes", "per_channel": True}, "classes count as one label, so per_channel must be False"),
        ({"domain": "unit", "per_channel": True}, "unit vectors count as one label, so per_channel must be False"),
        ({"weight": float("inf")}, "`0 < weight < inf` must hold, but got weight=inf"),
        ({"weight": float("nan")}, "`0 < weight < inf` must hold, but got weight=nan"),
        ({"metrics": ["m"]}, "its metrics must be a mapping from names to Metric"),
        ({"metrics": {"m": min}}, "its metrics must be a mapping from names to Metric"),
        ({"head": 3}, "its head must be a HeadSpec, and its loss a function"),
        ({"loss": 0.5}, "its head must be a HeadSpec, and its loss a function"),
        ({"name": "p" * 240}, "the name 'pppppppppppppppppppp...' has 240 letters, at most 100 are kept"),
        ({"name": 7}, "letters, digits and underscores"),
    ],
)
def test_a_task_whose_parts_are_none_is_refused(change, said) -> None:
    with pytest.raises(DataError, match=re.escape(said)):
        Task(**head_and_metric() | change)


@pytest.mark.parametrize("direction", ["maximize", "MAX", "higher", None, 1])
def test_a_direction_is_one_of_two_words(direction) -> None:
    with pytest.raises(DataError, match="a metric's direction is 'max' or 'min', but got "):
        Metric(lambda p, t, v: torch.ones(2), lambda total: 1.0, direction, "1")


@pytest.mark.parametrize("channels", [0, -1, 2.0])
def test_a_head_has_a_whole_number_of_channels(channels) -> None:
    with pytest.raises(DataError, match="`channels >= 1` must hold"):
        HeadSpec(channels, False)


def test_a_task_without_a_metric_is_refused():
    with pytest.raises(DataError, match="no metric"):
        Task("x", HeadSpec(1, True), lambda *_: torch.zeros(()), {})


def test_ods_f1_is_the_best_over_thresholds_that_the_whole_split_shares() -> None:
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(6, 1, 5, 4, generator=generator), torch.rand(6, 1, 5, 4, generator=generator)
    target, valid = (target < 0.3).float(), torch.rand(6, 5, 4, generator=generator) < 0.8
    probability, wanted = prediction[:, 0].sigmoid()[valid], target[:, 0][valid] > 0.5
    scores = []
    for threshold in torch.arange(1, 100) / 100:
        found = probability >= threshold
        scores.append(float(2 * (found & wanted).sum() / (found.sum() + wanted.sum())))
    assert measure(edges(), "ods_f1", prediction, target, valid) == pytest.approx(max(scores))
    low = measure(edges(), "ods_f1", prediction - 3, target, valid)
    assert low > 2 * measure(edges(), "f1", prediction - 3, target, valid)  # calibrated low, as good as ever
    assert math.isnan(measure(edges(), "ods_f1", prediction, target, torch.zeros_like(valid)))


def test_the_five_scores_of_normals_agree_with_numpy_over_a_split() -> None:
    task = normals(full=True)
    generator = torch.Generator().manual_seed(0)
    truth = torch.nn.functional.normalize(torch.randn(6, 3, 9, 7, generator=generator), dim=1)
    guess = truth + 0.3 * torch.randn(6, 3, 9, 7, generator=generator)
    valid = torch.rand(6, 9, 7, generator=generator) < 0.7
    cosine = (guess * truth).sum(1) / guess.norm(dim=1)
    angles = np.degrees(np.arccos(cosine[valid].double().numpy().clip(-1, 1)))
    expected = {"mean_angle": angles.mean(), "median_angle": np.median(angles)}
    expected |= {f"within_{int(d)}": (angles < d).mean() for d in (11.25, 22.5, 30.0)}
    for name, metric in task.metrics.items():
        parts = [metric.statistic(guess[i : i + 2], truth[i : i + 2], valid[i : i + 2]) for i in (0, 2, 4)]
        tolerance = 0.06 if name == "median_angle" else 1e-3
        assert metric.value(torch.stack(parts).sum(0)) == pytest.approx(expected[name], abs=tolerance)
    nothing = task.metrics["median_angle"].statistic(guess, truth, torch.zeros_like(valid))
    assert math.isnan(task.metrics["median_angle"].value(nothing))
