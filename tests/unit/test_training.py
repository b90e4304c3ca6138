import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ms_automl.data import MultiTaskData, TensorSplit
from ms_automl.errors import ConfigError, DataError, DivergenceError
from ms_automl.meta import LambdaSchedule, Objective, Reference
from ms_automl.meta.step import TrainingStep
from ms_automl.models import MultiTaskNet
from ms_automl.models.cost import Cost
from ms_automl.sparsity import ChannelGroups, measure
from ms_automl.tasks import Metric
from ms_automl.training import BatchOrder, TrainingLoop, TrainingSettings, evaluate
from tests.unit.steps import Told
from trainables import Dense, FixedLambda, MetaSparsity

Build = Callable[[], MultiTaskNet]
SHORT = TrainingSettings(steps=8, batch_size=6, report_every=3)


# ---- settings -------------------------------------------------------------------------------------------


def test_the_learning_rate_rises_linearly_to_its_peak_and_falls_along_a_cosine() -> None:
    settings = TrainingSettings(steps=100, lr=0.01, warmup_share=0.1)
    rates = [settings.lr_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.001 * (step + 1) for step in range(10)])
    assert max(rates) == rates[10] == 0.01
    assert rates[55] == pytest.approx(0.005)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[99] < 1e-5


def test_without_warm_up_the_first_step_has_the_peak_rate() -> None:
    assert TrainingSettings(warmup_share=0.0, lr=0.5).lr_at(0) == 0.5


def test_the_last_report_comes_at_the_end_even_of_an_uneven_length() -> None:
    assert SHORT.reports == 3
    assert TrainingSettings(steps=9, report_every=3).reports == 3
    assert TrainingSettings(steps=8, report_every=8).reports == 1
    assert SHORT.prox_steps == 6


def test_a_plan_counts_what_a_whole_trial_does(tiny_data: MultiTaskData) -> None:
    assert SHORT.cost(tiny_data, outer_updates=2) == Cost(train=48, outer=12, forward=3 * 12 + 10)


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 0},
        {"steps": 5, "report_every": 6},
        {"report_every": 0},
        {"batch_size": 1},
        {"eval_batch_size": 0},
        {"lr": 0.0},
        {"lr": math.nan},
        {"weight_decay": -1.0},
        {"warmup_share": 1.0},
        {"prox_share": 0.0},
        {"prox_share": 1.1},
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_refused_with_its_condition(bad: dict[str, float]) -> None:
    name = next(reversed(bad))
    with pytest.raises(ConfigError, match=rf"`.*{name}.*` must hold, but got .*{name}={bad[name]}"):
        TrainingSettings(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "known"), [("grouping", "input_channel"), ("prox_metric", "euclidean")])
def test_an_unknown_kind_of_group_or_metric_is_refused_with_the_known_ones(kind: str, known: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown {kind} 'other': Known: {known}"):
        TrainingSettings(**{kind: "other"})


# ---- batch order ----------------------------------------------------------------------------------------


def test_an_epoch_of_batches_holds_every_sample_once() -> None:
    order = BatchOrder(12, 4, seed=0)
    epochs = [torch.cat([order.next() for _ in range(3)]).tolist() for _ in range(3)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_an_incomplete_batch_is_dropped_for_a_new_shuffle() -> None:
    order = BatchOrder(10, 4, seed=0)
    batches = [order.next() for _ in range(6)]
    assert [len(batch) for batch in batches] == [4] * 6
    for first, second in zip(batches[::2], batches[1::2], strict=True):
        assert len({*first.tolist(), *second.tolist()}) == 8


def test_the_order_goes_on_from_a_saved_state_across_an_epochs_end() -> None:
    order, other = BatchOrder(10, 4, seed=0), BatchOrder(10, 4, seed=9)
    order.next()
    other.load_state_dict(order.state_dict())
    assert all(torch.equal(order.next(), other.next()) for _ in range(5))


def test_a_batch_larger_than_its_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size must be at most the split's 5 samples, but got 6"):
        BatchOrder(5, 6, seed=0)


# ---- evaluation -----------------------------------------------------------------------------------------


def test_evaluation_does_not_depend_on_the_batch_size(tiny_data: MultiTaskData, tiny_network: Build) -> None:
    network = tiny_network()
    whole = evaluate(network, tiny_data.train, tiny_data.tasks, 24)
    assert set(whole) == {"depth/loss", "depth/abs_error", "depth/rel_error", "kind/loss", "kind/accuracy"}
    for size in (1, 7, 100):
        assert evaluate(network, tiny_data.train, tiny_data.tasks, size) == pytest.approx(whole, rel=1e-5)


def test_a_loss_is_the_mean_over_valid_labels_not_over_batches(
    tiny_data: MultiTaskData, tiny_network: Build
) -> None:
    valid = torch.zeros(3, 8, 8, dtype=torch.bool)
    valid[0, 0, 0] = valid[2] = True  # 1, 0 and 64 labels
    images = torch.randn(3, 2, 8, 8)
    split = TensorSplit(images, {"depth": torch.rand(3, 1, 8, 8) + 1}, {"depth": valid})
    network, task = tiny_network().eval(), tiny_data.tasks[0]
    found = evaluate(network, split, [task], 1)
    batch = split.batch(torch.arange(3))
    expected = task.loss(network(images)["depth"], batch.targets["depth"], batch.valid["depth"])
    assert found["depth/loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert found["depth/abs_error"] == pytest.approx(found["depth/loss"], rel=1e-5)


def test_evaluation_changes_neither_state_nor_mode(tiny_data: MultiTaskData, tiny_network: Build) -> None:
    network = tiny_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    evaluate(network, tiny_data.val, tiny_data.tasks, 5)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    evaluate(network.eval(), tiny_data.val, tiny_data.tasks, 5)
    assert not network.training


# ---- the loop -------------------------------------------------------------------------------------------


def spoiled(data: MultiTaskData, sample: int) -> MultiTaskData:
    images = data.train.batch(torch.arange(24))
    targets = {name: target.clone() for name, target in images.targets.items()}
    targets["depth"][sample] = math.inf
    return replace(data, train=TensorSplit(images.images, targets, {}))


def step_of(data: MultiTaskData, sample: int) -> int:
    order = BatchOrder(len(data.train), SHORT.batch_size, seed=1)
    return next(step for step in range(8) if sample in order.next().tolist())


def run_out(method: Dense | FixedLambda | MetaSparsity) -> None:
    while not method.done:
        method.step()


@pytest.mark.parametrize("sample", [0, 5, 17])
def test_a_loss_that_is_not_finite_ends_the_trial_naming_the_step_and_the_task(
    tiny_data: MultiTaskData, tiny_network: Build, sample: int
) -> None:
    data = spoiled(tiny_data, sample)
    step = step_of(data, sample)
    with pytest.raises(
        DivergenceError,
        match=rf"loss not finite at step {step}: .*'depth': inf.*; the target of 'depth' is NaN or inf",
    ) as e:
        run_out(Dense(data, tiny_network(), SHORT, 1))
    assert "λ" not in str(e.value)
    assert "training.lr" not in str(e.value)


def test_the_error_of_a_trial_with_a_lambda_names_it(tiny_data: MultiTaskData, tiny_network: Build) -> None:
    data, names = spoiled(tiny_data, 0), ChannelGroups(tiny_network()).names
    at = rf"loss not finite at step {step_of(data, 0)} with λ"
    constant = LambdaSchedule.constant(dict.fromkeys(names, 0.02))
    with pytest.raises(DivergenceError, match=rf"{at} = 0\.02: "):
        run_out(FixedLambda(data, tiny_network(), SHORT, 1, schedule=constant))
    various = LambdaSchedule.constant({name: 0.01 * (index + 1) for index, name in enumerate(names)})
    with pytest.raises(DivergenceError, match=rf"{at} from 0\.01 to {0.01 * len(names):.4g}: "):
        run_out(FixedLambda(data, tiny_network(), SHORT, 1, schedule=various))
    losses = {"depth": 1.0, "kind": 1.0}
    reference = Reference(losses, [(step, losses) for step in (3, 6)])
    with pytest.raises(DivergenceError, match=rf"{at} "):
        run_out(
            MetaSparsity(
                data, tiny_network(), SHORT, 1, objective=Objective(), reference=reference, bounds=(1e-3, 1e-1)
            )
        )


def test_a_validation_loss_that_is_not_finite_is_an_error_too(
    tiny_data: MultiTaskData, tiny_network: Build
) -> None:
    batch = tiny_data.val.batch(torch.arange(12))
    val = TensorSplit(batch.images * math.inf, batch.targets, batch.valid)
    with pytest.raises(DivergenceError, match="val loss not finite at step 3: "):
        Dense(replace(tiny_data, val=val), tiny_network(), SHORT, 1).step()


def test_the_rule_is_called_in_the_sparsifying_phase_alone_from_progress_0_to_1(
    tiny_data: MultiTaskData, tiny_network: Build
) -> None:
    loop, phases = TrainingLoop(tiny_data, tiny_network(), SHORT, 0), []
    loop.sparsifier.rule = Told(lambda now: phases.append((now.phase, now.lr)))
    while not loop.done:
        loop.interval()
    assert [phase for phase, _ in phases] == pytest.approx([step / 5 for step in range(6)])
    assert [lr for _, lr in phases] == [SHORT.lr_at(step) for step in range(6)]


def test_what_the_rule_zeroed_stays_exactly_zero_and_nothing_else_does(
    tiny_data: MultiTaskData, tiny_network: Build
) -> None:
    loop = TrainingLoop(tiny_data, tiny_network(), SHORT, 0)
    factors = torch.ones_like(loop.sparsifier.groups.size)
    factors[::3] = 0

    def once(now: TrainingStep) -> None:
        if now.phase == 1:
            loop.sparsifier.groups.scale_(factors)

    loop.sparsifier.rule = Told(once)
    while not loop.done:
        loop.interval()
        if loop.steps_done >= SHORT.prox_steps:
            assert torch.equal(loop.sparsifier.groups.norms() > 0, factors > 0)
    assert measure(loop.sparsifier.groups).group == pytest.approx(float((factors == 0).float().mean()))


def test_norms_and_biases_are_not_decayed(tiny_data: MultiTaskData, tiny_network: Build) -> None:
    decayed, others = TrainingLoop(tiny_data, tiny_network(), SHORT, 0).optimizer.param_groups
    assert decayed["weight_decay"] == SHORT.weight_decay
    assert others["weight_decay"] == 0
    assert {p.ndim for p in others["params"]} == {1}
    assert min(p.ndim for p in decayed["params"]) == 2


class _Wasteful(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = torch.nn.Conv2d(2, 4, 1)
        self.unused = torch.nn.Conv2d(4, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.used(images)


def test_a_layer_without_a_gradient_counts_as_one_of_zero() -> None:
    network = MultiTaskNet(_Wasteful(), {})
    network(torch.randn(2, 2, 8, 8))
    network.trunk(torch.randn(2, 2, 8, 8)).sum().backward()
    used, unused = ChannelGroups(network).gradients()
    assert float(used.abs().min()) > 0
    assert torch.equal(unused, torch.zeros(4, 4, 1, 1))


@pytest.mark.parametrize("value", [lambda total: 1 / 0, lambda total: "0.5", lambda total: None])
def test_a_metric_that_has_no_value_is_named(value, tiny_data: MultiTaskData, tiny_network: Build) -> None:
    metrics = {"m": Metric(lambda p, t, v: torch.ones(2).double(), value, "max", "1")}
    task = replace(tiny_data.tasks[0], metrics=metrics)
    with pytest.raises(DataError, match=r"^task 'depth': its metric 'm' has no number for value \("):
        evaluate(tiny_network(), tiny_data.val, [task], 8)
