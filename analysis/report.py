"""The report of a comparison: tables, plots and one page that needs nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from analysis import page, plots
from analysis.match import cost_to_match, match_table, trial_passes
from analysis.paired import headline_metric, paired, rivals, verdict
from analysis.records import Comparison, load
from analysis.store import reachable_uri, without_password
from analysis.tables import REFERENCE, comparison_table, display, markdown, paired_table, write_csv
from ms_automl.errors import DataError, TrackingError

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
    loaded = load(comparison)
    folder = out or (loaded.folder / "report" if loaded.folder else Path(f"report-{loaded.run_id}"))
    index = write_report(loaded, folder)
    log_report(loaded, folder)
    return index


def write_report(comparison: Comparison, folder: Path) -> Path:
    """Write tables, plots and `index.html` into a folder; returns the path of `index.html`."""
    if comparison.rows.empty:
        raise DataError(
            f"comparison {comparison.run_id} has no arm that ended: let the search finish, or --resume it."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_tables(comparison, folder)
        figures = write_figures(comparison, folder)
        index = folder / "index.html"
        index.write_text(_page(comparison, figures), encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"cannot write the report to '{folder}' ({error.strerror}): give another --out."
        ) from error
    return index


def log_report(comparison: Comparison, folder: Path) -> bool:
    """Add the files to the parent run as artifacts `report/`; a store that is gone is only a warning."""
    try:
        uri = reachable_uri(comparison.tracking_uri, comparison.folder)
        MlflowClient(tracking_uri=uri).log_artifacts(comparison.run_id, str(folder), "report")
    except (MlflowException, TrackingError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        print(f"warning: the report was not logged to MLflow: {reason}", file=sys.stderr)
        return False
    return True


def write_tables(comparison: Comparison, folder: Path) -> None:
    """`table.csv` and `table.md` by arm, `seeds.csv` by arm and seed, `trials.csv` by trial."""
    table = comparison_table(comparison.rows, _trial_passes(comparison))
    write_csv(table, folder / "table.csv")
    (folder / "table.md").write_text(markdown(display(table)), encoding="utf-8")
    write_csv(comparison.rows, folder / "seeds.csv")
    write_csv(comparison.trials, folder / "trials.csv")


def write_figures(comparison: Comparison, folder: Path) -> dict[str, Path]:
    """Write each figure as PNG and SVG; returns the SVG by figure name."""
    rows, trials = comparison.rows, comparison.trials
    metric = headline_metric(rows)
    ends = rows.loc[rows["arm"] != REFERENCE, ["arm", "seed", "passes"]]
    curves = comparison.anytime[comparison.anytime["arm"] != REFERENCE]
    dense = dense_objective(comparison)
    chosen = selected(rows, trials)
    figures = {
        "anytime": plots.anytime_figure(curves, ends, _trial_passes(comparison), dense),
        "scatter": plots.scatter_figure(trials, chosen, TRIAL_METRICS[metric], dense, target(comparison)),
        "lambda": plots.lambda_figure(rows),
    }
    return {name: plots.save(figure, folder, name)[1] for name, figure in figures.items() if figure is not None}


def selected(rows: pd.DataFrame, trials: pd.DataFrame) -> pd.Series:
    """Whether a trial is the one its arm and seed selected: the finished one nearest to the row's J."""
    chosen = pd.Series(False, index=trials.index)
    if "val/objective" not in trials:
        return chosen
    finished = trials[(trials["status"] == "FINISHED") & trials["val/objective"].notna()]
    goals = rows.set_index(["arm", "seed"])["objective"]
    for key, group in finished.groupby(["arm", "seed"]):
        goal = goals.get(key)
        if goal is not None and pd.notna(goal):
            chosen[(group["val/objective"] - goal).abs().idxmin()] = True
    return chosen


def dense_objective(comparison: Comparison) -> float:
    """J of the dense network: by definition 1, plus the price under the `tradeoff` objective."""
    objective = comparison.config.get("objective", {})
    return 1.0 + (float(objective.get("price", 1.0)) if objective.get("kind", "tradeoff") == "tradeoff" else 0.0)


def target(comparison: Comparison) -> float | None:
    """The sparsity that the `target` objective asks for, in [0, 1]."""
    objective = comparison.config.get("objective", {})
    return float(objective["target"]) if objective.get("kind") == "target" else None


def verdict_of(comparison: Comparison) -> str:
    """The sentence the page opens with, which the search prints too."""
    rows = comparison.rows
    pair = rivals(rows)
    if pair is None:
        return "No verdict: a comparison needs a learned arm (meta, …) and a searched one (optuna, …)."
    return verdict(paired(rows, *pair, metric=headline_metric(rows), target=target(comparison)))


def _trial_passes(comparison: Comparison) -> float | None:
    return trial_passes(comparison.rows, comparison.trials, comparison.config)


def _page(comparison: Comparison, figures: dict[str, Path]) -> str:
    rows, passes = comparison.rows, _trial_passes(comparison)
    preset = comparison.tags.get("preset", "")
    seeds = rows["seed"].nunique()
    arms = rows["arm"].nunique()
    about = f"{arms} ways of choosing λ, {seeds} seed{'s' if seeds > 1 else ''}. {_meaning(comparison)}"
    sections = [
        page.section(
            "Comparison",
            page.table(display(comparison_table(rows, passes))),
            page.text(_table_note(comparison)),
        ),
        _pairs(comparison),
        page.section("Best J against spent budget", page.figure(figures["anytime"], CAPTIONS["anytime"])),
        page.section("J against sparsity", page.figure(figures["scatter"], CAPTIONS["scatter"])),
        page.section("λ by layer", page.figure(figures["lambda"], CAPTIONS["lambda"]))
        if "lambda" in figures
        else "",
        _cost(comparison, passes),
        _failures(comparison.trials, rows),
        _reproduce(comparison),
    ]
    title = "Sparsity strength λ: learned or searched" + (f" ({preset})" if preset else "")
    return page.page(title, about, verdict_of(comparison), sections)


CAPTIONS = {
    "anytime": "Lower is better; a ring marks where an arm ended, thin lines are seeds, strong ones means.",
    "scatter": "Every finished trial; lower and further right is better, outlined ones were selected.",
    "lambda": "λ of the selected models: faint points are seeds, the line joins their geometric means.",
}


def _meaning(comparison: Comparison) -> str:
    losses = "J is the mean over tasks of loss / dense loss"
    asked = target(comparison)
    if asked is not None:
        return f"{losses}, among models with at least {asked:.0%} group sparsity; lower is better."
    price = dense_objective(comparison) - 1
    return f"{losses}, plus {price:g} × the share of trunk weights kept; lower is better."


def _table_note(comparison: Comparison) -> str:
    useful = comparison.metrics.get("useful_share")
    share = f" {useful:.0%} of the time was spent in trials." if useful is not None else ""
    return (
        "Models are selected by validation J; means over seeds, trials are sums. Δm is the mean change of "
        f"the tasks' test metrics against dense; dense is charged to nobody.{share}"
    )


def _pairs(comparison: Comparison) -> str:
    table = paired_table(comparison.rows, target(comparison))
    if table.empty:
        return ""
    note = "Differences by seed, intervals not corrected for the number of pairs; below 0, A is better."
    return page.section("Paired by seed", page.table(table), page.text(note))


def _cost(comparison: Comparison, passes: float | None) -> str:
    parts = []
    curves = comparison.anytime[comparison.anytime["arm"] != REFERENCE]
    for metric, words in {
        "test_objective": "On test J:",
        "objective": "On validation J, what the arms see:",
    }.items():
        table = match_table(cost_to_match(curves, metric), passes)
        if not table.empty:
            parts += [page.text(words, "about"), page.table(table)]
    note = "The budget at which one arm first is as good as the other at its end; the median over seeds."
    return page.section("Cost to match", page.text(note), *parts) if parts else ""


def _failures(trials: pd.DataFrame, rows: pd.DataFrame) -> str:
    failed = trials[trials["status"].isin(["FAILED", "KILLED"])]
    noted = rows[rows["note"].notna() & (rows["note"].astype(str) != "")]
    table = pd.DataFrame(
        {
            "Arm": [*failed["arm"], *noted["arm"]],
            "Seed": [str(seed) for seed in [*failed["seed"], *noted["seed"]]],
            "Trial": [*(str(index) for index in failed["index"]), *("all" for _ in noted["note"])],
            "Error": [
                *failed["error"].where(failed["error"] != "", failed["status"].str.lower()),
                *noted["note"],
            ],
        }
    )
    if table.empty:
        return page.section("Failed trials", page.text("None."))
    return page.section("Failed trials and notes", page.table(table))


def _reproduce(comparison: Comparison) -> str:
    rows, tags = comparison.rows, comparison.tags
    arms, seeds = list(dict.fromkeys(rows["arm"])), sorted(set(rows["seed"]))
    preset = f" --preset {tags['preset']}" if tags.get("preset") else ""
    command = tags.get(
        "command", f"python -m ms_automl.search{preset} --arms {','.join(arms)} --seeds {len(seeds)}"
    )
    facts = {
        "Seeds": ", ".join(str(seed) for seed in seeds),
        "Git revision": tags.get("git_revision", ""),
        "Versions": ", ".join(f"{name} {version}" for name, version in comparison.versions.items()),
        "Trials side by side": tags.get("slots", ""),
        "MLflow run": comparison.run_id,
        "MLflow store": _store_name(comparison.tracking_uri),
        "Wall-clock": _minutes(comparison.metrics.get("cost/wall_seconds")),
    }
    note = "Settings changed with --set are in the configuration below."
    config: dict[str, Any] = comparison.config
    return page.section(
        "How to reproduce",
        page.code(command),
        page.text(note),
        page.definitions(facts),
        page.details("Configuration", page.code(json.dumps(config, indent=2, ensure_ascii=False, default=str))),
    )


def _store_name(uri: str) -> str:
    """The store without a password, and without the folders of the machine that wrote the report."""
    return f"sqlite:///{Path(uri).name}" if uri.startswith("sqlite:") else without_password(uri)


def _minutes(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds / 60:.1f} min"
