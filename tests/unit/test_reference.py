import math

import pytest

from ms_automl.comparison.judge import reference_lines
from ms_automl.errors import ConfigError
from ms_automl.meta import Objective
from ms_automl.meta.level import PricedLevel
from ms_automl.meta.reference import FLOOR, Reference, learned
from ms_automl.meta.step import Evaluation
from ms_automl.tasks import binary, depth

LOSSES = {"a": 0.4, "b": 1.0}
CONSTANTS = {"a": 2.4, "b": 2.0}
COURSE = [(10, {"a": 1.4, "b": 1.5}), (20, {"a": 0.4, "b": 1.0})]
MODELS = [{"a": 0.5, "b": 1.1}, {"a": 0.4, "b": 1.4}, {"a": 0.9, "b": 0.9}, {"a": 2.4, "b": 2.0}]


def reference(scale: str, factor: float = 1.0, shift: float = 0.0) -> Reference:
    """The one above, with the losses of task a in another unit."""
    course = [(step, moved(losses, factor, shift)) for step, losses in COURSE]
    return Reference(moved(LOSSES, factor, shift), course, moved(CONSTANTS, factor, shift), scale)  # type: ignore[arg-type]


def moved(losses: dict[str, float], factor: float, shift: float) -> dict[str, float]:
    return {"a": factor * losses["a"] + shift, "b": losses["b"]}


def test_skill_is_the_share_that_is_lost_of_what_dense_has_learned() -> None:
    skill = reference("skill")
    assert skill.relative(LOSSES) == 1
    assert skill.relative(CONSTANTS) == pytest.approx(2)
    assert skill.relative({"a": 0.9, "b": 1.1}) == pytest.approx(1 + (0.5 / 2 + 0.1) / 2)


@pytest.mark.parametrize("factor", [0.03, 1000.0, 1e-6])
@pytest.mark.parametrize("scale", ["ratio", "skill"])
def test_neither_scale_asks_in_which_unit_a_loss_is(scale: str, factor: float) -> None:
    for model in MODELS:
        expected = reference(scale).relative(model)
        assert reference(scale, factor).relative(moved(model, factor, 0)) == pytest.approx(expected)
        expected = reference(scale).rise(10, model)
        assert reference(scale, factor).rise(10, moved(model, factor, 0)) == pytest.approx(expected)


@pytest.mark.parametrize("shift", [-2.38, 0.7, -0.4])
def test_skill_asks_not_where_a_loss_has_its_zero(shift: float) -> None:
    for model in MODELS:
        expected = reference("skill").relative(model)
        assert reference("skill", 1, shift).relative(moved(model, 1, shift)) == pytest.approx(expected)
        expected = reference("skill").rise(10, model)
        assert reference("skill", 1, shift).rise(10, moved(model, 1, shift)) == pytest.approx(expected)


def test_the_level_that_is_learned_is_the_same_in_every_unit() -> None:
    def level(scale: str, factor: float, shift: float) -> float:
        priced = PricedLevel(1.0, reference(scale, factor, shift))
        priced.observe(Evaluation(10, 0.5, moved({"a": 1.6, "b": 1.7}, factor, shift), 0.4))
        return priced.share

    assert level("ratio", 0.03, 0) == pytest.approx(level("ratio", 1, 0))
    assert level("skill", 0.03, -2.38) == pytest.approx(level("skill", 1, 0))
    assert level("skill", 1, 0) != pytest.approx(level("ratio", 1, 0))


def test_far_below_the_constant_prediction_a_ratio_has_the_slope_of_its_floor() -> None:
    near_zero = Reference({"a": 1e-6}, constants={"a": 2.0})
    assert near_zero.relative({"a": 1e-6}) == 1
    assert near_zero.relative({"a": 1e-6 + FLOOR * 2.0}) == pytest.approx(2)
    above = Reference({"a": 0.4}, constants={"a": 2.0})
    assert above.relative({"a": 0.6}) == 0.6 / 0.4


def test_without_a_measured_constant_the_floor_is_that_of_earlier_versions() -> None:
    assert Reference({"a": 1e-6}).relative({"a": 0.02}) == 0.02 / 0.01


def test_a_task_that_dense_has_not_learned_has_no_part_in_skill() -> None:
    half = Reference(LOSSES, (), CONSTANTS, "skill", ("b",))
    assert half.relative({"a": 0.9, "b": 77.0}) == pytest.approx(1 + 0.5 / 2)
    nothing = Reference(LOSSES, (), CONSTANTS, "skill", ("a", "b"))
    assert "no better than a constant prediction on any task" in str(nothing.trouble)
    assert half.trouble is None


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e-13, 1e-30, 1e30])
@pytest.mark.parametrize("scale", ["ratio", "skill"])
def test_a_loss_may_be_as_small_as_numbers_are(scale: str, unit: float) -> None:
    found = Reference({"a": 0.5 * unit}, (), {"a": 3 * unit}, scale).relative({"a": unit})  # type: ignore[arg-type]
    assert found == pytest.approx({"ratio": 2.0, "skill": 1.2}[scale])


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_on_a_split_on_which_dense_has_learned_nothing_skill_says_nothing(unit: float) -> None:
    metrics = {"val/a/loss": 0.8, "val/a/loss_error": 0.01, "val/a/constant": 1.0}
    metrics |= {"test/a/loss": 0.8, "test/a/loss_error": 0.01, "test/a/constant": 0.79}
    metrics |= {f"{split}/b/{name}": value for split in ("val", "test") for name, value in
                {"loss": 1.0, "loss_error": 0.1, "constant": 2.0}.items()}  # fmt: skip
    metrics = {name: unit * value for name, value in metrics.items()}
    alone = Reference.of(metrics, ["a"], "test", scale="skill")
    assert math.isnan(alone.relative({"a": 0.9 * unit}))
    assert Reference.of(metrics, ["a"], "val", scale="skill").relative({"a": 0.9 * unit}) == pytest.approx(1.5)
    both = Reference.of(metrics, ["a", "b"], "test", scale="skill")
    assert both.unlearned == {"a"}
    assert both.relative({"a": 77.0, "b": 1.5 * unit}) == pytest.approx(1.5)
    lines = reference_lines([depth("a"), depth("b")], {0: metrics | {
        f"test/{task}/{name}": 1.0 for task in "ab" for name in ("abs_error", "rel_error")}})  # fmt: skip
    assert lines == [
        "a: dense is no better than a constant prediction on the test split (seed 0), so what sparsity does to "
        "this task says nothing"
    ]


def test_a_metric_of_which_dense_has_0_is_named() -> None:
    metrics = {f"{split}/a/{name}": value for split in ("val", "test") for name, value in
               {"loss": 1.0, "loss_error": 0.1, "constant": 2.0, "accuracy": 0.9, "f1": 0.0}.items()}  # fmt: skip
    assert reference_lines([binary("a")], {0: metrics, 3: metrics}) == [
        "a/f1: dense has 0 on the test split (seed 0, 3), so Δm, a relative change, leaves it out"
    ]


def test_a_ratio_to_a_negative_loss_is_refused_naming_the_task_and_the_remedy() -> None:
    negative = Reference({"a": -2.38, "b": 1.0}, (), {"a": -1.0, "b": 2.0})
    assert negative.trouble == (
        "a ratio to a dense loss that is not above 0 means nothing: task 'a' (-2.38); set objective.scale=skill"
    )
    assert Reference({"a": -2.38, "b": 1.0}, (), {"a": -1.0, "b": 2.0}, "skill").trouble is None


def test_early_on_a_rise_is_measured_by_half_of_what_dense_learns_in_the_end() -> None:
    early = Reference({"a": 0.4}, [(1, {"a": 2.39})], {"a": 2.4}, "skill")
    assert early.rise(1, {"a": 2.49}) == pytest.approx(0.1 / (0.5 * 2.0))


def test_skill_without_constants_is_refused() -> None:
    with pytest.raises(ConfigError, match="give `constants`"):
        Reference({"a": 1.0}, scale="skill")


@pytest.mark.parametrize(
    ("loss", "error", "expected"),
    [(1.0, 0.1, True), (1.9, 0.1, False), (1.79, 0.1, True), (2.3, 0.0, False), (2.0, 0.0, False)],
)
def test_a_task_is_learned_where_dense_is_better_than_the_constant_by_two_standard_errors(
    loss: float, error: float, expected: bool
) -> None:
    metrics = {"val/a/loss": loss, "val/a/constant": 2.0, "val/a/loss_error": error}
    assert learned(metrics, "a") is expected


def test_of_a_dense_trial_of_an_earlier_version_only_the_losses_are_known() -> None:
    old = Reference.of({"val/a/loss": 0.5, "test/a/loss": 0.6}, ["a"], "test")
    assert old == Reference({"a": 0.6})
    metrics = {"val/a/loss": 0.5, "test/a/loss": 0.6, "val/a/constant": 0.4, "test/a/constant": 0.45}
    new = Reference.of(metrics, ["a"], "test", scale="skill")
    assert new == Reference({"a": 0.6}, (), {"a": 0.45}, "skill", frozenset({"a"}))


def test_j_is_one_and_the_price_for_dense_in_either_scale() -> None:
    for scale in ("ratio", "skill"):
        assert Objective("tradeoff", 0.4, scale=scale).value(LOSSES, reference(scale), 1.0) == pytest.approx(1.4)  # type: ignore[arg-type]
