"""A task may be called as its user likes: no torch container, export or metric has its name already."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from ms_automl.data import MultiTaskData, TensorSplit
from ms_automl.meta import LambdaSchedule
from ms_automl.models import MultiTaskNet, head_specs, overparameterise, small_resnet
from ms_automl.models.archive import Architecture, load, save_model
from ms_automl.models.onnx_form import OnnxNetwork, to_onnx
from ms_automl.sparsity import build_groups
from ms_automl.tasks import binary, depth
from ms_automl.training import TrainingSettings
from trainables import METHODS, Transfer

# Attributes of every module, of containers alone, of instances; keywords; words of the metrics; the ONNX input.
NAMES = ["type", "training", "values", "keys", "pop", "forward", "_keys", "T_destination", "lambda", "class"]
WORDS = ["val", "test", "train", "density", "objective", "step", "cost", "sparsity", "probe", "old", "tâche"]
EVERY = [*NAMES, *WORDS, "images"]
SHORT = TrainingSettings(steps=2, batch_size=6, report_every=1, weighting="uncertainty")


def named(data, name):
    """The tiny data with its depth, and what is held back, under other names."""

    def split(part):
        batch = part.batch(torch.arange(len(part)))
        others = {"depth": name, "bright": f"{name}_"}
        return TensorSplit(
            batch.images,
            {others.get(task, task): target for task, target in batch.targets.items()},
            {others.get(task, task): valid for task, valid in batch.valid.items()},
        )

    train, val, test = map(split, data.splits.values())
    tasks, unseen = (depth(name), data.tasks[1]), (binary(f"{name}_"),)
    return MultiTaskData("named", train, val, test, tasks, unseen)


def network_of(tasks):
    torch.manual_seed(0)
    return small_resnet((2, 8, 8), head_specs(tasks), width=4, hidden=4)


@pytest.mark.parametrize("name", EVERY)
def test_a_task_of_any_name_trains_as_it_does_under_another(name, tiny_data, tiny_network, tmp_path):
    reports = []
    for called, data in (("depth", tiny_data), (name, named(tiny_data, name))):
        network = network_of(data.tasks)
        layers = build_groups(network, "input_channel", (2, 8, 8)).names
        schedule = LambdaSchedule.constant(dict.fromkeys(layers, 0.1))
        method = METHODS["fixed_lambda"].build(data, network, SHORT, 0, schedule=schedule)
        while not method.done:
            report = method.step()
        found = {key.replace(f"/{called}/", "/<task>/"): value for key, value in report.items()}
        assert len(found) == len(report)
        reports.append(found)
    assert reports[0] == reports[1]
    state = method.state_dict()
    fresh = METHODS["fixed_lambda"].build(data, network_of(data.tasks), SHORT, 0, schedule=schedule)
    fresh.load_state_dict(state)
    assert list(network.heads) == [name, "kind"] and name in network.heads
    network.uncertainty = None
    known = Architecture("small_resnet", {"width": 4, "hidden": 4}, (2, 8, 8), head_specs(data.tasks))
    save_model(network, tmp_path, known)
    images, network = torch.randn(3, 2, 8, 8), network.eval()
    for output, again in zip(network(images).items(), load(tmp_path)(images).items(), strict=True):
        assert output[0] == again[0]
        torch.testing.assert_close(output[1], again[1])


@pytest.mark.parametrize("name", NAMES)
def test_an_unseen_task_of_any_name_is_taken_up_and_a_head_can_be_taken_off(name, tiny_data):
    data = named(tiny_data, name)
    data = replace(data, tasks=data.tasks[1:], unseen_tasks=data.tasks[:1])
    settings = replace(SHORT, weighting="equal")
    for mode in ("frozen", "finetuned", "joint"):
        network = network_of((*data.tasks, *data.unseen_tasks))
        method = Transfer(data, network, settings, 0, task=name, mode=mode, remembers=True)
        while not method.done:
            assert f"val/{name}/loss" in method.step()
        assert (list(network.heads) == [name]) == (mode != "joint")
    separate = network_of(data.tasks)
    METHODS["single_task"].build(data, separate, settings, 0).step()
    assert list(separate.heads) == [task.name for task in data.tasks]


def test_heads_of_any_name_are_factored_together():
    pixel = depth().head
    network = small_resnet((2, 8, 8), {"type": pixel, "values": pixel}, width=4, hidden=4).eval()
    images = torch.randn(2, 2, 8, 8)
    before = network(images)
    overparameterise(network)
    assert type(network.heads["type"][0]).__name__ == type(network.heads["values"][0]).__name__ == "FactoredConv2d"
    for name, output in network(images).items():
        torch.testing.assert_close(output, before[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("saved", "loaded"), [("heads.type-.", "heads.type."), ("heads.kind.", "heads.kind-.")])
def test_weights_saved_under_the_other_name_of_a_head_are_read(saved, loaded):
    """A version of torch may give its modules an attribute that another one's do not have."""
    network = MultiTaskNet(nn.Conv2d(1, 1, 1), {"type": nn.Linear(2, 2), "kind": nn.Linear(2, 2)})
    state = network.state_dict()
    assert any(key.startswith(saved) for key in state)
    other = {key.replace(saved, loaded): value + 1 for key, value in state.items()}
    network.load_state_dict(other)
    assert all(
        torch.equal(value, other[key.replace(saved, loaded)]) for key, value in network.state_dict().items()
    )


def test_a_network_in_onnx_calls_its_outputs_as_its_tasks():
    # Words of the metrics, an attribute, a keyword, and what the exporter calls its own values.
    names = ["depth", "values", "lambda", "images", "view", "conv2d", "relu", "mean", "val_0", "linear"]
    network = small_resnet((2, 8, 8), dict.fromkeys(names, binary("x").head), width=4, hidden=4).eval()
    model = to_onnx(network, (2, 8, 8))
    expected = [name if name != "images" else "images-" for name in names]
    assert [output.name for output in model.graph.output] == expected
    images = torch.randn(2, 2, 8, 8)
    found = OnnxNetwork(model)(images)
    assert list(found) == names
    for name, output in network(images).items():
        torch.testing.assert_close(found[name], output.detach(), rtol=1e-3, atol=1e-4)
