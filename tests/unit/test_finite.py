"""Where a loss is not finite, the message names the task and what of it is not finite."""

import math
from dataclasses import replace

import pytest
import torch

from ms_automl.data import TensorSplit
from ms_automl.errors import DivergenceError
from ms_automl.tasks import HeadSpec, Task, depth
from ms_automl.training import TrainingSettings
from trainables import METHODS, Transfer

SHORT = TrainingSettings(steps=4, batch_size=6, report_every=2)


def spoiled(split, what, value=math.nan):
    """A split with a value in the last number of `images`, or of a task's targets, of sample 9."""
    batch = split.batch(torch.arange(len(split)))
    tensors = {"images": batch.images.clone()} | {name: t.clone() for name, t in batch.targets.items()}
    tensors[what][9].view(-1)[-1] = value
    valid = {name: torch.ones_like(mask) for name, mask in batch.valid.items()}
    return TensorSplit(tensors.pop("images"), tensors, valid)


def logarithm(data, network):
    """A task whose loss is finite on labels above 0 alone, and on predictions above 0."""

    def loss(prediction, target, valid):
        error = (prediction.exp() * target).log().square().mean(1)
        return torch.where(valid, error, 0.0).sum() / valid.sum()

    metric = depth().metrics["abs_error"]
    return replace(data, tasks=[Task("depth", HeadSpec(1, True), loss, {"error": metric}), data.tasks[1]]), network


def with_bias(network, task, value):
    list(network.heads[task].parameters())[-1].data.fill_(value)
    return network


NOT_LR = r"(?!.*training\.lr)"
FAULTS = {
    "target": (
        lambda data, network: (replace(data, train=spoiled(data.train, "depth")), network),
        rf"{NOT_LR}.*'depth': nan.*the target of 'depth' is NaN or infinite at a label that counts: mend",
    ),
    "infinite target": (
        lambda data, network: (replace(data, train=spoiled(data.train, "depth", -math.inf)), network),
        rf"{NOT_LR}.*'depth': inf.*the target of 'depth' is NaN or infinite at a label that counts",
    ),
    "images": (
        lambda data, network: (replace(data, train=spoiled(data.train, "images")), network),
        rf"{NOT_LR}.*the images hold NaN or infinite values",
    ),
    "prediction": (
        lambda data, network: (data, with_bias(network, "kind", math.nan)),
        r".*the network's prediction of 'kind' is not finite.*; try a lower training\.lr",
    ),
    "huge prediction": (
        lambda data, network: (data, with_bias(network, "depth", 3e38)),
        r".*the network's prediction of 'depth' is not finite, or beyond 1e\+15; try a lower training\.lr",
    ),
    "loss": (
        lambda data, network: logarithm(replace(data, train=spoiled(data.train, "depth", 0.0)), network),
        rf"{NOT_LR}.*'depth': inf.*the loss of 'depth' is not finite, though its prediction and target are",
    ),
    "sum": (
        lambda data, network: (replace(data, tasks=[replace(t, weight=3e38) for t in data.tasks]), network),
        r".*every loss is finite and their weighted sum is not; try a lower training\.lr",
    ),
}


@pytest.mark.parametrize("patient", [False, True], ids=["at once", "at the report"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_training_loss_that_is_not_finite_says_of_which_task_and_why(fault, patient, tiny_data, tiny_network):
    change, message = FAULTS[fault]
    data, network = change(tiny_data, tiny_network())
    method = METHODS["dense"].build(data, network, SHORT, 0)
    method.loop.patient = patient  # as on a GPU
    with pytest.raises(DivergenceError, match=f"loss not finite (at|by) step [0-4]: {message}") as error:
        while not method.done:
            method.step()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("fault", ["target", "images"])
def test_a_measured_loss_that_is_not_finite_says_in_which_samples_too(split, fault, tiny_data, tiny_network):
    what = "depth" if fault == "target" else fault
    data = replace(tiny_data, **{split: spoiled(getattr(tiny_data, split), what)})
    method = METHODS["dense"].build(data, tiny_network(), replace(SHORT, eval_batch_size=4), 0)
    last = 11 if split == "val" else 9
    message = rf"{split} loss not finite at step [24]: {FAULTS[fault][1]}.*, in samples 8 to {last}"
    with pytest.raises(DivergenceError, match=message):
        while not method.done:
            method.step()


@pytest.mark.parametrize(("what", "task"), [("bright", "bright"), ("depth", "depth")])
def test_a_joint_step_tells_the_new_task_from_the_old_ones(what, task, tiny_data, tiny_network):
    data = replace(tiny_data, train=spoiled(tiny_data.train, what))
    settings = replace(SHORT, batch_size=24)
    method = Transfer(data, tiny_network(unseen=True), settings, 0, task="bright", mode="joint")
    with pytest.raises(DivergenceError, match=f"the target of '{task}' is NaN or infinite"):
        method.step()
