"""What the driver takes for 10,000 trials on 1,000 slots, by part, and whether that grows faster than the trials.

    python benchmarks/scheduling.py [--trials 1000,3000,10000] [--slots 1000] [--json FILE]

Trials are simulated (ms_automl/driver/simulation.py): samplers, Scheduler, Comparison, Ledger and events on
disk and Optuna's journal are the real ones and do all that they do in a comparison; no Ray runs and nothing is
trained. A comparison is the preset rooms' (14 λ, 10 reports a trial) with so many seeds that its runs fill the
slots; a trial lasts as long as one that is recorded in benchmarks/runs/rooms. Every size runs in its own
process:

    random    dense, meta and 8 trials of random search a seed
    optuna    the same with TPE: many small studies in one journal
    deep      TPE alone with 4 seeds: few large studies, whose suggestions take longer the more trials there are
    store     a tenth of the smallest size with the real MLflow store (SQLite) written to: an empty one, and one
              that holds the runs of the largest size

In the first three MLflow's writes are made and counted, by a client that keeps nothing, in the driver's own time:
at the rate that `store` measures, 10,000 trials would take hours. Its lines extrapolate, and say so.
benchmarks/SPEED.md has what was measured.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import os
import pstats
import random
import resource
import runpy
import subprocess
import sys
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

from mlflow.tracking import MlflowClient

from ms_automl.callbacks.mlflow import Tracker
from ms_automl.callbacks.mlflow.artifacts import Artifacts
from ms_automl.callbacks.mlflow.writer import Writer
from ms_automl.comparison.events import EventLog, TrialEvents
from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.run import Suggestion, Trial
from ms_automl.config import load_config
from ms_automl.driver.assembly import assemble, planned_passes
from ms_automl.driver.progress import suggestion_of
from ms_automl.driver.simulation import Clock, Passes, Script, Simulation

HERE = Path(__file__).parent
SETTINGS = {
    "random": (["random", "meta"], 8),
    "optuna": (["optuna", "meta"], 8),
    "deep": (["optuna"], None),
    "store": (["random", "meta"], 8),
}
DEEP_SEEDS = 4
PARTS = ("suggest", "sampler", "report", "ledger", "journal", "tracker")


class Recorded:
    """Trials last as long as recorded ones of their method: which one, the trial's name says.

    Args:
        folder: of the records, a line of JSON each.
        whole: passes of a whole trial that is suggested.
    """

    def __init__(self, folder: Path, whole: Callable[[Suggestion], Passes]) -> None:
        self.whole = whole
        self.seconds: dict[str, list[float]] = {}
        lines = (line for file in sorted(folder.glob("*.jsonl")) for line in file.open(encoding="utf-8"))
        for row in map(json.loads, lines):
            if not row["error"]:
                self.seconds.setdefault(row["method"], []).append(row["seconds"])

    def __call__(self, trial: Trial, passes: Passes, first: bool) -> float:
        """A report's share of a recorded trial, whose start is among it."""
        seconds = random.Random(trial.name).choice(self.seconds[trial.method])
        return seconds * sum(passes.values()) / sum(self.whole(suggestion_of(trial)).values())


class Stopwatch:
    """Seconds by part, those of a part that another one calls not counted twice."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self._nested: list[float] = []

    def time(self, part: str, owner: Any, *names: str) -> None:
        """Count what these methods of an object take."""
        for name in names:
            setattr(owner, name, self._timed(part, getattr(owner, name)))

    def _timed(self, part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._nested.append(0.0)
            began = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                took = time.perf_counter() - began
                self.seconds[part] += took - self._nested.pop()
                self.calls[part] += 1
                if self._nested:
                    self._nested[-1] += took

        return timed


class CountingWriter(Writer):
    """Counts what it is given to write, and writes it at once: to a store that keeps nothing."""

    def start(self) -> None:
        """No thread."""

    def put(self, write: Callable[[int], object]) -> None:
        """Count a write."""
        self.written += 1
        write(0)

    def close(self) -> None:
        """Nothing waits."""


class Discarding:
    """A store's client that takes everything and keeps nothing."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *given, **options: SimpleNamespace(info=SimpleNamespace(run_id=uuid.uuid4().hex))


def measure(kind: str, trials: int, slots: int, folder: Path, profile: bool) -> dict[str, Any]:
    """Simulate a comparison of about so many trials; what it took."""
    arms, budget = SETTINGS[kind]
    seeds = DEEP_SEEDS if budget is None else trials // (budget + 2)
    budget = budget or trials // DEEP_SEEDS
    config = load_config("rooms", arms=arms, seeds=seeds, settings=[f"budget.trials={budget}"])
    experiment, watch = Experiment(config), Stopwatch()
    store = f"sqlite:///{folder / 'mlflow.db'}"
    tracker = Tracker(store)
    if kind != "store":
        tracker.writer, tracker.client = CountingWriter(), cast(MlflowClient, Discarding())
        tracker.artifacts = cast(Artifacts, Discarding())
    planned = planned_passes(experiment)
    out, clock = folder / "out", Clock()
    out.mkdir()
    began = time.perf_counter()
    comparison, scheduler = assemble(
        experiment,
        log := EventLog(out),
        studies=out / "optuna.journal",
        clock=clock,
        planned=lambda suggestion, _: planned(suggestion, config.first_seed),
    )
    assembled = time.perf_counter() - began
    journal = TrialEvents(log, comparison)
    comparison.callbacks += [tracker, journal]
    watch.time("suggest", scheduler, "next")
    watch.time("report", scheduler, "report", "end")
    watch.time("report", comparison, "started", "stored")
    watch.time("ledger", comparison.ledger, "add")
    watch.time("journal", journal, "trial_ended", "trial_stored")
    watch.time("tracker", tracker, "trial_started", "trial_reported", "trial_ended")
    for progress in scheduler.progress.values():
        watch.time("sampler", progress.sampler, "ask", "record", "stops")
    script = Script(experiment, lambda suggestion: planned(suggestion, config.first_seed))
    seconds = Recorded(HERE / "runs" / "rooms", script.plan)
    tracker.begin("scheduling", {}, config.to_dict())
    for run in comparison.runs.values():
        tracker.run_opened(run)
    gc.collect()
    resident, profiler = _resident(), cProfile.Profile()
    if profile:
        profiler.enable()
    outcome = Simulation(scheduler, script, seconds, clock, slots).run()
    profiler.disable()
    grown, driver = _resident() - resident, sum(watch.seconds.values())
    written = time.perf_counter()
    tracker.writer.close()
    if profile:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(25)
    count = outcome.whole.trials
    return {
        "kind": kind,
        "trials": count,
        "runs": len(comparison.runs),
        "slots": slots,
        "most": outcome.concurrency,
        "makespan": outcome.seconds,
        "driver_seconds": driver,
        "assembly_seconds": assembled,
        "seconds": {part: watch.seconds[part] for part in PARTS},
        "calls": {part: watch.calls[part] for part in PARTS},
        "writes": tracker.writer.written,
        "writer_seconds": tracker.writer.seconds,
        "left_over_seconds": time.perf_counter() - written,
        "lost": tracker.writer.lost,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "grown_kb_per_trial": grown / count * 1024,
        "files_kb_per_trial": sum(file.stat().st_size for file in out.iterdir()) / 1024 / count,
    }


def _resident() -> float:
    """MB of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def in_a_process(kind: str, trials: int, slots: int, folder: Path, *options: str) -> dict[str, Any]:
    """:func:`measure` in a process of its own: its memory is its own too."""
    folder.mkdir(parents=True, exist_ok=True)
    root = str(HERE.parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, __file__, "--one", kind, "--trials", str(trials), "--slots", str(slots)]
    command += ["--folder", str(folder), *options]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def shown(found: dict[str, Any]) -> str:
    """A row of the table: milliseconds of the driver per trial."""
    trials = found["trials"]
    parts = [1000 * found["seconds"][part] / trials for part in PARTS]
    cells = [1000 * found["driver_seconds"] / trials, *parts]
    return (
        f"{found['kind']:<7}{trials:>7}{found['runs']:>8}{found['most']:>6} "
        + "".join(f"{cell:>8.2f}" for cell in cells)
        + f"{found['memory_mb']:>8.0f}{found['grown_kb_per_trial']:>7.1f}"
    )


def rate(found: dict[str, Any]) -> str:
    """What the store keeps up with."""
    a_second, a_trial = found["writes"] / found["writer_seconds"], found["writes"] / found["trials"]
    minutes = 10_000 * a_trial / a_second / 60
    return (
        f"store with the runs of {found['there']} trials: {a_second:.0f} writes a second, {a_trial:.1f} a trial,\n"
        f"{a_second / a_trial:.1f} trials a second; 10,000 trials in {minutes:.0f} min, extrapolated from "
        f"{found['trials']}"
    )


def main() -> None:
    """Measure all sizes, print them, and what ends first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", default="1000,3000,10000", help="sizes, with commas")
    parser.add_argument("--slots", type=int, default=1000)
    parser.add_argument("--kinds", default="random,optuna,deep,store", help="which, with commas")
    parser.add_argument("--json", type=Path, help="write everything there as well")
    parser.add_argument("--profile", action="store_true", help="print where the time goes, function by function")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    sizes = [int(size) for size in args.trials.split(",")]
    if args.one:
        print(json.dumps(measure(args.one, sizes[0], args.slots, args.folder, args.profile)))
        return
    options = ["--profile"] if args.profile else []
    results = []
    heads = ("all", *PARTS)
    print(f"{'':<7}{'trials':>7}{'runs':>8}{'busy':>6} " + "".join(f"{head:>8}" for head in heads), end="")
    print(f"{'peak MB':>8}{'kB':>7}")
    print(f"{'':<29}" + f"{'driver, ms a trial':^{8 * len(heads)}}" + f"{'':>8}{'a trial':>7}")
    with TemporaryDirectory() as temporary:
        for kind in args.kinds.split(","):
            if kind == "store":
                continue
            for size in sizes if kind != "deep" else [size // 10 for size in sizes]:
                folder = Path(temporary) / f"{kind}-{size}"
                results.append(in_a_process(kind, size, args.slots, folder, *options))
                print(shown(results[-1]), flush=True)
        if "store" in args.kinds.split(","):
            results += store(Path(temporary), sizes[0] // 10, sizes[-1], args.slots)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def store(temporary: Path, trials: int, there: int, slots: int) -> list[dict[str, Any]]:
    """What the real store takes, when it is empty and when it holds the runs of so many trials."""
    results = []
    for name in ("empty", "full"):
        folder = temporary / f"store-{name}"
        folder.mkdir()
        if name == "full":
            runpy.run_path(str(HERE / "report_speed.py"))["make_store"](folder, there, 10)
        found = in_a_process("store", trials, slots, folder) | {"there": there if name == "full" else 0}
        results.append(found)
        print(rate(found))
    return results


if __name__ == "__main__":
    main()
