"""What training a large network needs: batches read ahead, micro-batches, bfloat16, learned weights of tasks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ms_automl import load
from ms_automl.data import Batch, MultiTaskData
from ms_automl.errors import DivergenceError
from ms_automl.meta import LambdaSchedule
from ms_automl.models import MultiTaskNet, head_specs
from ms_automl.models.archive import Architecture, save_model
from ms_automl.training import TrainingLoop, TrainingSettings, evaluate
from ms_automl.training.feed import Feed
from tests.conformance.ways import LAYERS, Factory, run
from trainables import Dense, FixedLambda

Build = Callable[[], MultiTaskNet]
SHORT = TrainingSettings(steps=8, batch_size=6, report_every=4)


class Counting:
    """A split whose samples say which ones they are, and with which seed they were drawn."""

    def __len__(self) -> int:
        return 20

    def batch(self, indices: Tensor) -> Batch:
        return Batch(indices.float(), {"seed": torch.zeros(len(indices))}, {})

    def augmented(self, indices: Tensor, seed: int) -> Batch:
        return Batch(indices.float(), {"seed": torch.full((len(indices),), seed, dtype=torch.float64)}, {})


def drawn(feed: Feed, count: int) -> list[list[float]]:
    batches = [feed.next() for _ in range(count)]
    return [[*batch.images.tolist(), *batch.targets["seed"].tolist()] for batch in batches]


@pytest.mark.parametrize("ahead", [1, 3])
def test_batches_read_ahead_are_those_read_when_needed(ahead: int) -> None:
    assert drawn(Feed(Counting(), 6, 5, ahead), 9) == drawn(Feed(Counting(), 6, 5), 9)


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("taken", [0, 1, 4])
def test_a_feed_goes_on_from_its_state_whatever_it_had_read_ahead(ahead: int, taken: int) -> None:
    whole = drawn(Feed(Counting(), 6, 5), 8)
    feed = Feed(Counting(), 6, 5, ahead)
    drawn(feed, taken)
    other = Feed(Counting(), 6, 1, ahead)
    other.seed = 5
    drawn(other, 2)
    other.load_state_dict(feed.state_dict())
    assert drawn(other, 8 - taken) == whole[taken:]
    assert drawn(feed, 8 - taken) == whole[taken:]


def test_each_step_of_a_seed_draws_its_own_views() -> None:
    seeds = {step[-1] for seed in (0, 1) for step in drawn(Feed(Counting(), 6, seed), 50)}
    assert len(seeds) == 100


def test_an_error_while_reading_ahead_is_raised_where_the_batch_is_asked_for() -> None:
    class Broken(Counting):
        def augmented(self, indices: Tensor, seed: int) -> Batch:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        Feed(Broken(), 6, 0, 2).next()


def gradients(data: MultiTaskData, build: Build, **changes) -> list[Tensor]:
    loop = TrainingLoop(data, build(), replace(SHORT, **changes), seed=0)
    loop.network.eval()  # batch norm would see each micro-batch on its own
    loop.backward(data.train.batch(torch.arange(6)))
    return [parameter.grad for parameter in loop.network.parameters()]


@pytest.mark.parametrize("size", [2, 4, 5])
@pytest.mark.parametrize("weighting", ["equal", "uncertainty"])
def test_gradients_of_micro_batches_add_up_to_the_batchs_though_labels_are_missing(
    size: int, weighting: str, tiny_data: MultiTaskData, tiny_network: Build
) -> None:
    whole = gradients(tiny_data, tiny_network, weighting=weighting)
    parts = gradients(tiny_data, tiny_network, weighting=weighting, micro_batch=size)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


class Crowded(MultiTaskNet):
    """A network that runs out of memory where more samples than ``room`` come at once."""

    room = 3

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        if len(images) > (self.room if self.training else 2 * self.room):
            raise torch.OutOfMemoryError("no room")
        return super().forward(images)


def test_a_trial_without_memory_goes_on_with_smaller_micro_batches_and_says_so(
    tiny_data: MultiTaskData, tiny_network: Build
) -> None:
    plain = tiny_network()
    network = Crowded(plain.trunk, plain.heads)
    method = Dense(tiny_data, network, SHORT, seed=0)
    report = method.step()
    assert report["micro_batch"] == 3
    assert method.cost.train == 4 * 6
    resumed = Dense(tiny_data, tiny_network(), SHORT, seed=0)
    resumed.load_state_dict(method.state_dict())
    assert resumed.step()["micro_batch"] == 3

    plain_metrics = evaluate(plain, tiny_data.val, tiny_data.tasks, 12)  # the same weights, all samples at once
    for name, value in plain_metrics.items():
        assert report[f"val/{name}"] == pytest.approx(value, rel=1e-5)

    network.room = 1
    with pytest.raises(torch.OutOfMemoryError):
        method.step()


@pytest.mark.parametrize("case", ["meta_sparsity, trade-off", "meta_sparsity, waterfill"])
def test_a_learner_without_memory_goes_on_with_smaller_micro_batches_too(
    case: str, tiny_data: MultiTaskData, tiny_network: Build
) -> None:
    plain = tiny_network()
    network = Crowded(plain.trunk, plain.heads, plain.removable)
    method = Factory(tiny_data, lambda: network)(case)
    reports = run(method)
    assert reports[0]["micro_batch"] == 3
    assert reports[0]["probe/depth/loss"] > 0
    assert reports[-1]["sparsity/param"] > 0


def test_bfloat16_gives_float32_predictions_near_those_of_float32(
    tiny_data: MultiTaskData, tiny_network: Build
) -> None:
    images = tiny_data.train.batch(torch.arange(6)).images
    exact, rough = tiny_network(), tiny_network()
    TrainingLoop(tiny_data, rough, replace(SHORT, precision="bfloat16"), seed=0)
    for name, output in rough(images).items():
        assert output.dtype == torch.float32
        expected = exact(images)[name]
        assert 0 < (output - expected).abs().max() < 0.1 * expected.abs().max()
    assert all(parameter.dtype == torch.float32 for parameter in rough.parameters())
    report = Dense(tiny_data, tiny_network(), replace(SHORT, precision="bfloat16"), seed=0).step()
    plain = Dense(tiny_data, tiny_network(), SHORT, seed=0).step()
    assert report["val/depth/loss"] == pytest.approx(plain["val/depth/loss"], rel=0.1)


def test_learned_weights_of_tasks_follow_their_formula_and_train_without_decay(
    tiny_data: MultiTaskData, tiny_network: Build
) -> None:
    loop = TrainingLoop(tiny_data, tiny_network(), replace(SHORT, weighting="uncertainty"), seed=0)
    spread = loop.network.uncertainty
    assert {name: value.item() for name, value in spread.items()} == {"depth": 0.0, "kind": 0.0}
    with torch.no_grad():
        spread["depth"].fill_(0.7), spread["kind"].fill_(-0.4)
    loop.network.eval()
    batch = tiny_data.train.batch(torch.arange(6))
    outputs = loop.network(batch.images)
    losses = {
        task.name: task.loss(outputs[task.name], batch.targets[task.name], batch.valid[task.name])
        for task in tiny_data.tasks
    }
    by_hand = losses["depth"] / (2 * torch.tensor(0.7).exp()) + 0.35
    by_hand = by_hand + losses["kind"] / (2 * torch.tensor(-0.4).exp()) - 0.2
    torch.testing.assert_close(loop.loss(outputs, batch), by_hand)
    decay = {id(p): group["weight_decay"] for group in loop.optimizer.param_groups for p in group["params"]}
    assert [decay[id(value)] for value in spread.values()] == [0.0, 0.0]

    loop.network.train()
    loop.interval()
    assert all(float(value.detach()) not in (0.7, -0.4) for value in spread.values())


def test_a_model_is_saved_without_the_weights_of_its_tasks(
    tiny_data: MultiTaskData, tiny_network: Build, tmp_path: Path
) -> None:
    loop = TrainingLoop(tiny_data, tiny_network(), replace(SHORT, weighting="uncertainty"), seed=0)
    loop.interval()
    heads = head_specs(tiny_data.tasks)
    save_model(loop.network, tmp_path, Architecture("small_resnet", {"width": 4, "hidden": 4}, (2, 8, 8), heads))
    images = tiny_data.val.batch(torch.arange(4)).images
    loop.network.eval()
    for name, output in load(tmp_path).eval()(images).items():
        torch.testing.assert_close(output, loop.network(images)[name])


class Waits(TorchDispatchMode):
    """Counts what makes the CPU wait for a GPU: values that Python looks at, and sizes that depend on values."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name in (
            "aten::_local_scalar_dense",
            "aten::nonzero",
            "aten::masked_select",
            "aten::equal",
        ):
            self.found.append(func._schema.name)
        return func(*args, **(kwargs or {}))


def waits(method, steps: int = 4) -> list[str]:
    loop = method.loop
    loop.patient = True  # as on a GPU
    loop.network.train()
    for _ in range(3):  # the first steps make the optimiser's state
        loop._train_step(loop.backward), loop.sparsifier.step()
        loop.steps_done += 1
    with Waits() as found:
        for _ in range(steps):
            loop._train_step(loop.backward), loop.sparsifier.step()
            loop.steps_done += 1
    return found.found


@pytest.mark.parametrize("case", ["dense", "fixed_lambda", "fixed_lambda, coupled", "meta_sparsity, waterfill"])
def test_a_step_never_waits_for_the_device(case: str, tiny_data: MultiTaskData, tiny_network: Build) -> None:
    make = Factory(tiny_data, tiny_network)
    method = make(case, settings=TrainingSettings(steps=40, batch_size=6, report_every=20))
    # AdamW on the CPU looks at its own step counters; on a GPU it counts there, or not by tensors.
    for group in method.loop.optimizer.param_groups:
        group["capturable"] = False
    own = waits(make("dense", settings=TrainingSettings(steps=40, batch_size=6, report_every=20)))
    assert waits(method) == own


def test_a_compiled_network_trains_as_it_does_without(
    tiny_data: MultiTaskData, tiny_network: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def captured(network: nn.Module) -> None:  # what is traced is run as it is: no compiler takes its minute
        asked.append(network)
        network._compiled_call_impl = torch.compile(network._call_impl, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", captured)
    reports = []
    for compiled in (False, True):
        method = Dense(tiny_data, tiny_network(), replace(SHORT, compile=compiled), seed=0)
        reports.append(method.step())
    assert asked == [method.loop.network]
    assert reports[0] == pytest.approx(reports[1])
    assert list(method.state_dict()["loop"]["network"]) == list(tiny_network().state_dict())


def test_a_loss_that_is_not_finite_is_found_at_the_report_where_nobody_waits_for_it(
    tiny_data: MultiTaskData, tiny_network: Build
) -> None:
    method = Dense(tiny_data, tiny_network(), replace(SHORT, lr=1e30), seed=0)
    method.loop.patient = True
    with pytest.raises(
        DivergenceError, match=r"loss not finite by step 4: .*'depth': .*; try a lower training\.lr"
    ):
        method.step()


def test_fixed_lambda_trains_with_all_of_it(tiny_data: MultiTaskData, tiny_network: Build) -> None:
    settings = replace(SHORT, micro_batch=3, precision="bfloat16", weighting="uncertainty", prefetch=2)
    schedule = LambdaSchedule.constant(dict.fromkeys(LAYERS, 15.0))
    method = FixedLambda(tiny_data, tiny_network(), settings, 0, schedule=schedule)
    while not method.done:
        report = method.step()
    assert 0 < report["sparsity/param"] < 1
