"""The unit of a loss is nobody's business: its weight in training undone, everything comes out the same."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ms_automl.data import MultiTaskData, TensorSplit
from ms_automl.meta import Objective, Reference
from ms_automl.models import MultiTaskNet
from ms_automl.tasks import Task, classification, depth
from ms_automl.training import TrainingSettings
from trainables import Dense, MetaSparsity

SETTINGS = TrainingSettings(steps=80, batch_size=8, lr=1e-2, report_every=20, eval_batch_size=8)


def in_unit(task: Task, factor: float, shift: float = 0.0) -> Task:
    """A task whose loss is ``factor`` times as large, and trains as before."""

    def loss(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        return factor * task.loss(prediction, target, valid) + shift

    return replace(task, loss=loss, weight=task.weight / factor)


@pytest.fixture(scope="module")
def levels() -> MultiTaskData:
    """Images of one level each, which both tasks are about: what dense learns in a second."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> TensorSplit:
        level = torch.rand(count, 1, 1, 1, generator=generator)
        images = level + 0.05 * torch.randn(count, 2, 8, 8, generator=generator)
        bounds = torch.tensor([0.33, 0.66])
        targets = {"depth": 2 * level.expand(-1, 1, 8, 8) - 1, "kind": torch.bucketize(level[:, 0, 0, 0], bounds)}
        return TensorSplit(images, targets)

    train, val, test = (split(count) for count in (48, 32, 16))
    return MultiTaskData("levels", train, val, test, (depth("depth"), classification("kind", 3)))


def learned_from(
    data: MultiTaskData, network: MultiTaskNet, dense: MultiTaskNet, scale: str
) -> tuple[float, float, list[bool]]:
    """J of dense and of a network with a learned λ, and which of its groups are zero."""
    objective, names = Objective(scale=scale), [task.name for task in data.tasks]  # type: ignore[arg-type]
    trained, course = Dense(data, dense, SETTINGS, 0, probe=True), []
    while not trained.done:
        base = trained.step()
        course.append((int(base["step"]), {name: base[f"probe/{name}/loss"] for name in names}))
    reference = Reference.of(base, names, "val", course, objective.scale)
    assert not reference.unlearned, "a scale of what nobody has learned is none"
    method = MetaSparsity(
        data, network, SETTINGS, 0, objective=objective, reference=reference, bounds=(0.1, 1000.0)
    )
    while not method.done:
        last = method.step()

    def value(metrics: dict[str, float]) -> float:
        return objective.value(
            {name: metrics[f"val/{name}/loss"] for name in names}, reference, metrics["density"]
        )

    return value(base), value(last), (method.loop.sparsifier.groups.norms() > 0).tolist()


@pytest.mark.parametrize(
    ("scale", "factor", "shift"), [("ratio", 2.0**-12, 0.0), ("skill", 2.0**-12, 0.0), ("skill", 1.0, -2.375)]
)
def test_the_same_network_is_learned_and_judged_in_any_unit_of_a_loss(
    levels: MultiTaskData, tiny_network: Callable[[], MultiTaskNet], scale: str, factor: float, shift: float
) -> None:
    distance, kind = levels.tasks
    other = replace(levels, tasks=(in_unit(distance, factor, shift), kind))
    plain = learned_from(levels, tiny_network(), tiny_network(), scale)
    moved = learned_from(other, tiny_network(), tiny_network(), scale)
    assert moved[0] == pytest.approx(plain[0], rel=1e-4) == pytest.approx(2.0)
    assert moved[1] == pytest.approx(plain[1], rel=1e-3)
    assert moved[2] == plain[2]
    assert not all(plain[2])
