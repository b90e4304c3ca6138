import math
from collections.abc import Callable

import pytest

from ms_automl.errors import ConfigError
from ms_automl.meta import Objective, Reference
from ms_automl.meta.learners import of_penalised
from ms_automl.meta.objective import delta_m, without_change
from ms_automl.sparsity import Groups
from ms_automl.tasks import binary, depth, segmentation

LOSSES, REFERENCES = {"a": 1.5, "b": 0.3}, Reference({"a": 1.0, "b": 0.2})


def test_the_trade_off_adds_priced_density_to_the_mean_relative_loss() -> None:
    objective = Objective("tradeoff", price=0.4)
    assert objective.value(LOSSES, REFERENCES, density=0.5) == pytest.approx(1.5 + 0.2)
    assert objective.value(REFERENCES.losses, REFERENCES, density=1.0) == pytest.approx(1.4)
    assert objective.violation(1.0) <= 0


def test_the_target_leaves_density_to_the_constraint() -> None:
    objective = Objective("target", target=0.44)
    assert objective.value(LOSSES, REFERENCES, density=0.1) == pytest.approx(1.5)
    assert objective.violation(0.6) == pytest.approx(0.04)
    assert objective.violation(0.5) < 0


SHARES = {"sparsity/trunk": 0.3, "sparsity/param": 0.6, "density": 0.1}


def test_density_is_a_share_of_all_weights_or_of_the_penalised_ones_as_in_earlier_versions() -> None:
    assert Objective().density(SHARES) == pytest.approx(0.7)
    assert Objective(cost="penalised_weights").density(SHARES) == pytest.approx(0.4)
    with pytest.raises(ConfigError, match=r"unknown objective\.cost 'kilograms'"):
        Objective(cost="kilograms")  # type: ignore[arg-type]


@pytest.mark.parametrize("price", [0.0, 0.3, 2.0])
def test_asked_of_the_penalised_weights_a_trade_off_differs_by_a_constant_alone(
    price: float, some: Groups
) -> None:
    objective = Objective(price=price)
    asked = of_penalised(objective, some)
    differences = set()
    for zeros in (0.0, 0.25, 1.0):
        metrics = {"sparsity/param": zeros, "sparsity/trunk": some.share * zeros}
        values = [each.value(LOSSES, REFERENCES, each.density(metrics)) for each in (objective, asked)]
        differences.add(round(values[0] - values[1], 12))
    assert len(differences) == 1
    assert of_penalised(asked, some) == asked  # it is asked of them already


def test_asked_of_the_penalised_weights_a_target_is_met_by_the_same_models(some: Groups) -> None:
    objective = Objective("target", target=0.2)
    asked = of_penalised(objective, some)
    for zeros in (0.1, 0.39, 0.41, 0.9):
        metrics = {"sparsity/param": zeros, "sparsity/trunk": some.share * zeros}
        met = [each.violation(each.density(metrics)) <= 0 for each in (objective, asked)]
        assert met[0] == met[1] == (zeros > 0.4)


def test_a_target_beyond_what_can_go_to_zero_is_refused_with_what_can(some: Groups) -> None:
    some.left_out = {"stem": "it is frozen"}
    with pytest.raises(ConfigError, match=r"`target <= 0\.\d+` must hold, .* target=0\.45: .* 50 % of .*stem"):
        of_penalised(Objective("target", target=0.45), some)
    of_penalised(Objective("target", target=0.45, cost="penalised_weights"), some)


@pytest.fixture
def some(make_groups: Callable[..., Groups]) -> Groups:
    groups = make_groups([(2, 4, 3), (2, 1, 1)])
    groups.share = 0.5
    return groups


def test_a_reference_near_zero_does_not_make_the_objective_explode() -> None:
    assert Objective(price=0).value({"a": 0.02}, Reference({"a": 1e-12}), 1.0) == pytest.approx(2.0)


def test_a_reference_in_another_scale_is_refused() -> None:
    other = Reference({"a": 1.0}, constants={"a": 2.0}, scale="skill")
    with pytest.raises(ConfigError, match="J is measured by 'ratio', but its reference by 'skill'"):
        Objective().value({"a": 1.0}, other, 1.0)


@pytest.mark.parametrize(
    "bad", [{"price": -0.1}, {"price": math.inf}, {"price": math.nan}, {"target": 0.0}, {"target": 1.0}]
)
def test_a_price_or_target_out_of_range_is_refused_with_its_value(bad: dict[str, float]) -> None:
    ((name, value),) = bad.items()
    with pytest.raises(ConfigError, match=f"must hold, but got {name}={value}"):
        Objective(**bad)  # type: ignore[arg-type]


def test_delta_m_is_the_hand_worked_number() -> None:
    tasks = [segmentation("seg", 3), depth("depth")]
    reference = {"seg/miou": 0.5, "seg/pixel_accuracy": 0.8, "depth/abs_error": 0.2, "depth/rel_error": 0.1}
    values = {"seg/miou": 0.6, "seg/pixel_accuracy": 0.76, "depth/abs_error": 0.25, "depth/rel_error": 0.08}
    # seg: (+20 % - 5 %) / 2 = 7.5 %; depth, lower is better: (-25 % + 20 %) / 2 = -2.5 %
    assert delta_m(tasks, values, reference) == pytest.approx((7.5 - 2.5) / 2)
    assert delta_m(tasks, reference, reference) == 0


def test_a_metric_whose_reference_is_0_is_left_out_of_delta_m_and_named() -> None:
    tasks = [binary("large")]
    reference, values = {"large/accuracy": 0.8, "large/f1": 0.0}, {"large/accuracy": 0.9, "large/f1": 0.1}
    assert delta_m(tasks, values, reference) == pytest.approx(12.5)
    assert without_change(tasks, reference) == ["large/f1"]
    assert delta_m([*tasks, depth("d")], values | {"d/abs_error": 1.0, "d/rel_error": 1.0},
                   reference | {"d/abs_error": 0.0, "d/rel_error": 0.0}) == pytest.approx(12.5)  # fmt: skip
    assert math.isnan(delta_m(tasks, values, {"large/accuracy": 0.0, "large/f1": 0.0}))
