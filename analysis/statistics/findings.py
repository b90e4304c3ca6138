"""Everything the report shows, worked out once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from analysis.records.comparison import ComparisonRecord
from analysis.statistics.anytime import from_target_on, with_seconds
from analysis.statistics.arms import METRICS, headline_metric, rivals
from analysis.statistics.cost_to_match import cost_to_match, trial_passes
from analysis.statistics.costs import cost_breakdown, cost_table
from analysis.statistics.curse import optimism
from analysis.statistics.layers import lambda_study, layer_order, pattern
from analysis.statistics.matched_sparsity import levels, matched
from analysis.statistics.paired import Paired, all_pairs, retraining_noise
from analysis.statistics.pareto import hypervolumes
from analysis.statistics.per_arm import comparison_table
from analysis.statistics.per_task import task_changes, task_table
from analysis.statistics.rungs import rung_table
from analysis.statistics.trials import searched, selected
from analysis.statistics.verdict import beside, verdict_of


@dataclass(frozen=True)
class Findings:
    """A comparison and what follows from it; each finding is worked out when it is first asked for."""

    comparison: ComparisonRecord

    @cached_property
    def target(self) -> float | None:
        """The sparsity that the `target` objective asks for, in [0, 1]."""
        objective = self.comparison.config.get("objective", {})
        return float(objective["target"]) if objective.get("kind") == "target" else None

    @cached_property
    def scale(self) -> str:
        """How J relates losses to dense's; records from before there was a choice have ratios."""
        return str(self.comparison.config.get("objective", {}).get("scale", "ratio"))

    @cached_property
    def of(self) -> str:
        """What density and sparsity are shares of; of penalised weights before there was a choice."""
        cost = self.comparison.config.get("objective", {}).get("cost", "penalised_weights")
        return "weights of the trunk" if cost == "weights" else "trunk weights that λ acts on"

    @cached_property
    def price(self) -> float:
        """What a density of 1 costs in J: 0 under a target."""
        objective = self.comparison.config.get("objective", {})
        return float(objective.get("price", 1.0)) if objective.get("kind", "tradeoff") == "tradeoff" else 0.0

    @cached_property
    def dense(self) -> float:
        """J of the dense network: by definition 1 plus the price."""
        return 1.0 + self.price

    @cached_property
    def passes_per_trial(self) -> float | None:
        """Passes of one fixed-λ trial."""
        return trial_passes(self.comparison.rows, self.comparison.trials, self.comparison.config)

    @cached_property
    def metric(self) -> str:
        """The column that arms are compared on."""
        return headline_metric(self.comparison.rows)

    @cached_property
    def metric_name(self) -> str:
        """What that column is called."""
        return METRICS[self.metric]

    @cached_property
    def unit(self) -> str:
        """What the budget is counted in."""
        units = self.comparison.rows["unit"].dropna()
        return str(units.iloc[0]) if len(units) else "passes"

    @cached_property
    def verdict(self) -> str:
        """The sentence the page opens with."""
        return verdict_of(self.comparison.rows, self.target)

    @cached_property
    def beside(self) -> str:
        """The sentences below the verdict."""
        return beside(self.comparison.rows, self.target)

    @cached_property
    def pairs(self) -> list[Paired]:
        """Every learned arm against every other one."""
        return all_pairs(self.comparison.rows, self.target)

    @cached_property
    def rivals(self) -> tuple[str, ...]:
        """The arms that the verdict is about."""
        return rivals(self.comparison.rows) or ()

    @cached_property
    def noise(self) -> float:
        """Standard deviation of test J between trainings of one λ."""
        return retraining_noise(self.comparison.rows)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One line per arm."""
        return comparison_table(self.comparison.rows, self.passes_per_trial)

    @cached_property
    def matched(self) -> dict[float, pd.DataFrame]:
        """The tuning-cost table by sparsity."""
        rows, trials = self.comparison.rows, self.comparison.trials
        asked = levels(self.comparison.config.get("objective", {}))
        return {level: matched(rows, trials, level, self.price, self.passes_per_trial) for level in asked}

    @cached_property
    def curves(self) -> pd.DataFrame:
        """The searched arms' anytime curves, with wall-clock."""
        anytime = self.comparison.anytime
        anytime = from_target_on(anytime[searched(anytime)], self.comparison.trials, self.target)
        return with_seconds(anytime, self.comparison.trials, self.comparison.rows)

    @cached_property
    def ends(self) -> pd.DataFrame:
        """What each searched arm and seed had spent when it ended: arm, seed, passes, seconds."""
        rows = self.comparison.rows
        ends = rows.loc[searched(rows), ["arm", "seed", "passes", "wall_seconds"]]
        return with_seconds(ends, self.comparison.trials, rows).drop(columns="wall_seconds")

    @cached_property
    def costs_to_match(self) -> dict[tuple[str, str], pd.DataFrame]:
        """Cost to match by metric (validation, test) and unit (passes, seconds)."""
        pairs = [(metric, x) for metric in ("test_objective", "objective") for x in ("passes", "seconds")]
        return {pair: cost_to_match(self.curves, *pair) for pair in pairs}

    @cached_property
    def chosen(self) -> pd.Series:
        """Whether a trial is the one its arm and seed selected."""
        return selected(self.comparison.rows, self.comparison.trials)

    @cached_property
    def hypervolumes(self) -> pd.DataFrame:
        """Hypervolume of (Δm, density) by arm and seed."""
        return hypervolumes(self.comparison.trials)

    @cached_property
    def curse(self) -> pd.DataFrame:
        """The winner's curse by arm and seed."""
        return optimism(self.comparison.rows, self.comparison.trials)

    @cached_property
    def rungs(self) -> pd.DataFrame:
        """Rank correlation of rung values with final J by arm."""
        return rung_table(self.comparison.trials)

    @cached_property
    def task_changes(self) -> pd.DataFrame:
        """Test metrics of the selected models against dense."""
        return task_changes(self.comparison.trials, self.chosen)

    @cached_property
    def tasks(self) -> pd.DataFrame:
        """The changes of tasks by metric and arm, ready to be printed."""
        recorded = json.loads(self.comparison.tags.get("directions", "{}"))
        return task_table(self.task_changes, recorded)

    @cached_property
    def breakdown(self) -> pd.DataFrame:
        """Where each arm's time went."""
        return cost_breakdown(self.comparison.rows)

    @cached_property
    def cost_table(self) -> pd.DataFrame:
        """The breakdown, ready to be printed."""
        return cost_table(self.breakdown)

    @cached_property
    def layers(self) -> list[str]:
        """The layers in the network's order."""
        return layer_order(self.comparison.rows)

    @cached_property
    def pattern(self) -> pd.DataFrame:
        """Zeros by layer and arm."""
        return pattern(self.comparison.trials, self.chosen, self.layers)

    @cached_property
    def study(self) -> pd.DataFrame:
        """The λ study of the arm `grid`."""
        return lambda_study(self.comparison.trials)
