"""What is lost when something breaks: faults that are really injected into comparisons, at random moments.

    python -m benchmarks.reliability [--times 3] [--faults "a trial's process killed"] [--table]

Each fault of `tests/faults/injected.py` is injected into a small comparison (smoke: 2 arms besides dense, 3 trials
each, a retraining, a state at every report), so many times with other random moments; those of hosts into one on
the three hosts of `tests/cluster` (4 arms, 2 trials each). One that nothing is done to says what the table should
be, and the networks count what they are really asked for. A line each goes to `benchmarks/reliability.jsonl`; what
has a line is not run again. The table is written to `docs/results/reliability.md` (--table: no more than that).
Needs root for hosts, the full disk and PostgreSQL.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from importlib import metadata
from itertools import chain
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from tests.cluster.cluster import HOST_FAULTS, OnHosts, three_hosts
from tests.cluster.hosts import why_not
from tests.faults.comparison import Comparison
from tests.faults.injected import FAULTS, undisturbed

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "benchmarks" / "reliability.jsonl"
TABLE = ROOT / "docs" / "results" / "reliability.md"
ALL = [*FAULTS, *HOST_FAULTS]
Injected = tuple[str, int, Comparison, Comparison]
"""Fault, seed, the comparison that it was injected into, the undisturbed one."""
HEAD = """\
# Reliability

What was lost when something broke, in comparisons that it really broke in, at random moments: written by
`python -m benchmarks.reliability`, a row a comparison in `benchmarks/reliability.jsonl`. `make test-all`
injects them once each, of the two of hosts the one that comes back.

| fault | comparisons | injected | lost runs | doubled runs | wrong status | ledger's error | same result |
| :-- | --: | --: | --: | --: | --: | --: | :-- |"""
FOOT = """
Runs are MLflow's: every arm's and every trial's must be there once, with the status that the trial's end had.
The ledger's error is what it has, lost work with it, over what the networks counted of the samples that they
were asked for: median, and the one furthest from 0. How far a lost process had come since its last report is
reckoned, not known. On hosts one of the arms is `path`, which measures the compact form of each model in its
trial: the networks count that, and the ledger has it in seconds alone (nothing else is missing: an undisturbed
comparison of these arms without `path`, on one machine, has an error of 0.0 %). What a lost head did since its
last copy in the storage (an S3 server on this machine) is on no ledger: seconds, twice, in comparisons that take a
minute or two. A result is the same where every figure of the table but seconds and latencies is that of an
undisturbed comparison, to the last digit.

{versions}; {machine}."""


def main() -> int:
    """Run what has no line yet, then write the table; 1 where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3, help="how often each fault's comparison is run")
    parser.add_argument("--faults", nargs="*", choices=ALL, default=ALL, metavar="NAME")
    parser.add_argument("--table", action="store_true", help="run nothing")
    args = parser.parse_args()
    rows = known()
    done = {(row["fault"], row["seed"]) for row in rows}
    left = [(name, seed) for seed in range(args.times) for name in args.faults if (name, seed) not in done]
    if not args.table:
        on_one, on_hosts = ([one for one in left if one[0] in faults] for faults in (FAULTS, HOST_FAULTS))
        if on_hosts and (reason := why_not()):
            raise SystemExit(f"error: {reason}; choose other --faults")
        for name, seed, comparison, whole in chain(_on_one_machine(on_one), _on_hosts(on_hosts)):
            row = row_of(name, seed, comparison, whole)
            print(row, flush=True)
            rows.append(row)
            with RUNS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    TABLE.write_text(table(rows), encoding="utf-8")
    return int(any(row["lost"] or row["doubled"] or row["wrong"] or not row["equal"] for row in rows))


def known() -> list[dict[str, Any]]:
    """What was run before."""
    lines = RUNS.read_text(encoding="utf-8").splitlines() if RUNS.exists() else []
    return [json.loads(line) for line in lines]


def _on_one_machine(left: list[tuple[str, int]]) -> Iterator[Injected]:
    """Comparisons that faults were injected into, each with its undisturbed one."""
    if not left:
        return
    with TemporaryDirectory() as temporary:
        whole = undisturbed(_made(Path(temporary) / "whole"))
        for number, (name, seed) in enumerate(left):
            comparison = FAULTS[name](_made(Path(temporary) / str(number)), seed)
            try:
                yield name, seed, comparison, whole
            finally:
                comparison.close()


def _on_hosts(left: list[tuple[str, int]]) -> Iterator[Injected]:
    if not left:
        return
    with three_hosts() as cluster:
        whole = OnHosts(cluster, "whole").start().wait()
        for number, (name, seed) in enumerate(left):
            yield name, seed, HOST_FAULTS[name](cluster, str(number), seed), whole


def row_of(name: str, seed: int, comparison: Comparison, whole: Comparison) -> dict[str, Any]:
    """What is left of a comparison, as it is written down."""
    outcome = comparison.outcome(whole)
    return {
        "fault": name,
        "seed": seed,
        "injected": outcome.injected,
        "lost": len(outcome.lost),
        "doubled": len(outcome.doubled),
        "wrong": len(outcome.wrong),
        "ledger_error": outcome.error,
        "equal": outcome.equal and comparison.search.status == 0,
        "versions": {name: metadata.version(name) for name in ("ray", "mlflow", "optuna", "torch")},
        "revision": subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The page."""
    faults = [name for name in ALL if any(row["fault"] == name for row in rows)]
    versions = ", ".join(f"{name} {version}" for name, version in rows[-1]["versions"].items())
    lines = [HEAD]
    for name in faults:
        own = [row for row in rows if row["fault"] == name]
        errors = [row["ledger_error"] for row in own if row["ledger_error"] is not None]
        worst = max(errors, key=abs, default=None)
        error = "not counted" if worst is None else f"{_percent(median(errors))}, {_percent(worst)}"
        equal = sum(row["equal"] for row in own)
        sums = [str(sum(row[key] for row in own)) for key in ("injected", "lost", "doubled", "wrong")]
        lines.append(f"| {name} | {len(own)} | {' | '.join(sums)} | {error} | {equal} of {len(own)} |")
    lines.append(FOOT.format(versions=versions, machine=rows[-1]["machine"]))
    return "\n".join(lines) + "\n"


def _percent(share: float) -> str:
    return f"{round(share, 3) + 0.0:+.1%}"  # with no sign of minus before a zero


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
