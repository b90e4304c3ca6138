"""No setting in the documented range ends in a dead network, NaN or λ at its bound without a word about it."""

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from ms_automl.errors import ConfigError, DivergenceError
from ms_automl.meta import LambdaSchedule, Objective
from ms_automl.meta.learners import LEARNERS
from tests.conformance.ways import REFERENCE, SETTINGS, TARGET, Factory, run

SHORT = replace(SETTINGS, batch_size=4)
WIDE = (1e-6, 1e6)
FREE = Objective("tradeoff", price=0.0)
DEAR = Objective("tradeoff", price=1e6)
EXTREMES: dict[str, dict[str, Any]] = {
    "wide bounds": {"bounds": WIDE},
    "wide bounds, no price": {"bounds": WIDE, "objective": FREE},
    "wide bounds, a huge price": {"bounds": WIDE, "objective": DEAR},
    "tiny λ, a huge price": {"bounds": (1e-6, 1e-5), "objective": DEAR},
    "huge λ": {"bounds": (1e4, 1e6)},
    "absurd bounds": {"bounds": (1e-30, 1e30), "objective": DEAR, "lambda_lr": 10.0},
    "λ leaps": {"lambda_lr": 10.0},
    "λ leaps, wide bounds, a huge price": {"lambda_lr": 10.0, "bounds": WIDE, "objective": DEAR},
    "λ leaps, normalised": {"lambda_lr": 10.0, "lambda_optimizer": "normalised"},
    "no memory": {"decay": 0.0, "lambda_lr": 10.0},
    "endless memory": {"decay": 1.0, "bounds": WIDE},
    "no warm-up": {"warmup": 0.0, "bounds": WIDE},
    "warm-up to the end": {"warmup": 1.0, "bounds": WIDE},
    "at every step": {"every": 1, "objective": DEAR},
    "once": {"every": 1000},
    "no rest": {"rest": 0.0, "bounds": WIDE},
    "all the rest": {"rest": 1.0, "bounds": WIDE},
    "a tiny guess and no doubt": {"guess": 1e-9, "doubt": 1e-9},
    "a huge guess without doubt": {"guess": 1e9, "doubt": 1e9},
    "a tiny guess without doubt": {"guess": 1e-9, "doubt": 1e9, "objective": DEAR},
}
ASKED = {
    "nearly all": {"objective": Objective("target", target=0.94)},  # all but a group of each layer
    "nearly nothing": {"objective": Objective("target", target=0.001)},
    "by a tiny λ": {"objective": TARGET, "bounds": (1e-9, 1e-8)},
    "beside a huge rest": {"objective": TARGET, "bounds": (1e4, 1e6), "rest": 1.0},
}


def check(method: Any, bounds: tuple[float, float]) -> None:
    """Run it; what went wrong must be an error of one line, or be said in its warnings."""
    try:
        reports = run(method)
    except DivergenceError as error:
        assert "not finite" in str(error)
        assert "\n" not in str(error)
        return
    assert all(math.isfinite(value) for report in reports for value in report.values())
    assert all(bool(torch.isfinite(weight).all()) for weight in method.loop.network.state_dict().values())
    last, said = reports[-1], " | ".join(method.warnings)
    ratio = REFERENCE.relative({name: last[f"val/{name}/loss"] for name in REFERENCE.losses})
    assert (1 - last["sparsity/param"] < 0.02) == ("all but gone" in said)
    assert (ratio > 2) == ("validation loss is" in said)
    for word, bound in zip(("lower", "upper"), bounds, strict=True):
        if any(math.isclose(value, bound, rel_tol=1e-4) for value in method.learner.lambdas().tolist()):
            assert f"{word} bound {bound:g}" in said
    assert max(method.learner.lambdas().tolist()) <= bounds[1] * (1 + 1e-4)
    knots = method.schedule
    assert LambdaSchedule.from_dict(knots.to_dict()) == knots


def takes(learner: str, setting: str) -> bool:
    """Whether a learner has the settings of an extreme."""
    own = {field.name for field in fields(LEARNERS[learner].settings)}
    return EXTREMES[setting].keys() <= own | {"bounds", "objective"}


@pytest.mark.parametrize(
    ("learner", "setting"),
    [
        (learner, setting)
        for learner in ("waterfill", "removal", "forward", "one_step", "unrolled")
        for setting in EXTREMES
        if takes(learner, setting)
    ],
)
def test_a_run_at_an_extreme_ends_well_or_says_what_is_wrong(learner: str, setting: str, make: Factory) -> None:
    changes = {"bounds": (0.5, 50.0)} | EXTREMES[setting]
    if learner == "waterfill" and changes.get("decay") == 1:
        with pytest.raises(ConfigError, match="`0 <= decay < 1` must hold, but got decay=1"):
            make("meta_sparsity, trade-off", settings=SHORT, learner=learner, **changes)
        return
    check(make("meta_sparsity, trade-off", settings=SHORT, learner=learner, **changes), changes["bounds"])


@pytest.mark.parametrize("setting", ASKED)
def test_a_target_at_an_extreme_is_reached_or_it_is_said_why_not(setting: str, make: Factory) -> None:
    changes = {"bounds": (0.5, 50.0)} | ASKED[setting]
    method = make("meta_sparsity, target", settings=SHORT, **changes)
    check(method, changes["bounds"])
    groups = method.loop.sparsifier.groups
    needed = groups.size[groups.strongest(groups.norms())].sum()  # what lets the signal pass stays
    zero = groups.size[groups.norms() == 0].sum()
    assert zero >= min(changes["objective"].target * groups.total, groups.total - needed) * (1 - 1e-6)
