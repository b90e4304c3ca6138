"""Taking up an unseen task: what is trained, what stays, and what is seen."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from ms_automl.data import MultiTaskData, TensorSplit, labelled
from ms_automl.errors import ConfigError
from ms_automl.meta.objective import delta_m
from ms_automl.models import MultiTaskNet
from ms_automl.sparsity import build_groups
from ms_automl.training import TrainingSettings, evaluate
from trainables import Transfer

SETTINGS = TrainingSettings(steps=12, batch_size=6, lr=1e-2, report_every=4, eval_batch_size=8)
Network = Callable[..., MultiTaskNet]


@pytest.fixture
def network(tiny_network: Network) -> MultiTaskNet:
    """With zeros, and a head for the unseen task."""
    network = tiny_network(unseen=True)
    groups = build_groups(network, "input_channel", (2, 8, 8))
    dead = (torch.arange(len(groups.size)) % 2 == 0) & ~groups.strongest(groups.norms())
    groups.scale_((~dead).to(groups.size.dtype))
    return network


def take_up(
    data: MultiTaskData, network: MultiTaskNet, mode: str, **more: object
) -> tuple[Transfer, dict[str, float]]:
    method = Transfer(data, network, SETTINGS, 0, task="bright", mode=mode, **more)  # type: ignore[arg-type]
    report: dict[str, float] = {}
    while not method.done:
        report = method.step()
    return method, report


def copied(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, torch.Tensor], module: torch.nn.Module) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def test_a_frozen_trunk_stays_as_it_is_with_its_averages_and_the_head_learns(
    tiny_data: MultiTaskData, network: MultiTaskNet
) -> None:
    trunk, head = copied(network.trunk), copied(network.heads["bright"])
    take_up(tiny_data, network, "frozen")
    assert not changed(trunk, network.trunk)
    assert changed(head, network.heads["bright"])


@pytest.mark.parametrize("mode", ["finetuned", "joint"])
def test_a_trained_trunk_moves_and_keeps_its_zeros(
    mode: str, tiny_data: MultiTaskData, network: MultiTaskNet
) -> None:
    groups = build_groups(network, "input_channel", (2, 8, 8))
    zero, trunk = groups.norms() == 0, copied(network.trunk)
    take_up(tiny_data, network, mode)
    assert torch.equal(groups.norms() == 0, zero)
    assert 0 < int(zero.sum()) < len(zero)
    assert any(name.endswith("conv1.weight") for name in changed(trunk, network.trunk))


@pytest.mark.parametrize("mode", ["finetuned", "joint"])
def test_what_becomes_of_the_old_tasks_is_measured_with_the_heads_they_have(
    mode: str, tiny_data: MultiTaskData, network: MultiTaskNet
) -> None:
    heads, trunk = dict(network.heads), network.trunk
    old = MultiTaskNet(trunk, {name: heads[name] for name in ("depth", "kind")})
    before, weights = evaluate(old, tiny_data.test, tiny_data.tasks, 8), copied(heads["depth"])
    _, report = take_up(tiny_data, network, mode, remembers=True)
    after = evaluate(old, tiny_data.test, tiny_data.tasks, 8)
    assert after != before
    assert report["old/delta_m"] == pytest.approx(delta_m(tiny_data.tasks, after, before), abs=1e-4)
    assert {name: report[f"old/{name}"] for name in after} == pytest.approx(after)
    assert bool(changed(weights, heads["depth"])) == (mode == "joint")


def test_a_joint_step_descends_the_new_loss_and_the_old_ones(
    tiny_data: MultiTaskData, network: MultiTaskNet
) -> None:
    heads = {name: copied(head) for name, head in network.heads.items()}
    take_up(tiny_data, network, "joint", shots=6)
    assert all(changed(heads[name], head) for name, head in network.heads.items())


def test_labels_beyond_those_that_were_asked_for_are_not_learned_from(
    tiny_data: MultiTaskData, tiny_network: Network
) -> None:
    train = tiny_data.train
    assert isinstance(train, TensorSplit)
    kept = labelled(train, tiny_data.unseen_tasks[0], 6, 0)
    wrong = 1 - train.targets["bright"]
    wrong[kept] = train.targets["bright"][kept]
    other = replace(tiny_data, train=TensorSplit(train.images, train.targets | {"bright": wrong}, train.valid))
    for mode in ("frozen", "finetuned", "joint"):
        reports = [take_up(data, tiny_network(unseen=True), mode, shots=6)[1] for data in (tiny_data, other)]
        assert reports[0] == reports[1]


def test_fewer_labels_are_part_of_more_and_have_a_label(tiny_data: MultiTaskData) -> None:
    task = tiny_data.unseen_tasks[0]
    few, many, whole = (labelled(tiny_data.train, task, count, 3) for count in (4, 10, None))
    assert torch.equal(many[:4], few) and torch.equal(whole[:10], many)
    assert len(whole) == len(set(whole.tolist())) == 18
    assert bool(tiny_data.train.batch(whole).valid["bright"].all())
    assert not torch.equal(labelled(tiny_data.train, task, 10, 4), many)


def test_a_batch_is_no_larger_than_the_samples_are_many(tiny_data: MultiTaskData, network: MultiTaskNet) -> None:
    method, report = take_up(tiny_data, network, "frozen", shots=3)
    assert method.loop.settings.batch_size == 3
    assert report["labels"] == 3


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"task": "brigth"}, r"unknown unseen task 'brigth': did you mean 'bright'\? Known: bright"),
        ({"task": "depth"}, "unknown unseen task 'depth'"),
        ({"mode": "freeze"}, "unknown mode 'freeze': did you mean 'frozen'"),
        ({"shots": 19}, "19 samples with labels of 'bright' are asked for, but the train split has 18"),
    ],
)
def test_what_cannot_be_is_refused(
    changes: dict[str, object], problem: str, tiny_data: MultiTaskData, network: MultiTaskNet
) -> None:
    with pytest.raises(ConfigError, match=problem):
        Transfer(tiny_data, network, SETTINGS, 0, **({"task": "bright", "mode": "frozen"} | changes))  # type: ignore[arg-type]


def test_a_task_without_any_label_is_refused(tiny_data: MultiTaskData) -> None:
    train = tiny_data.train
    assert isinstance(train, TensorSplit)
    none = TensorSplit(train.images, train.targets, train.valid | {"bright": torch.zeros(24, dtype=torch.bool)})
    with pytest.raises(ConfigError, match=r"all samples with labels of 'bright' are asked for, .* has 0"):
        labelled(none, tiny_data.unseen_tasks[0], None, 0)
