"""A loss that is negative, beside a task that cannot be learned."""

import pytest

from tests.integration.command import finished

pytestmark = [pytest.mark.integration, pytest.mark.whole]
MINE = """
import torch
from torch import nn
from ms_automl.data import MultiTaskData, TensorSplit
from ms_automl.models import MultiTaskNet
from ms_automl.tasks import HeadSpec, Metric, Task, binary


def likelihood(prediction, target, valid, spread=0.02):
    error = 0.5 * ((prediction - target) / spread).square().mean(1) + torch.tensor(spread).log()
    return torch.where(valid, error, 0.0).sum() / valid.sum().clamp(min=1)


def error_and_count(prediction, target, valid):
    return torch.stack([((prediction - target).abs().mean(1) * valid).sum(), valid.sum()]).double()


brightness = Task(
    "brightness",
    HeadSpec(1, dense=False),
    likelihood,
    {"error": Metric(error_and_count, lambda total: float(total[0] / total[1]), "min", "levels")},
    weight=0.001,
)


def split(count, generator):
    level = torch.rand(count, generator=generator)
    images = level[:, None, None, None] + 0.1 * torch.randn(count, 1, 8, 8, generator=generator)
    coin = torch.randint(0, 2, (count,), generator=generator).float()
    return TensorSplit(images, {"brightness": level[:, None], "coin": coin})


def data(seed, data_dir):
    generator = torch.Generator().manual_seed(seed)
    splits = [split(count, generator) for count in (256, 64, 64)]
    return MultiTaskData("made", *splits, [brightness, binary("coin")])


def network(image_shape, heads):
    trunk = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
    head = lambda spec: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, spec.channels))
    return MultiTaskNet(trunk, {name: head(spec) for name, spec in heads.items()})
"""
OWN = ("data.factory=mine:data", "network.factory=mine:network", "data.args={}", "network.args={}")
LONG = ("training.steps=120", "training.report_every=40", "training.lr=0.02", "resources.onnx=false")


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")
    (folder / "mine.py").write_text(MINE)
    return finished(folder, "--arms", "prune-magnitude,meta", settings=(*OWN, *LONG))


def test_a_negative_loss_is_judged_by_what_dense_has_learned_and_the_command_says_so(ended):
    assert ended.status == 0, ended.shown + ended.errors
    assert "objective.scale=skill: the loss of task 'brightness' is -3.9" in ended.shown
    assert ended.record["config"]["objective"]["scale"] == "skill"
    rows = ended.rows
    assert rows["dense"]["objective"] == pytest.approx(2)
    for arm in ("prune-magnitude", "meta"):  # a share that is lost, and the density
        assert rows[arm]["status"] == "ok"
        assert 0.9 < rows[arm]["objective"] < 2.5


def test_a_task_that_dense_has_not_learned_is_named_above_table_and_report(ended):
    line = (
        "coin: dense is no better than a constant prediction (seed 0), so what sparsity does to this task says "
        "nothing"
    )
    assert ended.record["warnings"] == [line]
    shown = ended.shown.splitlines()
    assert shown.index(line) < next(at for at, text in enumerate(shown) if text.startswith("arm "))
    assert (ended.out / "report" / "summary.md").read_text().startswith(line)
    page = (ended.out / "report" / "index.html").read_text()
    assert page.index(line) < page.index('class="verdict">')


def test_a_ratio_that_would_mean_nothing_is_refused_before_anything_trains(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    asked = finished(tmp_path, "--arms", "meta", settings=(*OWN, *LONG, "objective.scale=ratio"))
    assert asked.status == 2
    assert asked.errors.startswith("error: objective.scale=ratio: the loss of task 'brightness' is -3.9")
    assert asked.errors.endswith("set objective.scale=skill\n")
    assert not (asked.out / "events.jsonl").exists()
