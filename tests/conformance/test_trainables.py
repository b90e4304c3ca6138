"""What every way of training must hold, over the whole table."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ms_automl.budget import Cost
from ms_automl.checkpoint import load, save
from ms_automl.data import MultiTaskData, TensorSplit
from ms_automl.errors import ConfigError
from ms_automl.meta import LambdaSchedule, Objective
from ms_automl.meta.hypergradients import ESTIMATORS
from ms_automl.meta.learners import LEARNERS
from ms_automl.models import MultiTaskNet
from ms_automl.sparsity import ChannelGroups
from tests.conformance.ways import (
    CASES,
    DENSE,
    LAYERS,
    SETTINGS,
    STREAMS,
    STRONG,
    TARGET,
    WORDS,
    Factory,
    constant,
    run,
    same,
    state,
)
from trainables import METHODS, FixedLambda, MetaSparsity, Transfer

each_case = pytest.mark.parametrize("case", CASES)
each_sparse_case = pytest.mark.parametrize("case", [case for case in CASES if case not in DENSE])


@pytest.fixture(scope="module")
def make(tiny_data: MultiTaskData, tiny_network: Callable[[], MultiTaskNet]) -> Factory:
    return Factory(tiny_data, tiny_network)


def test_every_method_of_the_table_is_tested() -> None:
    assert {method for method, _ in CASES.values()} == set(METHODS)


@each_case
def test_a_run_saved_to_disk_at_any_report_goes_on_bit_for_bit(case: str, make: Factory, tmp_path: Path) -> None:
    whole, reports = make.finished(case)
    assert len(reports) == 6
    method = make(case)
    for cut in range(len(reports)):
        save(method.state_dict(), tmp_path, "state")
        torch.manual_seed(99)  # a fresh process has other random numbers
        method = make(case, seed=5)  # and nothing of its own may shine through
        method.load_state_dict(load(tmp_path, "state"))
        assert method.step() == reports[cut]
    assert method.done
    assert same(state(method), state(whole))
    assert method.cost == whole.cost
    if isinstance(whole, MetaSparsity):
        assert method.schedule == whole.schedule


def rule_state(kept: dict[str, Any]) -> str:
    """All but the network and the optimisers, whose states are live views, as is torch's habit."""
    learner = {key: value for key, value in kept.get("learner", {}).items() if key != "optimizer"}
    return repr({key: value for key, value in kept.items() if key != "loop"} | {"learner": learner})


@each_case
def test_a_rules_state_is_a_copy_that_neither_the_run_nor_its_twin_changes(case: str, make: Factory) -> None:
    method, twin = make(case), make(case)
    method.step()
    kept = method.state_dict()
    before = rule_state(kept)
    twin.load_state_dict(kept)
    method.step(), twin.step()
    assert rule_state(kept) == before


@each_case
def test_a_seed_fixes_a_run_and_another_one_changes_it(case: str, make: Factory) -> None:
    first, reports = make.finished(case)
    again, other = make(case), make(case, seed=4)
    assert run(again) == reports
    assert same(state(again), state(first))
    assert run(other) != reports
    assert not same(state(other), state(first))


@each_case
def test_a_run_costs_what_was_planned(case: str, make: Factory) -> None:
    method, _ = make.finished(case)
    expected = SETTINGS.cost(make.data, probes=6 if case == "dense, probed" else 0)
    if isinstance(method, Transfer):
        asked = CASES[case][1]
        remembers, shots = asked.get("remembers", False), asked.get("shots", 18)  # 18 of 24 have a label
        expected = Transfer.planned_cost(
            make.data, SETTINGS, mode=asked["mode"], samples=shots, remembers=remembers
        )
    if isinstance(method, MetaSparsity):
        expected = planned(case, make.data)
        assert (expected.outer > 0) == (CASES[case][1]["learning"].learner in ESTIMATORS)
    assert method.cost == expected


def planned(case: str, data: MultiTaskData, **changes: Any) -> Cost:
    arguments = CASES[case][1]
    lambdas = max(arguments["ties"] or range(len(LAYERS))) + 1
    learning = replace(arguments["learning"], **changes)
    return MetaSparsity.planned_cost(data, SETTINGS, arguments["objective"], lambdas=lambdas, learning=learning)


def test_every_learner_of_the_table_is_tested() -> None:
    tested = {arguments["learning"].learner for method, arguments in CASES.values() if method == "meta_sparsity"}
    assert tested == set(LEARNERS)


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("learner", ["trade-off", "unrolled", "implicit_cg"])
def test_rarer_outer_batches_cost_what_was_planned_too(learner: str, every: int, make: Factory) -> None:
    case = f"meta_sparsity, {learner}"
    method = make(case, every=every)
    run(method)
    assert method.cost == planned(case, make.data, every=every)


@each_sparse_case
def test_the_zero_pattern_is_frozen_in_debiasing_and_the_rest_still_trains(case: str, make: Factory) -> None:
    settings = replace(SETTINGS, report_every=1)
    method = make(case, settings=settings)
    for _ in range(settings.prox_steps):
        report = method.step()
    zero = method.loop.groups.norms() == 0
    assert 0 < report["sparsity/param"] < 1
    assert report["density"] == pytest.approx(1 - report["sparsity/param"])
    before = state(method)
    while not method.done:
        late = method.step()
        assert torch.equal(method.loop.groups.norms() == 0, zero)
        assert late["sparsity/param"] == report["sparsity/param"]
    assert not same(before, state(method))
    groups = method.loop.groups
    for alive, weight in zip(groups.per_weight((~zero).float()), groups.weights, strict=True):
        assert bool((weight[(alive == 0).expand_as(weight)] == 0).all())


@each_sparse_case
def test_a_layer_without_a_skip_keeps_a_group(case: str, make: Factory) -> None:
    method, reports = make.finished(case)
    needed = [name for name in method.loop.groups.names if ".conv" not in name]
    assert needed == ["stem"] if "coupled" in case else ["stem", "block3.shortcut"]
    for name in [*needed, "block3.conv2"] if "coupled" in case else needed:
        assert reports[-1][f"sparsity/layer/{name}"] < 1
    kept = [weight for name, weight in zip(LAYERS, method.loop.groups.weights, strict=True) if ".conv" not in name]
    assert all(bool((weight != 0).any()) for weight in kept)


@pytest.mark.parametrize("case", DENSE)
def test_a_way_without_sparsity_zeroes_nothing(case: str, make: Factory) -> None:
    assert {report["density"] for report in make.finished(case)[1]} == {1.0}


@each_case
def test_reports_are_finite_and_named_as_the_records_are(case: str, make: Factory) -> None:
    method, reports = make.finished(case)
    layers = STREAMS if "coupled" in case else LAYERS
    assert method.loop.groups.names == layers
    names = {"step", "density", "sparsity/group", "sparsity/param"}
    names |= {f"sparsity/layer/{layer}" for layer in layers}
    names |= {f"val/depth/{name}" for name in ("loss", "abs_error", "rel_error")}
    if CASES[case][0] != "single_task":
        names |= {"val/kind/loss", "val/kind/accuracy"}
    if CASES[case][0] == "transfer":
        names = names - {name for name in names if name.startswith("val/") and "joint" not in case}
        names |= {"labels"} | {f"val/bright/{name}" for name in ("loss", "f1", "accuracy")}
    if CASES[case][0] == "meta_sparsity" or "schedule" in CASES[case][1]:
        names |= {f"lambda/{layer}" for layer in layers}
    tested = {name.replace("val/", "test/") for name in names if name.startswith("val/")}
    if "remembers" in CASES[case][1]:
        tested |= {f"old/{name}" for name in ("delta_m", "depth/loss", "depth/abs_error", "depth/rel_error")}
        tested |= {f"old/kind/{name}" for name in ("loss", "accuracy")}
    probes = {"probe/depth/loss", "probe/kind/loss"}
    probed = {"dense, probed": 6}.get(case, 3 if CASES[case][0] == "meta_sparsity" else 0)
    for index, report in enumerate(reports):
        assert set(report) == names | (probes if index < probed else set()) | (tested if index == 5 else set())
    assert [report["step"] for report in reports] == [3, 6, 9, 12, 15, 16]
    for report in reports:
        assert all(isinstance(value, float) and math.isfinite(value) for value in report.values())


@pytest.mark.parametrize("case", [case for case in CASES if not {"transfer", *WORDS} & {*case.split(", ")}])
def test_the_labels_of_a_task_that_is_held_back_change_nothing(case: str, make: Factory) -> None:
    """λ, pattern and weights alike: a method that looked at one of them would end elsewhere."""
    other = make(case, data=relabelled(make.data, "bright", 7.5))
    assert run(other) == make.finished(case)[1]
    assert same(state(other), state(make.finished(case)[0]))


def relabelled(data: MultiTaskData, task: str, value: float) -> MultiTaskData:
    """The same data with another value in the place of every label of a task."""
    splits = {}
    for name, split in data.splits.items():
        assert isinstance(split, TensorSplit)
        targets = split.targets | {task: torch.full_like(split.targets[task], value)}
        splits[name] = TensorSplit(split.images, targets, split.valid | {task: ~split.valid[task]})
    return replace(data, **splits)


def test_training_lowers_the_loss(make: Factory) -> None:
    reports = run(make("dense", settings=replace(SETTINGS, steps=40, report_every=10)))
    assert reports[-1]["val/depth/loss"] < 0.9 * reports[0]["val/depth/loss"]


def test_a_lambda_of_zero_is_dense_training_bit_for_bit(make: Factory) -> None:
    dense, reports = make.finished("dense")
    free = make("fixed_lambda", **constant(0.0))
    for expected, found in zip(reports, run(free), strict=True):
        assert {name: found[name] for name in expected} == expected
    assert same(state(free), state(dense))


@pytest.mark.parametrize("case", [case for case in CASES if "fixed_lambda, " in case and "course" not in case])
def test_a_lambda_of_zero_trains_as_dense_for_every_kind_of_group(case: str, make: Factory) -> None:
    free = make(case, **constant(0.0, STREAMS if "coupled" in case else LAYERS))
    run(free)
    assert same(state(free), state(make.finished("dense")[0]))


@pytest.mark.parametrize("case", ["fixed_lambda, coupled", "fixed_lambda, coupled, adam", "pruned, coupled"])
def test_what_a_dead_channel_would_still_emit_is_zero_with_it(case: str, make: Factory) -> None:
    groups = make.finished(case)[0].loop.groups
    zero = torch.split(groups.norms() == 0, groups.counts)
    norms = make.finished(case)[0].loop.network.trunk
    for stream, norm in (("stem", norms.block2.bn2), ("block5.conv1", norms.block5.bn1)):
        dead = zero[groups.names.index(stream)]
        assert bool((norm.weight[dead] == 0).all()) and bool((norm.bias[dead] == 0).all())
        assert bool((norm.bias[~dead] != 0).any()) or bool(dead.all())


@pytest.mark.parametrize(
    ("changes", "instead"), [({"metric": "adam"}, "euclidean"), ({"grouping": "coupled"}, "input_channel")]
)
def test_what_lambda_cannot_be_learned_for_is_refused(
    changes: dict[str, str], instead: str, make: Factory
) -> None:
    with pytest.raises(ConfigError, match=rf"but got training.*: set .*training\.\w+={instead}"):
        make("meta_sparsity, trade-off", settings=replace(SETTINGS, **changes))


def test_a_pruning_level_of_zero_is_dense_training_bit_for_bit(make: Factory) -> None:
    (dense, reports), free = make.finished("dense"), make("pruned", level=0.0)
    assert run(free) == reports
    assert same(state(free), state(dense))


@pytest.mark.parametrize("case", [case for case in CASES if "pruned" in case or "target" in case])
@pytest.mark.parametrize("level", [0.2, 0.44, 0.8])
def test_a_level_that_is_asked_for_is_reached_and_hardly_passed(case: str, level: float, make: Factory) -> None:
    changes = {"level": level} if "pruned" in case else {"objective": Objective("target", target=level)}
    method = make(case, **changes)
    found = run(method)[-1]["sparsity/param"]
    assert level <= found <= level + float(method.loop.groups.size.max()) / method.loop.groups.total + 1e-6


@pytest.mark.parametrize("level", [-0.1, 1.0, math.nan])
def test_a_pruning_level_out_of_range_is_refused(level: float, make: Factory) -> None:
    with pytest.raises(ConfigError, match=f"`0 <= level < 1` must hold, but got level={level}"):
        make("pruned", level=level)


def test_an_unknown_criterion_is_refused_with_the_known_ones(make: Factory) -> None:
    with pytest.raises(
        ConfigError, match=r"unknown criterion 'tailor': did you mean 'taylor'\? Known: taylor, mag"
    ):
        make("pruned", criterion="tailor")


def test_outer_passes_move_no_batch_norm_buffer(make: Factory) -> None:
    often = make("meta_sparsity, trade-off", lambda_lr=1e-30, every=1)
    never = make("meta_sparsity, trade-off", lambda_lr=1e-30, every=1000)
    run(often), run(never)
    assert often.cost.outer == 12 * 6
    assert never.cost.outer == 6
    assert same(state(often), state(never))


@pytest.mark.parametrize("learner", ["forward_exact", "unrolled"])
def test_estimators_that_replay_steps_resume_bit_for_bit_under_sgd_too(learner: str, make: Factory) -> None:
    settings = replace(SETTINGS, optimizer="sgd", lr=0.05)
    case = f"meta_sparsity, {learner}"
    whole, cut = make(case, settings=settings), make(case, settings=settings)
    reports = run(whole)
    assert [cut.step(), cut.step()] == reports[:2]
    resumed = make(case, seed=5, settings=settings)
    resumed.load_state_dict(cut.state_dict())
    assert run(resumed) == reports[2:]


def test_the_outer_batches_come_from_the_split_that_is_asked_for(make: Factory) -> None:
    for outer, split in (("validation", make.data.val), ("training", make.data.train)):
        method = make("meta_sparsity, trade-off", outer=outer)
        assert method.outer_split is split
        assert method.outer_order.size == len(split)
        run(method)
        assert method.cost == planned("meta_sparsity, trade-off", make.data)


def test_a_learner_that_does_not_fit_is_refused_before_anything_trains(make: Factory) -> None:
    for changes, problem in (
        ({"learner": "removal", "objective": TARGET}, "this one is target: take waterfill"),
        ({"learner": "waterfal"}, "did you mean 'waterfill'"),
        ({"unroll": 0}, r"`unroll >= 1` must hold, but got .*unroll=0"),
        ({"outer": "test"}, "`outer is validation or training` must hold, but got .*outer='test'"),
    ):
        with pytest.raises(ConfigError, match=problem):
            make("meta_sparsity, trade-off", **changes)


def test_learning_moves_lambda_within_its_bounds(make: Factory) -> None:
    for case in ("meta_sparsity, trade-off", "meta_sparsity, one λ"):
        values = torch.tensor(make.finished(case)[0].schedule.values)
        assert values[0].tolist() == [0.0] * values.shape[1]  # the warm-up begins
        risen = values[4:]  # past its 30 %
        assert bool(((risen >= 0.5 * (1 - 1e-5)) & (risen <= 50.0 * (1 + 1e-5))).all())
        assert float(values.std(0).min()) > 0
        assert (float(values.std(1).max()) == 0) == ("one λ" in case)


@pytest.mark.parametrize("case", ["meta_sparsity, trade-off", "meta_sparsity, one λ", "meta_sparsity, target"])
def test_a_learned_schedule_is_accepted_as_a_fixed_one(case: str, make: Factory) -> None:
    learned = make.finished(case)[0].schedule
    schedule = LambdaSchedule.from_dict(learned.to_dict())
    report = run(make("fixed_lambda", schedule=schedule))[-1]
    assert 0 < report["sparsity/param"] < 1
    assert {name: report[f"lambda/{name}"] for name in LAYERS} == pytest.approx(
        dict(zip(LAYERS, learned.values[-1], strict=True)), rel=1e-5
    )


@pytest.mark.parametrize(
    ("case", "changes"),
    [
        ("meta_sparsity, waterfill", {}),
        ("meta_sparsity, waterfill", {"rest": 0.0}),
        ("meta_sparsity, waterfill", {"bounds": (0.01, 1.0)}),
        ("meta_sparsity, waterfill, output channels", {}),
        ("meta_sparsity, target", {}),
        ("meta_sparsity, target, weights", {}),
    ],
)
def test_a_learned_course_of_shares_ends_as_sparse_when_it_is_replayed(
    case: str, changes: dict[str, Any], make: Factory
) -> None:
    learned = make(case, **changes)
    expected = run(learned)[-1]["sparsity/param"]
    kind = next((word for word in ("output channels", "weights") if word in case), "")
    replay = make(f"fixed_lambda, {kind}" if kind else "fixed_lambda", schedule=learned.schedule)
    found = run(replay)[-1]["sparsity/param"]
    assert 0 < expected < 1
    assert found == pytest.approx(expected, abs=0.02)


def test_a_course_that_touches_all_groups_at_its_end_leaves_one_where_the_signal_must_pass(make: Factory) -> None:
    everything = LambdaSchedule(LAYERS, ((1.0,) * 14, (40.0,) * 14), ((0.0,) * 14, (1.0,) * 14))
    report = run(make("fixed_lambda", schedule=everything))[-1]
    assert report["sparsity/layer/stem"] < 1
    assert report["sparsity/layer/block3.shortcut"] < 1
    assert report["sparsity/layer/block1.conv1"] == 1


def test_a_schedule_for_other_layers_is_refused_with_the_right_ones(make: Factory) -> None:
    for layers in (LAYERS[::-1], LAYERS[:-1], (*LAYERS[:-1], "other")):
        with pytest.raises(
            ConfigError, match=r"λ must be given for the layers stem, block1\.conv1, .* but the schedule"
        ):
            make("fixed_lambda", schedule=LambdaSchedule.constant(dict.fromkeys(layers, 0.1)))


def test_the_layers_are_those_of_the_network(make: Factory) -> None:
    assert ChannelGroups(make.network()).names == LAYERS
    assert FixedLambda(make.data, make.network(), SETTINGS, 0, schedule=STRONG).schedule is STRONG
