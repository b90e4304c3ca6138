"""The report of a comparison: tables, plots and one page that needs nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from analysis import plots
from analysis.records.comparison import ComparisonRecord, load
from analysis.report.page import whole_page
from analysis.report.tables import display, markdown, paired_table, write_csv
from analysis.statistics.findings import Findings
from analysis.statistics.matched_sparsity import matched_display
from ms_automl.callbacks.mlflow.artifacts import Artifacts
from ms_automl.callbacks.mlflow.opening import opened, reason
from ms_automl.errors import DataError

WHERE = """\
The whole report is the artifact `report/index.html` of this run. Below this run is one for each arm and seed, with
the anytime curve and the selected model, and below that one for each trial."""
TRIAL_METRICS = {"test_objective": "test/objective", "objective": "val/objective"}


def report(comparison: str | Path, out: Path | None = None) -> Path:
    """Load a comparison, write its report, log that to MLflow; returns the path of `index.html`.

    Args:
        comparison: A folder with `comparison.json`, or an MLflow run id.
        out: The folder to write to; default `<comparison>/report`, or `./report-<run id>`.

    Raises:
        DataError: Nothing to report on, see `load`, or the folder cannot be written.
        TrackingError: The records cannot be read. Not being able to log the report is only a warning.
    """
    index, trouble = logged_report(comparison, out)
    if trouble:
        print(f"warning: the report was not logged to MLflow: {trouble}", file=sys.stderr)
    return index


def logged_report(comparison: str | Path, out: Path | None = None) -> tuple[Path, str]:
    """Write and log as `report` does; returns the path of `index.html`, and why MLflow lacks it or ""."""
    loaded = load(comparison)
    folder = out or (loaded.folder / "report" if loaded.folder else Path(f"report-{loaded.run_id}"))
    index = write_report(loaded, folder)
    return index, log_report(loaded, folder)


def write_report(comparison: ComparisonRecord, folder: Path) -> Path:
    """Write tables, plots and `index.html` into a folder; returns the path of `index.html`."""
    if comparison.rows.empty:
        raise DataError(
            f"comparison {comparison.run_id} has no arm that ended: let the search finish, or --resume it."
        )
    if comparison.trials.empty or "val/objective" not in comparison.trials:
        raise DataError(
            f"no trial of comparison {comparison.run_id} has a metric ({len(comparison.trials)} trials): why they "
            "failed is in the search's table and in MLflow."
        )
    findings = Findings(comparison)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_tables(findings, folder)
        figures = write_figures(findings, folder)
        index = folder / "index.html"
        index.write_text(whole_page(findings, figures), encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"cannot write the report to '{folder}' ({error.strerror}): give another --out."
        ) from error
    return index


def log_report(comparison: ComparisonRecord, folder: Path) -> str:
    """Add the files to the parent run as artifacts `report/`, and the summary as its description.

    Returns:
        Why that could not be, in a line; empty where it could.
    """
    try:
        client = opened(comparison.tracking_uri)
        Artifacts(client, comparison.tracking_uri).put(comparison.run_id, folder, "report")
        # MLflow shows this tag as the run's description: the first thing that a visitor reads.
        summary = (folder / "summary.md").read_text("utf-8")[:5000]
        client.set_tag(comparison.run_id, "mlflow.note.content", summary, synchronous=True)
    except Exception as error:  # the report itself is written
        return reason(error)
    return ""


def write_tables(findings: Findings, folder: Path) -> None:
    """CSV at full precision for programs; Markdown, rounded, of the tables that people quote."""
    comparison = findings.comparison
    matched = {level: table for level, table in findings.matched.items() if len(table)}
    costs = findings.costs_to_match.items()
    tables = {
        "table": findings.table,
        "matched": _stacked({f"{level:g}": table for level, table in matched.items()}, "asked_sparsity"),
        "paired": pd.DataFrame([vars(pair) for pair in findings.pairs]),
        "match": _stacked({f"{metric}/{x}": table for (metric, x), table in costs}, "measure"),
        "anytime": findings.curves,
        "tasks": findings.task_changes,
        "costs": findings.breakdown.reset_index(),
        "hypervolume": findings.hypervolumes,
        "curse": findings.curse,
        "rungs": findings.rungs,
        "seeds": comparison.rows,
        "trials": comparison.trials,
        "transfer": comparison.transfer,
    }
    for name, table in tables.items():
        if len(table):
            write_csv(table, folder / f"{name}.csv")
    shown = {"table": display(findings.table, unit=findings.unit), "paired": paired_table(findings.pairs)}
    warnings = "".join(f"{line}\n\n" for line in comparison.warnings)
    summary = f"{warnings}{findings.verdict}\n\n{markdown(shown['table'])}\n{WHERE}\n"
    (folder / "summary.md").write_text(summary, encoding="utf-8")
    for name, table in shown.items():
        if len(table):
            (folder / f"{name}.md").write_text(markdown(table), encoding="utf-8")
    parts = [f"At least {level:.0%}:\n\n{markdown(matched_display(table))}" for level, table in matched.items()]
    if parts:
        (folder / "matched.md").write_text("\n".join(parts), encoding="utf-8")


def _stacked(tables: dict[str, pd.DataFrame], name: str) -> pd.DataFrame:
    kept = {key: table for key, table in tables.items() if len(table)}
    return pd.concat(kept, names=[name]).reset_index(level=0) if kept else pd.DataFrame()


def write_figures(findings: Findings, folder: Path) -> dict[str, Path]:
    """Write each figure as PNG and SVG; returns the SVG by figure name."""
    rows, trials = findings.comparison.rows, findings.comparison.trials
    curves, ends, dense, unit = findings.curves, findings.ends, findings.dense, findings.passes_per_trial
    banded = findings.rivals
    on_test = "test_objective" if curves["test_objective"].notna().any() else "objective"
    figures = {
        "paired": plots.paired_figure(findings.pairs),
        "anytime": plots.anytime_figure(curves, ends, "passes", unit, dense, banded),
        "anytime-seconds": plots.anytime_figure(curves, ends, "seconds", None, dense, banded)
        if curves["seconds"].notna().any()
        else None,
        "anytime-arms": plots.anytime_arms_figure(curves, ends, on_test, "passes", dense),
        "scatter": plots.scatter_figure(
            trials, findings.chosen, TRIAL_METRICS[on_test], dense, findings.target, findings.of
        ),
        "front": plots.front_figure(trials),
        "single-task": plots.single_task_figure(rows),
        "lambda": plots.lambda_figure(rows),
        "lambda-course": plots.course_figure(rows),
        "pattern": plots.pattern_figure(findings.pattern),
        "costs": plots.cost_figure(findings.breakdown),
        "study": plots.study_figure(findings.study),
        "study-pattern": plots.study_pattern_figure(findings.study, findings.layers),
        **{
            f"transfer-{task}": plots.transfer_figure(findings.comparison.transfer, task)
            for task in dict.fromkeys(findings.comparison.transfer["task"])
        },
    }
    return {name: plots.save(figure, folder, name)[1] for name, figure in figures.items() if figure is not None}
