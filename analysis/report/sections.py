"""The sections of the page: which tables and figures, in which order, and what stands below them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.plots.transfer import MODES
from analysis.records.store import without_password
from analysis.report import page
from analysis.report.failures import SHOWN, counts, failures
from analysis.report.tables import COST, QUALITY, display, paired_table
from analysis.statistics.cost_to_match import match_table
from analysis.statistics.curse import curse_table
from analysis.statistics.findings import Findings
from analysis.statistics.formats import duration, signed
from analysis.statistics.matched_sparsity import matched_display
from analysis.statistics.paired import TIE
from analysis.statistics.pareto import REFERENCE_POINT, hypervolume_table
from analysis.statistics.transfer import finished, sentences, transfer_table
from ms_automl.callbacks.mlflow.address import database

Figures = Mapping[str, Path]


def whole_page(findings: Findings, figures: Figures) -> str:
    """The page, as HTML; a section is absent where its data are."""
    rows, preset = findings.comparison.rows, findings.comparison.tags.get("preset", "")
    seeds, arms = rows["seed"].nunique(), rows["arm"].nunique()
    spaces = rows["space"].dropna().unique()
    space = f" (space {spaces[0]})" if len(spaces) == 1 else ""
    about = f"{arms} ways of choosing λ{space}, {seeds} seed{'s' if seeds > 1 else ''}. {_meaning(findings)}"
    sections = {
        "What tuning costs at matched sparsity": _matched(findings),
        "Comparison": _comparison(findings),
        "Paired by seed": _paired(findings, figures),
        "Best J against spent budget": _anytime(figures),
        "Cost to match": _match(findings),
        "J against sparsity": page.figure(figures.get("scatter"), CAPTIONS["scatter"]),
        "Δm against density": _front(findings, figures),
        "Winner's curse": _curse(findings),
        "What rungs foretell": _rungs(findings),
        "λ by layer": _several(figures, "lambda-course", "lambda"),
        "Zeros by layer": page.figure(figures.get("pattern"), CAPTIONS["pattern"]),
        "Tasks": _tasks(findings),
        "Where the time went": _costs(findings, figures),
        "What λ does": _several(figures, "study", "study-pattern"),
        "Unseen tasks": _transfer(findings, figures),
        "Failures": _failures(findings),
        "How to reproduce": _reproduce(findings),
    }
    title = "Sparsity strength λ: learned or searched" + (f" ({preset})" if preset else "")
    return page.page(title, about, findings.comparison.warnings, findings.verdict, findings.beside, sections)


CAPTIONS = {
    "paired": "Mean and 95 % interval of the paired differences; the grey band is the margin of 'no worse'.",
    "anytime": "Lower is better. Means over seeds, from where every seed of an arm has a result; a ring marks "
    "where an arm ended. Bands span the lowest and highest seed of the two arms that the verdict is about. "
    "The axis leaves out the worst steps.",
    "anytime-seconds": "The same against the time an arm needs by itself: its trials one after another and its "
    "searcher, without waiting for a free slot.",
    "anytime-arms": "Each arm's mean and the span of its seeds, the other arms' means in grey. Whether two arms "
    "differ is asked of paired differences, not of whether bands overlap.",
    "scatter": "Every trial; lower and further right is better. Outlined ones were selected, hollow ones stopped "
    "early; what lies above the axis sits on its upper edge.",
    "front": "Fronts over all trials of an arm and all its seeds, on the test split; higher and further left is "
    "better. No arm could have picked from it: it shows what its trials covered.",
    "lambda": "λ of the selected models: faint points are seeds, lines join their geometric means.",
    "lambda-course": "λ of the selected models over training, geometric means over seeds: layers from the input "
    "down, from the first step on the left to the freeze on the right; white is λ = 0.",
    "pattern": "Selected models, means over seeds.",
    "costs": "Training, evaluation, start-up and idle add up to the device time; the searcher runs beside it.",
    "transfer": "Lines are means over seeds and draws, bands the lowest and highest seed; dotted lines begin from "
    "new weights. Above: test metric against labelled samples; below: validation metric over the steps, with the "
    "most labels that the learned arm and dense have.",
    "study": "The trials of the arm grid: faint points are seeds, lines their means.",
    "study-pattern": "Zeros by layer against λ in the same trials, means over seeds.",
}


def _several(figures: Figures, *names: str) -> str:
    return page.side_by_side(*(page.figure(figures.get(name), CAPTIONS[name]) for name in names))


def _meaning(findings: Findings) -> str:
    losses = "J is the mean over tasks of loss / dense loss"
    if findings.scale == "skill":
        losses = (
            "J is 1 plus the mean over tasks of the share that is lost of what dense has learned over a constant "
            "prediction"
        )
    if findings.target is not None:
        return f"{losses}, among models with at least {findings.target:.0%} parameter sparsity; lower is better."
    return (
        f"{losses}, plus {findings.price:g} × the share kept of the trunk weights that λ acts on; lower is better."
    )


def _matched(findings: Findings) -> str:
    parts = []
    for level, table in findings.matched.items():
        reached = table[table["reached"] > 0] if len(table) else table
        if reached.empty:
            parts.append(page.text(f"No arm has a model with at least {level:.0%} parameter sparsity."))
            continue
        missed = table.loc[table["reached"] == 0, "arm"]
        parts += [page.heading(f"At least {level:.0%} of the weights zero"), page.table(matched_display(reached))]
        if len(missed):
            parts.append(page.text(f"None among the trials of {', '.join(missed)}."))
    note = (
        "Each arm's model of least validation loss among its trials with at least that parameter sparsity. "
        "Means a seed; those of a model over the seeds that have one, so lines with fewer seeds are of other "
        "seeds. Tuning is all the arm's device time but that model's training, and its searcher's; retraining "
        "is charged to nobody."
    )
    return page.join(*parts, page.text(note))


def _comparison(findings: Findings) -> str:
    useful = findings.comparison.metrics.get("useful_share")
    share = f" {useful:.0%} of the time was spent in trials." if useful is not None else ""
    iqm = " IQM is the mean of the middle half." if findings.table["iqm"].notna().any() else ""
    note = (
        f"Models are selected by validation J; best first by {findings.metric_name}. Means over seeds, trials "
        f"are sums.{iqm} Δm is the mean change of the tasks' test metrics "
        f"against dense; dense is charged to nobody.{share}"
    )
    if findings.metric == "retrained_test_objective":
        note += " Retrained: the selected λ trained again on fresh seeds of training, which no selection has seen."
    return page.join(
        page.table(display(findings.table, QUALITY)),
        page.table(display(findings.table, COST, findings.unit)),
        page.text(note),
    )


def _paired(findings: Findings, figures: Figures) -> str:
    table = paired_table(findings.pairs)
    if table.empty:
        return ""
    chance = f" With {len(table)} pairs, about one in twenty misses its true value." if len(table) > 4 else ""
    noise = findings.noise
    beside = (
        ""
        if math.isnan(noise)
        else f" Two trainings of the same λ differ with a standard deviation of {noise:.3f}."
    )
    note = (
        f"Differences by seed in {findings.metric_name}; below 0 A is better. Student-t intervals, "
        f"not corrected for the number of pairs.{chance} Wins and losses are seeds that "
        f"differ by more than {TIE}, the margin of 'no worse'.{beside}"
    )
    return page.join(page.table(table), page.figure(figures.get("paired"), CAPTIONS["paired"]), page.text(note))


def _anytime(figures: Figures) -> str:
    return _several(figures, "anytime", "anytime-seconds", "anytime-arms")


def _match(findings: Findings) -> str:
    passes = findings.passes_per_trial
    budget = (passes, "fixed-λ trials") if passes else (None, "passes")
    parts: list[str] = []
    for metric, x, unit, words in (
        ("test_objective", "passes", budget, "On test J"),
        ("objective", "passes", budget, "On validation J, what the arms see"),
        ("test_objective", "seconds", (60.0, "min"), "On test J, in wall-clock of the arm by itself"),
    ):
        table = match_table(findings.costs_to_match[metric, x], *unit)
        if len(table):
            html = page.table(table)
            parts += [page.details(words, html) if parts else page.join(page.heading(words), html)]
    note = (
        "The budget at which one arm first is as good as the other at its end, in the same seed; medians over "
        "seeds, a seed that never gets there counts as infinite ('not reached': the whole budget was not "
        "enough)."
    )
    return page.join(*parts, page.text(note)) if parts else ""


def _front(findings: Findings, figures: Figures) -> str:
    if "front" not in figures:
        return ""
    lowest, densest = REFERENCE_POINT
    note = (
        f"Hypervolume: the area between a seed's front and the point (Δm {signed(lowest, 0)} %, density "
        f"{densest:g}), which is the same in every report; dense alone has 0. An arm with more trials has more "
        "chances."
    )
    return page.join(
        page.figure(figures["front"], CAPTIONS["front"]),
        page.table(hypervolume_table(findings.hypervolumes)),
        page.text(note),
    )


def _curse(findings: Findings) -> str:
    note = (
        "By how much validation J flatters the model that it selected: negative numbers are flattery. The gap "
        "over all trials of the arm is the difference between the splits; what the selected models have "
        "beyond it is luck."
    )
    table = curse_table(findings.curse)
    return page.join(page.table(table), page.text(note)) if len(table) else ""


def _rungs(findings: Findings) -> str:
    note = (
        "Spearman's rank correlation of a trial's last rung with its final validation J, within seeds, over "
        "the trials that went on to the end: those are what the rung favoured, which lowers it. A rung comes "
        "before debiasing and favours small λ."
    )
    return page.join(page.table(findings.rungs), page.text(note)) if len(findings.rungs) else ""


def _tasks(findings: Findings) -> str:
    note = (
        "Test metrics of the selected models: dense's value, then each arm's change against dense of the same "
        "seed in %, means over seeds. ↑ higher is better, ↓ lower is; ▲ better than dense, ▼ worse."
    )
    return page.join(page.table(findings.tasks), page.text(note)) if len(findings.tasks) else ""


def _costs(findings: Findings, figures: Figures) -> str:
    if "costs" not in figures:
        return ""
    return page.join(page.figure(figures["costs"], CAPTIONS["costs"]), page.table(findings.cost_table))


def _transfer(findings: Findings, figures: Figures) -> str:
    frame = findings.comparison.transfer
    kept = finished(frame)
    if kept.empty:
        return ""
    parts = [page.text(sentence, "") for sentence in sentences(frame)]
    for task in dict.fromkeys(kept["task"]):
        parts += [page.heading(task), page.figure(figures.get(f"transfer-{task}"), CAPTIONS["transfer"])]
        for mode in dict.fromkeys(kept.loc[kept["task"] == task, "mode"]):
            parts.append(page.details(MODES[mode], page.table(transfer_table(frame, task, mode))))
    failed = int((frame["status"] != "FINISHED").sum())
    note = (
        "Tasks that no training, no λ and no selection has seen, taken up by each selected model from the same "
        "samples in the same number of steps, means over seeds and draws of samples. What is zero stays zero. "
        "Differences are those of the mean over the logarithm of the number of labels, paired, with Student-t "
        "95 % intervals. Old tasks: Δm on test after taking up the new one, against before; that and the passes "
        "of an uptake with most labels. With a frozen trunk a sample counts a third."
    )
    return page.join(*parts, page.text(note), page.text(f"{failed} uptakes failed.") if failed else "")


def _failures(findings: Findings) -> str:
    rows, trials = findings.comparison.rows, findings.comparison.trials
    table = failures(rows, trials)
    more = page.text(f"… and {len(table) - SHOWN} more in trials.csv and seeds.csv.") if len(table) > SHOWN else ""
    return page.join(
        page.text(counts(rows, trials)),
        page.table(table.head(SHOWN).rename(columns={"Error": page.WHAT_HAPPENED})),
        more,
    )


def _reproduce(findings: Findings) -> str:
    comparison = findings.comparison
    rows, tags = comparison.rows, comparison.tags
    arms, seeds = list(dict.fromkeys(rows["arm"])), sorted(set(rows["seed"]))
    preset = f" --preset {tags['preset']}" if tags.get("preset") else ""
    command = tags.get(
        "command", f"python -m ms_automl.search{preset} --arms {','.join(arms)} --seeds {len(seeds)}"
    )
    resources = comparison.config.get("resources") or {}
    most = resources.get("concurrency_per_run", resources.get("concurrency_per_stream", 1))  # as it was called
    facts = {
        "Seeds": ", ".join(str(seed) for seed in seeds),
        "Git revision": tags.get("git_revision", ""),
        "Versions": ", ".join(f"{name} {version}" for name, version in comparison.versions.items()),
        "Machine": ", ".join(filter(None, (tags.get("machine"), tags.get("cpu")))),
        "Trials side by side": tags.get("slots", ""),
        "Of an arm and seed": f"{most} trials at a time: its sampler knew the results of {most - 1} fewer"
        * (most > 1),
        "MLflow run": comparison.run_id,
        "MLflow store": _store_name(comparison.tracking_uri),
        "Wall-clock": duration(comparison.metrics.get("cost/wall_seconds", math.nan)),
    }
    note = "Settings changed with --set are in the configuration below."
    config: dict[str, Any] = comparison.config
    return page.join(
        page.code(command),
        page.text(note),
        page.definitions({name: value for name, value in facts.items() if value != "–"}),
        page.details("Configuration", page.code(json.dumps(config, indent=2, ensure_ascii=False, default=str))),
    )


def _store_name(uri: str) -> str:
    """The store without a password, and without the folders of the machine that wrote the report."""
    file = database(uri)
    return without_password(uri) if file is None else f"sqlite:///{file.name}"
