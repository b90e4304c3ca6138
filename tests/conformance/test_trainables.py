"""What every way of training must hold, over the whole table."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ms_automl.data import MultiTaskData, TensorSplit
from ms_automl.meta.hypergradients import ESTIMATORS
from ms_automl.meta.learners import LEARNERS
from ms_automl.storage.tensors import load, save
from tests.conformance.ways import (
    CASES,
    DENSE,
    LAYERS,
    SETTINGS,
    Factory,
    layers_of,
    planned,
    run,
    same,
    settings_of,
    state,
)
from trainables import METHODS, MetaSparsity, Transfer

each_case = pytest.mark.parametrize("case", CASES)
each_sparse_case = pytest.mark.parametrize("case", [case for case in CASES if case not in DENSE])


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
    sparsifier = kept["loop"]["sparsifier"]
    rule = {key: value for key, value in sparsifier["rule"].items() if key != "optimizer"}
    return repr(
        {key: value for key, value in kept.items() if key != "loop"} | {"sparsifier": sparsifier | {"rule": rule}}
    )


@each_case
def test_a_rules_state_is_a_copy_that_neither_the_run_nor_its_twin_changes(case: str, make: Factory) -> None:
    method, twin = make(case), make(case)
    method.step()
    kept = method.state_dict()
    before = rule_state(kept)
    twin.load_state_dict(kept)
    method.step(), twin.step()
    assert rule_state(kept) == before


@pytest.mark.parametrize(
    "case", ["dense", "fixed_lambda", "meta_sparsity, trade-off", "pruned", "transfer, frozen"]
)
def test_a_run_goes_on_from_a_state_of_before_there_was_a_sparsifier(case: str, make: Factory) -> None:
    _, reports = make.finished(case)
    first, again = make(case), make(case)
    first.step()
    whole = first.state_dict()
    loop = {key: value for key, value in whole["loop"].items() if key != "sparsifier"}
    kept = whole["loop"]["sparsifier"]
    beside = {"learner": kept["rule"]} if case == "meta_sparsity, trade-off" else kept["rule"]
    again.load_state_dict(whole | beside | {"loop": loop | {"pattern": kept["pattern"]}})
    assert run(again) == reports[1:]


@each_case
def test_a_seed_fixes_a_run_whatever_labels_are_held_back_and_another_seed_changes_it(
    case: str, make: Factory
) -> None:
    """λ, pattern and weights alike: a method that looked at a label of the held-back task would end elsewhere."""
    first, reports = make.finished(case)
    seen = case.startswith("transfer")  # by these it is learned
    again = make(case, data=make.data if seen else relabelled(make.data, "bright", 7.5))
    other = make(case, seed=4)
    assert run(again) == reports
    assert same(state(again), state(first))
    assert run(other) != reports
    assert not same(state(other), state(first))


@each_case
def test_a_run_costs_what_was_planned(case: str, make: Factory) -> None:
    method, _ = make.finished(case)
    expected = settings_of(case).cost(make.data, probes=6 if case == "dense, probed" else 0)
    if isinstance(method, Transfer):
        asked = CASES[case][1]
        remembers, shots = asked.get("remembers", False), asked.get("shots", 18)  # 18 of 24 have a label
        expected = Transfer.planned_cost(
            make.data, SETTINGS, mode=asked["mode"], samples=shots, remembers=remembers
        )
    if CASES[case][0] == "single_task":
        expected = SETTINGS.cost(make.data).times(2)  # its networks have a task each
    if isinstance(method, MetaSparsity):
        expected = planned(case, make.data)
        assert (expected.outer > 0) == (CASES[case][1]["learning"].learner in ESTIMATORS)
    if case == "mtml, pcgrad":  # an episode of one task has no second backward
        assert SETTINGS.cost(make.data).forward < method.cost.forward < expected.forward
        expected = replace(expected, forward=method.cost.forward)
    assert method.cost == expected


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
    zero = method.loop.sparsifier.groups.norms() == 0
    assert 0 < report["sparsity/param"] < 1
    share = method.loop.sparsifier.groups.share
    assert report["sparsity/trunk"] == pytest.approx(share * report["sparsity/param"])
    assert report["density"] == pytest.approx(1 - report["sparsity/trunk"])
    before = state(method)
    while not method.done:
        late = method.step()
        assert torch.equal(method.loop.sparsifier.groups.norms() == 0, zero)
        assert late["sparsity/param"] == report["sparsity/param"]
    assert not same(before, state(method))
    groups = method.loop.sparsifier.groups
    for alive, weight in zip(groups.per_weight((~zero).float()), groups.weights, strict=True):
        assert bool((weight[(alive == 0).expand_as(weight)] == 0).all())


@each_sparse_case
def test_a_layer_without_a_skip_keeps_a_group(case: str, make: Factory) -> None:
    method, reports = make.finished(case)
    needed = [name for name in layers_of(case) if ".conv" not in name]
    bare = {name.removeprefix("of_task.depth.").removeprefix("of_task.kind.") for name in needed}
    assert bare == ({"stem"} if "coupled" in case else {"stem", "block3.shortcut"})
    for name in [*needed, "block3.conv2"] if "coupled" in case else needed:
        assert reports[-1][f"sparsity/layer/{name}"] < 1
    holders = LAYERS if "coupled" in case else layers_of(case)
    kept = [
        weight
        for name, weight in zip(holders, method.loop.sparsifier.groups.weights, strict=True)
        if ".conv" not in name
    ]
    assert all(bool((weight != 0).any()) for weight in kept)


@pytest.mark.parametrize("case", DENSE)
def test_a_way_without_sparsity_ends_without_a_zero(case: str, make: Factory) -> None:
    _, reports = make.finished(case)
    assert reports[-1]["density"] == 1.0
    assert ({report["density"] for report in reports} == {1.0}) == (
        case != "rival, dsd"
    )  # which has zeros on its way


@each_case
def test_reports_are_finite_and_named_as_the_records_are(case: str, make: Factory) -> None:
    method, reports = make.finished(case)
    layers = layers_of(case)
    assert method.loop.sparsifier.groups.names == layers
    names = {"step", "density", "sparsity/group", "sparsity/param", "sparsity/trunk"}
    names |= {f"sparsity/layer/{layer}" for layer in layers}
    names |= {f"val/depth/{name}" for name in ("loss", "abs_error", "rel_error")}
    names |= {"val/kind/loss", "val/kind/accuracy"}
    if CASES[case][0] == "single_task":
        names |= {"networks"}
    if CASES[case][0] == "transfer":
        names = names - {name for name in names if name.startswith("val/") and "joint" not in case}
        names |= {"labels"} | {f"val/bright/{name}" for name in ("loss", "f1", "accuracy")}
    if CASES[case][0] == "meta_sparsity" or {"schedule", "lambda_"} & CASES[case][1].keys():
        names |= {f"lambda/{layer}" for layer in layers}
    if case == "dense, probed":
        names |= {"val/depth/constant", "val/kind/constant", "bounds/step", "bounds/shrink"}
    tested = {name.replace("val/", "test/") for name in names if name.startswith("val/")}
    if case == "dense, probed":
        tested |= {f"{split}/{task}/loss_error" for split in ("val", "test") for task in ("depth", "kind")}
    if "remembers" in CASES[case][1]:
        tested |= {f"old/{name}" for name in ("delta_m", "depth/loss", "depth/abs_error", "depth/rel_error")}
        tested |= {f"old/kind/{name}" for name in ("loss", "accuracy")}
    if "micro-batches" in case:
        names |= {"micro_batch"}
    probes = {"probe/depth/loss", "probe/kind/loss"}
    probed = {"dense, probed": 6}.get(case, 3 if CASES[case][0] == "meta_sparsity" else 0)
    for index, report in enumerate(reports):
        assert set(report) == names | (probes if index < probed else set()) | (tested if index == 5 else set())
    assert [report["step"] for report in reports] == [3, 6, 9, 12, 15, 16]
    for report in reports:
        assert all(isinstance(value, float) and math.isfinite(value) for value in report.values())


def relabelled(data: MultiTaskData, task: str, value: float) -> MultiTaskData:
    """The same data with another value in the place of every label of a task."""
    splits = {}
    for name, split in data.splits.items():
        assert isinstance(split, TensorSplit)
        targets = split.targets | {task: torch.full_like(split.targets[task], value)}
        splits[name] = TensorSplit(split.images, targets, split.valid | {task: ~split.valid[task]})
    return replace(data, **splits)
