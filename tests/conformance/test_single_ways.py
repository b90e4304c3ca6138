"""What single ways of training must hold besides: where they agree with others, and what they refuse."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from ms_automl.errors import ConfigError
from ms_automl.meta import LambdaSchedule, Objective
from ms_automl.rivals import RIVALS
from ms_automl.sparsity import ChannelGroups
from tests.conformance.ways import (
    CASES,
    LAYERS,
    SETTINGS,
    STREAMS,
    STRONG,
    TARGET,
    Factory,
    constant,
    planned,
    run,
    same,
    state,
)
from trainables import FixedLambda


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
    groups = make.finished(case)[0].loop.sparsifier.groups
    zero = torch.split(groups.norms() == 0, groups.counts)
    norms = make.finished(case)[0].loop.network.trunk
    for stream, norm in (("stem", norms.block2.bn2), ("block5.conv1", norms.block5.bn1)):
        dead = zero[groups.names.index(stream)]
        assert bool((norm.weight[dead] == 0).all()) and bool((norm.bias[dead] == 0).all())
        assert bool((norm.bias[~dead] != 0).any()) or bool(dead.all())


@pytest.mark.parametrize(
    ("changes", "instead"), [({"prox_metric": "adam"}, "euclidean"), ({"grouping": "coupled"}, "input_channel")]
)
def test_what_lambda_cannot_be_learned_for_is_refused(
    changes: dict[str, str], instead: str, make: Factory
) -> None:
    with pytest.raises(ConfigError, match=rf"but got training.*: set .*training\.\w+={instead}"):
        make("meta_sparsity, trade-off", settings=replace(SETTINGS, **changes))


def test_a_trial_may_have_a_metric_of_its_own(make: Factory) -> None:
    own = make("fixed_lambda", prox_metric="adam", **constant(0.3))
    assert run(own) == make.finished("fixed_lambda, adam")[1]
    with pytest.raises(
        ConfigError, match=r"prox_metric=adam is that of Adam's second moment, but got optimizer=sgd"
    ):
        make("fixed_lambda", prox_metric="adam", settings=replace(SETTINGS, optimizer="sgd"))


@pytest.mark.parametrize("rule", [rule for rule, method in RIVALS.items() if method.levelled])
@pytest.mark.parametrize("level", [0.2, 0.44, 0.8])
def test_a_rival_reaches_the_level_that_it_is_told(rule: str, level: float, make: Factory) -> None:
    method = make(f"rival, {rule}", level=level)
    found = run(method)[-1]["sparsity/param"]
    groups = method.loop.sparsifier.groups
    most = (
        1.0 if rule == "l0" else level + float(groups.size.max()) / groups.total + 1e-6
    )  # its gates may close more
    assert level - 1e-9 <= found <= most


def test_a_rival_refuses_what_it_cannot_do(make: Factory) -> None:
    with pytest.raises(ConfigError, match="'hesso' needs a level"):
        make("rival, hesso", level=None)
    with pytest.raises(ConfigError, match=r"`0 <= level < 1` must hold, but got level=1\.5"):
        make("rival, pat", level=1.5)
    with pytest.raises(
        ConfigError, match=r"unknown knob of 'greg' 'dleta': did you mean 'delta'\? Known: delta, "
    ):
        make("rival, greg", dleta=0.1)
    with pytest.raises(ConfigError, match="'iht' acts on groups that do not overlap"):
        make("rival, iht", settings=replace(SETTINGS, grouping="coupled"))


def test_a_pruning_level_of_zero_is_dense_training_bit_for_bit(make: Factory) -> None:
    (dense, reports), free = make.finished("dense"), make("pruned", level=0.0)
    assert run(free) == reports
    assert same(state(free), state(dense))


@pytest.mark.parametrize("case", [case for case in CASES if "pruned" in case or "target" in case])
@pytest.mark.parametrize("level", [0.2, 0.44, 0.8])
def test_a_level_that_is_asked_for_is_reached_and_hardly_passed(case: str, level: float, make: Factory) -> None:
    changes = {"level": level} if "pruned" in case else {"objective": Objective("target", target=level)}
    method = make(case, **changes)
    found = run(method)[-1]["sparsity/param" if "pruned" in case else "sparsity/trunk"]
    groups = method.loop.sparsifier.groups
    assert level - 1e-9 <= found <= level + float(groups.size.max()) / groups.total + 1e-6


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
        ({"learner": "unrolled", "unroll": 0}, r"`unroll >= 1` must hold, but got .*unroll=0"),
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
