"""Intervals, paired differences and what may be said of them."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis.records.frames import rows as to_rows
from analysis.report.tables import paired_table
from analysis.statistics.arms import headline_metric, rivals
from analysis.statistics.curse import curse_table, optimism
from analysis.statistics.intervals import interquartile_mean, interval
from analysis.statistics.paired import Paired, all_pairs, paired, retraining_noise
from analysis.statistics.rungs import rung_table, spearman
from analysis.statistics.verdict import beside, reading, verdict, verdict_of


def rows_of(status="ok", **arms):
    """A row per arm and seed, `arm=[J, …]`; underscores in names are hyphens."""
    return to_rows(
        [
            {"arm": arm.replace("_", "-"), "seed": seed, "status": status, "objective": j, "test_objective": j}
            | {"sparsity_param": 0.5, "sparsity_group": 0.9}
            for arm, values in arms.items()
            for seed, j in enumerate(values)
        ]
    )


def compare(meta, optuna, **more):
    return paired(rows_of(meta=meta, optuna=optuna), "meta", "optuna", "objective", **more)


def test_the_interval_is_students():
    low, high = interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert (low, high) == pytest.approx((3 - 1.96324, 3 + 1.96324), abs=1e-4)
    assert all(math.isnan(bound) for bound in interval(np.array([1.0])))


def test_the_interval_is_that_of_a_worked_example():
    # 'Student' 1908, section IX: ten patients' additional hours of sleep, table I.
    hours = np.array([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])
    assert hours.mean() == pytest.approx(1.58)
    # t(.975, 9) = 2.262157 from the tables; s = 1.2299955
    half = 2.262157 * 1.2299955 / 10**0.5
    assert interval(hours) == pytest.approx((1.58 - half, 1.58 + half), abs=1e-6)


def test_values_that_are_all_alike_have_an_interval_of_no_width():
    assert interval(np.full(5, 1.25)) == (1.25, 1.25)


def test_the_interval_of_a_paired_difference_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    meta, optuna = np.random.default_rng(1).normal(1.5, 0.1, (2, 6))
    result = compare(meta, optuna)
    known = stats.ttest_rel(meta, optuna).confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((known.low, known.high), abs=1e-4)


def coverage(draws, mean):
    """Share of the samples whose interval holds the mean."""
    bounds = [interval(sample) for sample in draws]
    return np.mean([low <= mean <= high for low, high in bounds])


def test_95_percent_intervals_of_5_normal_differences_cover_95_percent():
    draws = np.random.default_rng(4).normal(0.3, 2.0, (20_000, 5))
    assert 0.945 < coverage(draws, 0.3) < 0.955


@pytest.mark.parametrize(
    ("draw", "mean", "stated"),
    [
        (lambda rng, shape: rng.exponential(size=shape), 1.0, 0.882),
        (lambda rng, shape: rng.lognormal(size=shape), math.exp(0.5), 0.822),
        (lambda rng, shape: rng.exponential(size=shape) - rng.exponential(size=shape), 0.0, 0.966),
        (lambda rng, shape: rng.lognormal(size=shape) - rng.lognormal(size=shape), 0.0, 0.974),
    ],
    ids=["exponential", "lognormal", "exponentials apart", "lognormals apart"],
)
def test_skewed_differences_are_covered_as_documented(draw, mean, stated):
    draws = draw(np.random.default_rng(5), (10_000, 5))
    assert coverage(draws, mean) == pytest.approx(stated, abs=0.015)


def test_the_interquartile_mean_ignores_both_ends():
    assert interquartile_mean(pd.Series([0.0, 2.0, 4.0, 100.0])) == 3
    assert interquartile_mean(pd.Series([0.0, math.nan, 2.0, 4.0, 100.0])) == 3
    assert math.isnan(interquartile_mean(pd.Series([1.0, 2.0, 3.0])))


@pytest.mark.parametrize("n", range(4, 13))
def test_the_interquartile_mean_is_scipys(n):
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(n).normal(size=n)
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))


def test_one_seed_claims_nothing():
    assert verdict(compare([1.4], [1.6])).startswith("One seed claims nothing.")


def test_two_to_four_seeds_are_a_hint_at_most():
    words = verdict(compare([1.4, 1.41, 1.4], [1.6, 1.6, 1.61]))
    assert words.startswith("A hint that meta is better.")
    assert "A claim needs 5 seeds" in words


def test_an_interval_around_0_is_not_distinguishable_at_so_many_seeds():
    words = verdict(compare([1.4, 1.6, 1.5], [1.5, 1.5, 1.5]))
    assert words.startswith("meta and optuna are not distinguishable at 3 seeds. ")


@pytest.mark.parametrize(
    ("shift", "spread", "words"),
    [
        (-0.1, 0.01, "meta is better"),
        (0.1, 0.01, "optuna is better"),
        (0.0, 0.01, "meta is no worse (margin 0.02)"),
        (0.03, 0.06, "not distinguishable at 5 seeds"),
        (0.015, 0.02, "optuna is no worse (margin 0.02)"),
        (0.0, 0.2, "not distinguishable at 5 seeds"),
    ],
)
def test_with_five_seeds_the_reading_follows_the_interval(shift, spread, words):
    meta = [1.5 + shift + spread * step for step in (-1, -0.5, 0, 0.5, 1)]
    assert reading(compare(meta, [1.5] * 5)) == words


def test_of_pairs_without_a_difference_one_in_twenty_reads_as_better():
    differences = np.random.default_rng(6).normal(0, 0.1, (4_000, 5))
    bounds = [interval(difference) for difference in differences]
    results = [Paired("a", "b", "objective", tuple(range(5)), 0, 0, 0, 0, low, high) for low, high in bounds]
    assert np.mean([reading(result).endswith("is better") for result in results]) == pytest.approx(0.05, abs=0.012)


def test_wins_ties_and_losses_leave_small_differences_undecided():
    result = compare([1.40, 1.49, 1.51, 1.60, 1.48], [1.5] * 5)
    assert (result.wins, result.ties, result.losses) == (1, 3, 1)
    assert paired_table([result])["Win, tie, loss"].tolist() == ["1, 3, 1"]


def test_the_iqm_of_the_differences_ignores_an_outlier():
    assert compare([1.4, 1.4, 1.4, 1.4, 9.0], [1.5] * 5).iqm == pytest.approx(-0.1)


def test_seeds_without_a_valid_result_in_both_are_left_out_and_counted():
    result = compare([1.4, math.nan, 1.5], [1.5, 1.6, 1.7])
    assert result.seeds == (0, 2)
    assert result.left_out == 1


def test_partial_results_and_results_below_the_target_do_not_count():
    assert paired(rows_of("partial", meta=[1.4], optuna=[1.5]), "meta", "optuna", "objective").seeds == ()
    assert compare([1.4], [1.5], target=0.6).seeds == ()  # of the parameters; of the groups 90 % are zero
    assert compare([1.4], [1.5], target=0.5).seeds == (0,)


def test_the_rivals_are_fixed_beforehand():
    assert rivals(rows_of(meta=[1.0], random=[0.1], optuna=[1.0])) == ("meta", "optuna")
    assert rivals(rows_of(meta=[1.0])) is None
    assert verdict_of(rows_of(meta=[1.0])).startswith("No verdict")


def test_the_headline_is_the_retrained_test_j_where_at_least_half_have_it():
    rows = rows_of(dense=[2.0] * 4, meta=[1.5] * 4)
    assert headline_metric(rows) == "test_objective"
    rows.loc[4:5, "retrained_test_objective"] = 1.6
    assert headline_metric(rows) == "retrained_test_objective"
    rows.loc[5, "retrained_test_objective"] = math.nan
    assert headline_metric(rows) == "test_objective"
    rows["test_objective"] = math.nan
    assert headline_metric(rows) == "objective"


def test_the_verdict_says_which_j_it_speaks_of():
    rows = rows_of(meta=[1.5] * 5, optuna=[1.5] * 5)
    rows["retrained_test_objective"] = [1.3, 1.31, 1.32, 1.33, 1.34, *[1.5] * 5]
    assert verdict_of(rows).startswith("meta is better. The mean paired difference in test J, retrained, ")


def test_what_the_verdict_leaves_out_stands_beside_it():
    words = beside(rows_of(meta=[1.5] * 5, optuna=[1.6] * 5, prune_taylor=[1.3, 1.31, 1.32, 1.33, 1.34]))
    assert "Against prune-taylor, which needs no λ: prune-taylor is better" in words
    assert "lowest mean is prune-taylor's, 1.320; picked afterwards, so no claim." in words


def test_every_learned_arm_is_paired_with_every_other_one_but_dense():
    pairs = all_pairs(rows_of(dense=[2.0], meta_search=[1.0], meta=[1.0], optuna=[1.0], random=[1.0]))
    assert [(pair.left, pair.right) for pair in pairs] == [
        ("meta", "optuna"), ("meta", "random"), ("meta-search", "optuna"), ("meta-search", "random")
    ]  # fmt: skip
    assert paired_table(pairs).empty  # one seed


def test_the_noise_of_training_is_pooled_over_models():
    rows = rows_of(meta=[1.5, 1.5])
    values = [[1.0, 2.0, 3.0], [5.0, 5.0]]  # variances 1 and 0, of 2 degrees of freedom and 1
    rows["retrained"] = [[{"test_objective": value} for value in row] for row in values]
    assert retraining_noise(rows) == pytest.approx(math.sqrt(2 / 3))
    assert math.isnan(retraining_noise(rows_of(meta=[1.5])))


def test_the_winners_curse_is_found_where_it_was_put():
    """The best of 16 of equal quality looks better on validation than it is; the mean of all doesn't."""
    rng = np.random.default_rng(7)
    trials, records = [], []
    for seed in range(200):
        val, test = rng.normal(1.5, 0.1, 16), rng.normal(1.5, 0.1, 16)
        best = int(val.argmin())
        records.append({"arm": "random", "seed": seed, "status": "ok", "trials": 16})
        records[-1] |= {"objective": val[best], "test_objective": test[best]}
        frame = pd.DataFrame({"val/objective": val, "test/objective": test, "status": "FINISHED", "outcome": ""})
        trials.append(frame.assign(arm="random", seed=seed))
    frame = optimism(to_rows(records), pd.concat(trials, ignore_index=True))
    assert frame["test"].mean() == pytest.approx(-0.1766, abs=0.02)  # the expected least of 16 normals is -1.766 σ
    assert frame["all_trials"].mean() == pytest.approx(0, abs=0.01)
    assert "Validation J − retrained test J" not in curse_table(frame)


def test_without_test_j_there_is_no_curse_to_show():
    rows = rows_of(meta=[1.5])
    rows["test_objective"] = math.nan
    assert curse_table(optimism(rows, pd.DataFrame())).empty


def test_spearman_agrees_with_scipy_with_ties_and_gaps():
    stats = pytest.importorskip("scipy.stats")
    left = pd.Series([1.0, 2.0, 2.0, 5.0, math.nan, 3.0])
    right = pd.Series([2.0, 1.0, 4.0, 9.0, 7.0, 4.0])
    known = stats.spearmanr(left, right, nan_policy="omit").statistic
    assert spearman(left, right) == pytest.approx(known)
    assert math.isnan(spearman(left, pd.Series([1.0] * 6)))


def test_rungs_are_ranked_within_a_seed_and_among_whole_trials_only():
    frame = pd.DataFrame(
        {
            "arm": "optuna-asha",
            "seed": [0, 0, 0, 0, 1, 1, 1],
            "rung/objective": [1.0, 2.0, 3.0, 0.0, 11.0, 12.0, 13.0],
            "val/objective": [0.1, 0.2, 0.3, 9.0, 0.03, 0.02, 0.01],
            "status": "FINISHED",
            "outcome": ["", "", "", "stopped", "", "", ""],
        }
    )
    line = rung_table(frame).iloc[0]
    assert line["Lowest and highest seed"] == "−1.00, +1.00"
    assert line["Stopped trials"] == "1"
    assert rung_table(frame.drop(columns="rung/objective")).empty
