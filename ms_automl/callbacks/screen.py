"""What the terminal shows: a live table while trials run, the comparison at the end."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from ms_automl.comparison.judge import zeros
from ms_automl.comparison.run import Callback, Run, Status, Trial
from ms_automl.comparison.state import Comparison


class Screen(Callback):
    """A live table where there is a terminal, a line per finished trial where there is none."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.comparison: Comparison | None = None
        self.live: Live | None = None

    def begin(self, comparison: Comparison) -> None:
        """Start showing a comparison."""
        self.comparison = comparison
        if self.console.is_terminal:
            table = partial(progress_table, comparison)
            self.live = Live(console=self.console, refresh_per_second=2, get_renderable=table)
            self.live.start()

    def end(self) -> None:
        """Stop, leaving nothing half drawn."""
        if self.live is not None:
            self.live.stop()

    def trial_ended(self, run: Run, trial: Trial) -> None:
        """Say a failure where it happens; without a terminal, every trial."""
        if trial.error and trial.status == Status.FAILED:
            self.console.print(f"{trial.shown_as} {trial.status.lower()}: ", style="red", end="")
            self.console.print(trial.error, markup=False, soft_wrap=True)
        elif not self.console.is_terminal and self.comparison and (how := self.comparison.judge.summary(trial)):
            line = f"{trial.shown_as:<18} {how}  {trial.seconds:.0f} s"
            self.console.print(line + (f"  {trial.error}" if trial.error else ""))


def progress_table(comparison: Comparison) -> Table:
    """The state of every run, with the time that is left."""
    elapsed = time.monotonic() - comparison.began
    table = Table(box=box.SIMPLE_HEAD, title=f"{clock(elapsed)} elapsed, {_eta(comparison)}", title_justify="left")
    rows = [_progress(comparison, run) for run in comparison.runs.values()]
    for name in rows[0]:
        table.add_column(name, justify="left" if name in ("arm", "stage", "now") else "right")
    for row in rows:
        table.add_row(*row.values())
    return table


def _progress(comparison: Comparison, run: Run) -> dict[str, str]:
    """A run's row of the live table, by column."""
    running = [trial for trial in run.trials if trial.status == Status.RUNNING]
    if running and "step" in running[0].metrics:
        now = f"step {running[0].metrics['step']:.0f}"
    else:
        now = "running" if running else "done" if run.closed else "waiting"
    trials = f"{len(run.trials) - len(running)}/{run.planned_trials}"
    if run.name == run.arm:  # a later stage has no seed of its own, no budget, and nothing that is best
        return {"stage": run.name, "trials": trials, "now": now}
    best = run.best.metrics if run.best else None
    spent, limit = comparison.ledger.totals(run.name).spent, comparison.ledger.limit(run.name)
    return {
        "arm": run.arm,
        "seed": str(run.seed),
        "trials": trials,
        "spent": "free" if math.isinf(limit) else f"{spent / limit:.0%}",
        "best J": f"{best['val/objective']:.3f}" if best else "-",
        "sparsity": zeros(best["density"]) + " %" * (best["density"] <= 1) if best else "-",
        "now": now,
    }


def comparison_table(rows: list[dict[str, Any]], trial_cost: float) -> Table:
    """The result: a row per arm and seed as in comparison.json, cost in multiples of one fixed-λ trial."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    forms = {"objective": "{:.3f}", "test_objective": "{:.3f}", "delta_m": "{:+.1f}"}
    headings = ["arm", "seed", "J val", "J test", "Δm %", "zeros", "trials", "cost", "sec"]
    if any(row.get("delta_m_single") is not None for row in rows):  # where a network for each task was trained
        forms["delta_m_single"] = "{:+.1f}"
        headings.insert(headings.index("zeros"), "Δm₁ %")
    for name in headings:
        table.add_column(name, justify="left" if name == "arm" else "right", no_wrap=True)
    for row in rows:
        found = ["-" if row[name] is None else form.format(row[name]) for name, form in forms.items()]
        share = "-" if row["density"] is None else zeros(row["density"])
        trials = row["spent"] / trial_cost
        cost, seconds = f"{trials:.{2 if trials < 100 else 0}f}x", f"{row['device_seconds']:.0f}"
        table.add_row(row["arm"], str(row["seed"]), *found, share, str(row["trials"]), cost, seconds)
    return table


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """A line for every row that has something to say: beside the numbers there is no room for it."""
    telling = [row for row in rows if row["note"] or row["status"] != "ok"]
    return [f"{row['arm']}-{row['seed']}: {row['note'] or row['status']}" for row in telling]


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds: ``3:05``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _eta(comparison: Comparison) -> str:
    ended = [trial for trial in comparison.trials.values() if trial.status == Status.FINISHED]
    done = len(ended) - comparison.restored
    if done <= 0 or comparison.first_start is None:
        return "time left not known yet"
    planned = sum(
        len(run.trials) if run.closed else max(run.planned_trials, len(run.trials))
        for run in comparison.runs.values()
    )
    rate = done / (time.monotonic() - comparison.first_start)
    return f"about {clock(max(0, planned - len(comparison.trials) * 0.5 - len(ended) * 0.5) / rate)} left"


def warn(console: Console, line: str) -> None:
    """Say what went wrong, in red."""
    console.print(line, style="red", markup=False, soft_wrap=True)
