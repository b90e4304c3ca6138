"""All arms over a training that costs nothing: the scheduler, the ledger and the samplers without a Ray."""

import math
from dataclasses import replace
from pathlib import Path

from ms_automl.comparison.events import EventLog, Replay, TrialEvents, replay
from ms_automl.comparison.judge import Judge
from ms_automl.comparison.ledger import DEVICE_SECONDS, PASSES, Ledger, flops
from ms_automl.comparison.run import Assignment, Run
from ms_automl.comparison.state import Comparison
from ms_automl.config import load_config
from ms_automl.driver.scheduler import Scheduler
from ms_automl.driver.simulation import Clock, Simulation
from ms_automl.meta import LambdaSchedule, Objective
from ms_automl.samplers.arms import ARMS
from ms_automl.samplers.base import DONE, SamplerInputs
from ms_automl.tasks import classification
from ms_automl.tuning.run import LOST
from search_spaces import SPACES

LAYERS = ("stem", "conv")
REPORTS = 6
PASS = {"train": 90.0, "outer": 0.0, "forward": 10.0}
FACTOR = {"meta_sparsity": 1.25}  # of what a dense trial costs
UNITS = {"passes": PASSES, "device_seconds": DEVICE_SECONDS, "flops": flops(train=3e6, forward=1.1e6)}
UNIT = sum(PASS.values())
LEARNED = LambdaSchedule.constant({"stem": 0.3, "conv": 0.6})


def cost(method, share=1.0):
    return {kind: FACTOR.get(method, 1.0) * share * passes for kind, passes in PASS.items()}


class MadeUp:
    """Results that depend on what was suggested only; passes without an evaluation's."""

    def passes(self, trial, interval):
        return cost(trial.method, 1 / REPORTS)

    def metrics(self, trial, interval):
        size = sum(abs(math.log(abs(value) + 1e-3)) for value in trial.values.values())
        loss = (1.0 + size) * (1 + 1 / (interval + 1)) + 0.01 * (trial.training_seed or 0) % 7
        density = 1.0 if trial.method == "dense" else 0.2 + 0.6 / (1 + size)
        metrics = {"step": 10.0 * (interval + 1), "density": density, "sparsity/param": 1 - density}
        metrics |= {"sparsity/trunk": 1 - density, "sparsity/group": 1 - density, "probe/digit/loss": 2 * loss}
        for split in ("val", "test") if interval == REPORTS - 1 else ("val",):
            metrics |= {f"{split}/digit/loss": loss, f"{split}/digit/accuracy": 0.5}
        return metrics

    def learned(self):
        return LEARNED.to_dict()


class Bench(Simulation):
    """A simulation of some arms for some seeds whose trials are run by hand.

    Args:
        folder: of ledger, journal and studies.
        broken: from (run, trial) to an error that its last report brings, "unbuilt" (an error at no cost) or
            False.
        slow: how much longer the trials of an arm take than others.
    """

    def __init__(
        self, folder, seeds=(0,), trials=4, arms=tuple(ARMS), unit="passes", retrain=0,
        broken=lambda run, trial: False, slow=None, recorders=(), resumed=False, objective=None,
        space="per_layer", retries=0, at_a_time=1,
    ):  # fmt: skip
        settings = [f"budget.trials={trials}", f"space={space}", "training.steps=60", "training.report_every=10"]
        objective = objective or Objective()
        settings += [f"objective.kind={objective.kind}", f"objective.target={objective.target}"]
        config = load_config("smoke", settings=settings)
        bounds = config.lambda_.stated
        layers = SPACES[space](LAYERS, (bounds.low, bounds.high))
        measure, runs, samplers = UNITS[unit], [], {}
        one = measure.total(PASS) if measure.planned else 1.0
        for seed in seeds:
            for name in ("dense", *(arm for arm in arms if arm != "dense")):
                arm = ARMS[name]
                planned = 1 if arm.single else round(trials * arm.share)
                run = Run(name, seed, space, arm.share * trials * one, arm.winners, planned, arm.role)
                runs.append(run)
                tuned = ["tune.training.lr="] if name == "meta-in-optuna" else []
                own = load_config("smoke", settings=[*settings, *tuned])
                given = SamplerInputs(own, layers, bounds, seed, objective, folder / "optuna.journal")
                samplers[run.name] = arm.sampler(given)
        done = replay(folder) if resumed else Replay()
        limits = {run.name: run.limit for run in runs} if measure.planned else {}
        log = EventLog(folder)
        ledger = Ledger(limits, measure, done.charges, log.charged)
        judge, clock = Judge(objective, [classification("digit", 10)]), Clock()
        self.state = Comparison(judge, runs, ledger, recorders, clock)
        self.state.callbacks.append(TrialEvents(log, self.state))

        def planned(suggestion, seed):
            return cost(suggestion.method)

        def made(run):
            return samplers[run.name]

        scheduler = Scheduler(self.state, made, planned, REPORTS, retrain, retries, at_a_time)
        scheduler.resume(done.ended, done.pending)

        def seconds(trial, passes, first):
            return (slow or {}).get(trial.run.rpartition("-")[0], 1.0)

        super().__init__(scheduler, MadeUp(), seconds, clock, None)
        self.folder, self.broken = folder, broken
        self.count, self.configs, self.at = 0, {}, {}

    def ask(self):
        self.count += 1
        name = f"trial{self.count}" if not self.state.trials else f"trial{len(self.state.trials)}-{self.count}"
        answer = self.scheduler.next(name)
        if isinstance(answer, Assignment):
            self.configs[name] = answer
            self.at[name] = int(answer.states[-1].rpartition("@")[2]) if answer.states else 0
            self.state.started(name)
        return name, answer

    def report(self, name, number):
        """What the trial says after an interval; a trial that goes on begins where the other one stopped."""
        trial, said = self.state.trials[name], self.report_of(name, number)
        said = replace(said, busy_seconds=0.8 * said.device_seconds)
        if not said.done or not (error := self.broken(self.state.runs[trial.run], trial)):
            return said
        passes = dict.fromkeys(PASS, 0.0) if error == "unbuilt" else said.passes
        return replace(said, metrics={}, passes=passes, error=error, schedule=None)

    def step(self, name):
        """One interval of a running trial; True where it is over."""
        trial = self.state.trials[name]
        self.clock.now += 1.0
        number = self.at[name]
        self.at[name] += 1
        if self.broken(self.state.runs[trial.run], trial) == "unbuilt":
            number = REPORTS - 1 - self.begins(trial)
        report = self.report(name, number)
        stop = self.scheduler.report(name, report)
        if stop or report.done:
            self.over(name, report)
        return stop or report.done

    def over(self, name, report):
        self.scheduler.end(name, report)
        trial = self.state.trials[name]
        if trial.status in ("FINISHED", "STOPPED"):
            self.state.stored(name, str(self.folder / "tune" / trial.name))

    def store(self, name):
        """A running trial leaves a state."""
        place = self.folder / "tune" / f"{self.state.trials[name].name}-{name}@{self.at[name]}"
        return self.scheduler.stored(name, str(place))

    def lose(self, name, why=LOST):
        """The process of a running trial is lost."""
        self.clock.now += 1.0
        self.scheduler.end(name, lost=why)

    def finish(self, name):
        while not self.step(name):
            pass

    def run(self, slots, pick=min, most=math.inf):
        """Run to the end, or for so many intervals, with `slots` trials at a time; `pick` says which goes on."""
        running, history = [], []
        while most > 0:
            answer = None
            if len(running) < slots:
                name, answer = self.ask()
                if answer is DONE and not running:
                    return history
                if isinstance(answer, Assignment):
                    running.append(name)
                    history.append(self.state.trials[name].name)
                    charged = [self.state.trials[trial] for trial in running]
                    busy = [trial.run for trial in charged if trial.training_seed is None]
                    together = max(map(busy.count, busy), default=0)
                    assert together <= self.scheduler.concurrency, "too many trials of one run at a time"
            if not isinstance(answer, Assignment):
                assert running, "nothing runs and nothing is suggested: the Tuner would wait for ever"
                name = pick(running)
                most -= 1
                if self.step(name):
                    running.remove(name)
        return history

    def table(self):
        timed = {"wall_seconds", "device_seconds", "searcher_seconds", "lost_passes"}
        timed |= {"training_seconds", "evaluation_seconds", "startup_seconds"}
        return [{key: value for key, value in row.items() if key not in timed} for row in self.state.rows()]

    def row(self, arm, seed=0):
        return next(row for row in self.state.rows() if (row["arm"], row["seed"]) == (arm, seed))


def folder(path: Path, name: str) -> Path:
    path = path / name
    path.mkdir()
    return path
