"""What a comparison came to, as the command says it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from ms_automl.callbacks.mlflow.opening import how_to_see
from ms_automl.callbacks.screen import comparison_table, notes, warn
from ms_automl.driver.compare import Ended
from ms_automl.storage.files import from_here


def say_outcome(console: Console, ended: Ended) -> None:
    """Print the table and what a reader must know of it."""
    for line in ended.content["warnings"]:
        console.print(line, style="yellow", markup=False, soft_wrap=True)
    console.print(comparison_table(ended.content["rows"], ended.trial_cost))
    for line in notes(ended.content["rows"]):
        console.print(line, markup=False, soft_wrap=True)
    for line in _lines(ended):
        console.print(line, soft_wrap=True)
    what, where = (
        ("report", from_here(ended.report)) if isinstance(ended.report, Path) else ("no report", ended.report)
    )
    console.print(f"{what}: {where}", markup=False, soft_wrap=True)
    if ended.lacks:
        complete = "comparison.json is complete, --resume adds what lacks"
        warn(console, f"MLflow lacks some records: {ended.lacks}; {complete}")
    if ended.models:
        console.print(f"models: {from_here(ended.out / 'best')}/<arm>-<seed>", markup=False, soft_wrap=True)
    console.print(f"all runs: {how_to_see(ended.store)}, and there {ended.page}", markup=False, soft_wrap=True)


def _lines(ended: Ended) -> Iterator[str]:
    config, measured = ended.content["config"], ended.content["measured"]
    objective = config["objective"]
    loss = "mean loss relative to dense"
    if objective["scale"] == "skill":
        loss = "1 + mean share that is lost of what dense has learned over a constant prediction"
    if objective["kind"] == "tradeoff":
        meaning = f"{loss} + {objective['price']:g} x density"
    else:
        meaning = f"{loss}, at a sparsity of at least {objective['target']:.0%}"
    yield f"J: {meaning}; lower is better."
    unit = config["budget"]["unit"].replace("_", " ")
    weights = ended.content["weights"]
    of = f"trunk's {weights['trunk']:,} weights, of which λ can act on {weights['penalised']:,}"
    if objective["cost"] == "penalised_weights":
        of = f"{weights['penalised']:,} weights that λ can act on, of the trunk's {weights['trunk']:,}"
    yield f"zeros: % of the {of}. cost: {unit}, in units of one fixed-λ trial."
    if any(row.get("delta_m_single") is not None for row in ended.content["rows"]):
        yield "Δm₁: against a dense network for each task; x3: of three times the dense network's weights."
    most = config["resources"]["concurrency_per_run"]
    if most > 1:
        yield f"{most} trials of an arm and seed at a time: samplers knew the results of {most - 1} fewer."
    if bounds := ended.content["bounds"]:
        each = [f"{low:.3g} to {high:.3g}" for low, high in bounds.values()]
        whose = "that of each seed" if len(each) > 1 else "the dense reference"
        yield f"λ from {', '.join(each)}, as {whose} measured."
    searcher = sum(row["searcher_seconds"] for row in ended.content["rows"])
    yield f"samplers took {searcher:.2f} s, logging {measured['cost/logging_seconds']:.1f} s"
    seeds = config["seeds"]
    if seeds < 5:
        claim = "One seed claims nothing" if seeds == 1 else f"{seeds} seeds claim nothing"
        yield f"{claim}: --seeds 5 is the least for a claim."
    yield (
        f"useful share {measured['useful_share']:.2f}, {measured['cost/wall_seconds']:.0f} s, "
        f"peak memory about {measured['cost/peak_memory_mb'] / 1024:.1f} GB"
    )
