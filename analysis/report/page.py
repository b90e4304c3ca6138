"""What the page shows, gathered as plain data; `templates/` has its words and its form.

One file that needs nothing else: everything is escaped, figures are embedded, no script and no network.
"""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.plots.transfer import MODES
from analysis.records.store import without_password
from analysis.report.failures import HAPPENED, SHOWN, counts, failures
from analysis.report.tables import COST, QUALITY, display, is_numeric, paired_table
from analysis.statistics.cost_to_match import match_table
from analysis.statistics.curse import curse_table
from analysis.statistics.findings import Findings
from analysis.statistics.formats import EMPTY, duration, signed
from analysis.statistics.matched_sparsity import matched_display
from analysis.statistics.paired import TIE
from analysis.statistics.pareto import REFERENCE_POINT, hypervolume_table
from analysis.statistics.transfer import finished, sentences, transfer_table
from ms_automl.callbacks.mlflow.opening import database

Lines = list[list[tuple[str, str]]]
SENTENCES = (HAPPENED, "What it allows to say")  # columns whose cells may break anywhere


def anchor(heading: str) -> str:
    """Name a heading in an address.

    >>> anchor("λ by layer, over time")
    'λ-by-layer-over-time'
    """
    return re.sub(r"\W+", "-", heading.lower()).strip("-")


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    keep_trailing_newline=True,
)
TEMPLATES.filters["anchor"] = anchor


def whole_page(findings: Findings, figures: Mapping[str, Path]) -> str:
    """The page, as HTML."""
    comparison = findings.comparison
    return TEMPLATES.get_template("page.html").render(
        findings=findings,
        preset=comparison.tags.get("preset", ""),
        warnings=comparison.warnings,
        arms=comparison.rows["arm"].nunique(),
        seeds=comparison.rows["seed"].nunique(),
        spaces=list(comparison.rows["space"].dropna().unique()),
        sections=sections(findings, {name: _embedded(svg) for name, svg in figures.items()}),
    )


def sections(findings: Findings, figures: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What each section shows, in the order of the page; one whose first part is empty is left out."""
    comparison, pairs = findings.comparison, lines(paired_table(findings.pairs))
    failed = failures(comparison.rows, comparison.trials)

    def drawn(*names: str) -> dict[str, str]:
        return {name: figures[name] for name in names if name in figures}

    found: dict[str, dict[str, Any]] = {
        "matched": {"levels": _matched(findings), "of": findings.of},
        "comparison": {
            "quality": lines(display(findings.table, QUALITY)),
            "cost": lines(display(findings.table, COST, findings.unit)),
            "iqm": findings.table["iqm"].notna().any(),
            "useful": comparison.metrics.get("useful_share"),
        },
        "paired": {
            "table": pairs,
            "figures": drawn("paired"),
            "pairs": len(pairs) - 1,
            "tie": TIE,
            "noise": "" if math.isnan(findings.noise) else f"{findings.noise:.3f}",
        },
        "anytime": {"figures": drawn("anytime", "anytime-seconds", "anytime-arms")},
        "match": {"tables": _match(findings)},
        "scatter": {"figures": drawn("scatter")},
        "front": {
            "figures": drawn("front"),
            "table": lines(hypervolume_table(findings.hypervolumes)),
            "reference": (signed(REFERENCE_POINT[0], 0), f"{REFERENCE_POINT[1]:g}"),
        },
        "single_task": {"figures": drawn("single-task")},
        "curse": {"table": lines(curse_table(findings.curse))},
        "rungs": {"table": lines(findings.rungs)},
        "lambdas": {"figures": drawn("lambda-course", "lambda")},
        "pattern": {"figures": drawn("pattern")},
        "tasks": {"table": lines(findings.tasks)},
        "costs": {"figures": drawn("costs"), "table": lines(findings.cost_table)},
        "study": {"figures": drawn("study", "study-pattern")},
        "transfer": _transfer(comparison.transfer, figures),
        "failures": {
            "counts": counts(comparison.rows, comparison.trials),
            "table": lines(failed.head(SHOWN)),
            "more": len(failed) - SHOWN,
        },
        "reproduce": _reproduce(findings),
    }
    return {name: shown for name, shown in found.items() if next(iter(shown.values()))}


def lines(frame: pd.DataFrame) -> Lines:
    """A printed table by lines, the headings first: each cell and its class (n: a number, error: it may break).

    >>> lines(pd.DataFrame({"Arm": ["meta"], "J": ["1.5"]}))
    [[('Arm', ''), ('J', 'n')], [('meta', ''), ('1.5', 'n')]]
    """
    if frame.empty:
        return []
    kinds = ["n" if is_numeric(frame[name]) else "error" if name in SENTENCES else "" for name in frame]
    cells = [list(frame.columns), *frame.to_numpy(dtype=object).tolist()]
    return [list(zip(map(str, line), kinds, strict=True)) for line in cells]


def _embedded(svg: Path) -> str:
    return b64encode(svg.read_bytes()).decode("ascii")


def _matched(findings: Findings) -> list[dict[str, Any]]:
    """The table of the arms that reached each asked sparsity, and who did not."""
    return [
        {
            "sparsity": f"{level:.0%}",
            "table": lines(matched_display(table[table["reached"] > 0])) if len(table) else [],
            "missed": list(table.loc[table["reached"] == 0, "arm"]) if len(table) else [],
        }
        for level, table in findings.matched.items()
    ]


def _match(findings: Findings) -> dict[str, Lines]:
    """Cost to match by what it is measured on; those that have no pair are left out."""
    passes = findings.passes_per_trial
    budget = (passes, "fixed-λ trials") if passes else (None, "passes")
    costs = findings.costs_to_match
    tables = {
        "On test J": match_table(costs["test_objective", "passes"], *budget),
        "On validation J, what the arms see": match_table(costs["objective", "passes"], *budget),
        "On test J, in wall-clock of the arm by itself": match_table(
            costs["test_objective", "seconds"], 60.0, "min"
        ),
    }
    return {words: lines(table) for words, table in tables.items() if len(table)}


def _transfer(frame: pd.DataFrame, figures: Mapping[str, str]) -> dict[str, Any]:
    tasks = [
        {
            "name": task,
            "figures": {"transfer": figures[f"transfer-{task}"]} if f"transfer-{task}" in figures else {},
            "modes": {
                MODES[mode]: lines(transfer_table(frame, str(task), mode)) for mode in dict.fromkeys(group["mode"])
            },
        }
        for task, group in finished(frame).groupby("task", sort=False)
    ]
    failed = int((frame["status"] != "FINISHED").sum())
    return {"tasks": tasks, "sentences": sentences(frame), "failed": failed}


def _reproduce(findings: Findings) -> dict[str, Any]:
    comparison = findings.comparison
    rows, tags = comparison.rows, comparison.tags
    arms, seeds = list(dict.fromkeys(rows["arm"])), sorted(set(rows["seed"]))
    preset = f" --preset {tags['preset']}" if tags.get("preset") else ""
    command = f"python -m ms_automl.search{preset} --arms {','.join(arms)} --seeds {len(seeds)}"
    resources = comparison.config.get("resources") or {}
    most = resources.get("concurrency_per_run", resources.get("concurrency_per_stream", 1))  # as it was called
    fewer = f"{most} trials at a time: its sampler knew the results of {most - 1} fewer"
    wall_clock = duration(comparison.metrics.get("cost/wall_seconds", math.nan))
    facts = {
        "Seeds": ", ".join(map(str, seeds)),
        "Git revision": tags.get("git_revision", ""),
        "Versions": ", ".join(f"{name} {version}" for name, version in comparison.versions.items()),
        "Machine": ", ".join(filter(None, (tags.get("machine"), tags.get("cpu")))),
        "Trials side by side": tags.get("slots", ""),
        "Of an arm and seed": fewer if most > 1 else "",
        "Weights of the trunk": _weights(tags.get("weights", "")),
        "MLflow run": comparison.run_id,
        "MLflow store": _store_name(comparison.tracking_uri),
        "Wall-clock": "" if wall_clock == EMPTY else wall_clock,
    }
    config = json.dumps(comparison.config, indent=2, ensure_ascii=False, default=str)
    return {"command": tags.get("command", command), "facts": facts, "config": config}


def _weights(recorded: str) -> str:
    if not recorded:
        return ""
    counts = json.loads(recorded)
    share = counts["penalised"] / counts["trunk"]
    return f"{counts['trunk']:,}, of which λ can act on {counts['penalised']:,} ({share:.1%})"


def _store_name(uri: str) -> str:
    """The store without a password, and without the folders of the machine that wrote the report."""
    file = database(uri)
    return without_password(uri) if file is None else f"sqlite:///{file.name}"
