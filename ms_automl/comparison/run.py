"""A trial: what is suggested, what it reports, the run it belongs to, and who is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ms_automl.meta import Reference


class Role(StrEnum):
    """What an arm stands for in a comparison; tables show the roles in this order."""

    LEARNED = "learned"  # learns λ by training
    SEARCHED = "searched"  # searches λ by trials
    PRUNED = "pruned"  # removes groups without a λ
    LITERATURE = "literature"  # a method of a paper, as it is there
    CONTROL = "control"  # what else could explain a difference to the reference
    BASELINE = "baseline"  # a dense network for each task, which the literature's Δm is relative to
    REFERENCE = "reference"  # the dense network that every objective is relative to


@dataclass(frozen=True)
class Start:
    """Where a trial begins that does not begin at the beginning."""

    what: Literal[
        "state", "weights"
    ]  # it goes on where the other one was stopped, or is a training from its weights
    trial: str  # name of the other one, of the same run


@dataclass(frozen=True)
class Suggestion:
    """One trial to run."""

    method: str  # a key of `trainables.METHODS`
    params: dict[str, Any]  # the method's own arguments, as JSON
    values: dict[str, float]  # what a sampler chose, by parameter name; for the record
    until: int | None = None  # the report at which it stops; None for its end
    share: float = 1.0  # of a whole trial, what it takes at most
    start: Start | None = None  # None for the initialisation of its seed
    profile: bool = False  # whether arithmetic and time of its compact network are measured at its end
    title: str = ""  # what records and the screen call it; '' where its number does
    about: dict[str, str] = field(default_factory=dict)  # what it is, for the record, where `values` do not say

    @property
    def kind(self) -> tuple[str, str]:
        """What a whole trial costs follows from that: the method, and the learner where it names one."""
        return self.method, self.params.get("learning", {}).get("learner", "")


FIXED = Suggestion("fixed_lambda", {}, {})
"""What the cost of any other trial is a share of; every λ costs the same."""


@dataclass(frozen=True)
class Assignment:
    """What a trial's process is built from."""

    suggestion: Suggestion
    seed: int  # of split, initialisation, data order and episodes
    reference: Reference | None = None  # the dense one of the seed; None for the reference itself
    training_seed: int | None = None  # of initialisation, data order and episodes, where not `seed`
    start: tuple[str, str] | None = None  # what it begins from (`Start.what`), and the place where that lies
    states: tuple[str, ...] = ()  # places of states that it may go on from, the newest last


class Status(StrEnum):
    """Where a trial stands."""

    RUNNING = "RUNNING"
    FINISHED = "FINISHED"  # it came to its end
    FAILED = "FAILED"  # it went wrong, or its process was lost for the last time
    STOPPED = "STOPPED"  # its arm or budget ended it on the way
    KILLED = "KILLED"  # the comparison was stopped


@dataclass(frozen=True)
class Report:
    """What a trial says after each interval; the seconds and passes are those of this interval alone."""

    interval: int  # 0, 1, … within the trial; one that another process has reported already may come again
    metrics: dict[str, float]  # as `Trainable.step` gives them; empty where the interval failed
    passes: dict[str, float]  # by kind: train, outer, hessian, forward; never empty
    device_seconds: float  # since the device was granted or the last report
    busy_seconds: float  # of these, spent training or evaluating
    done: bool  # no further report follows
    error: str | None = None  # one line, where the trial failed
    schedule: dict[str, Any] | None = None  # the learned λ
    # What a user should know of how λ was learned or the trial went on, a line each; of the whole trial so far.
    warnings: tuple[str, ...] = ()
    peak_memory: float = 0.0  # of the trial's process so far, MB
    evaluation_seconds: float = 0.0  # of the device's, spent evaluating
    host: str = ""  # address of the host it runs on, as Ray knows it


@dataclass
class Trial:
    """One trial of a run: what it was suggested as (:class:`Suggestion`), and what has become of it."""

    id: str  # of the process that runs it
    run: str
    index: int
    method: str
    values: dict[str, float]
    params: dict[str, Any]
    until: int | None = None
    share: float = 1.0
    profile: bool = False
    title: str = ""
    about: dict[str, str] = field(default_factory=dict)
    known: int = 0  # of how many of its run's trials its sampler knew the end when it was suggested
    start: dict[str, str] | None = None
    training_seed: int | None = None  # of a retraining, which is charged to nobody and cannot win
    status: Status = Status.RUNNING
    metrics: dict[str, float] = field(default_factory=dict)
    schedule: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None
    passes: float = 0.0
    device_seconds: float = 0.0
    busy_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    reports: int = 0  # how many it has made
    attempt: int = 0  # how often it had begun before its process did
    interruptions: int = 0  # how often its process was lost and another one went on, since the driver began
    states: tuple[str, ...] = ()  # places of those it can go on from, the newest last; none once it has ended
    rungs: tuple[int, ...] = ()  # reports at which its arm decides whether it goes on
    at_rungs: dict[int, float] = field(default_factory=dict)  # J there, by report
    course: dict[int, dict[str, float]] = field(default_factory=dict)  # of a dense reference: losses by step, task
    started: float | None = None
    last_seen: float | None = None  # when its process gave a sign of life, on the comparison's clock
    seconds: float = 0.0
    peak_memory: float = 0.0
    # Where its model lies, or the state that another trial goes on from (a place, `ms_automl.storage.remote`).
    checkpoint: str | None = None
    host: str = ""

    @property
    def name(self) -> str:
        """The trial by its number: what the log and the ledger know it by."""
        return f"{self.run}/{'' if self.training_seed is None else 'again-'}{self.index:02d}"

    @property
    def shown_as(self) -> str:
        """What records and the screen call it."""
        return f"{self.run}/{self.title}" if self.title else self.name

    @property
    def payer(self) -> str:
        """Whose account its work goes to: retraining is charged to nobody."""
        return self.run if self.training_seed is None else f"{self.run}/again"


@dataclass
class Run:
    """One arm with one seed: its trials come one after another."""

    arm: str
    seed: int
    space: str
    limit: float  # in the budget's unit; inf until it is known, where it is a multiple of what the reference took
    winners: tuple[str, ...]  # the methods whose trials may be selected
    planned_trials: int  # how many whole ones the budget allows; after as many failures the run gives up
    role: Role = Role.SEARCHED
    trials: list[Trial] = field(default_factory=list)
    retrained: list[Trial] = field(default_factory=list)  # the selected model's method, on fresh training seeds
    # How many trials, in the order in which they were suggested, have ended without a gap. `passes`, `best` and
    # `anytime` are of these: they do not depend on which of several trials at a time ended first.
    settled: int = 0
    passes: float = 0.0
    best: Trial | None = None
    anytime: list[tuple[float, float, float, float]] = field(default_factory=list)
    closed: bool = False
    note: str = ""
    macs_ratio: float | None = None  # multiply-adds of the selected model, compacted, over the dense network's
    latency_ratio: float | None = None  # the same of the time for a batch

    @property
    def is_reference(self) -> bool:
        """Whether its trial is the dense reference of its seed."""
        return self.role is Role.REFERENCE

    @property
    def name(self) -> str:
        """The run's name, ``<arm>-<seed>``."""
        return f"{self.arm}-{self.seed}"


class Callback:
    """An observer that is told what happens, in order; a subclass has the methods that concern it."""

    def trial_suggested(self, run: Run, trial: Trial) -> None:
        """A trial is to run, or to go on."""

    def trial_started(self, run: Run, trial: Trial) -> None:
        """A trial has its device."""

    def trial_reported(self, run: Run, trial: Trial, metrics: dict[str, float]) -> None:
        """A trial has made a report."""

    def trial_ended(self, run: Run, trial: Trial) -> None:
        """A trial is over, whichever way."""

    def trial_stored(self, run: Run, trial: Trial) -> None:
        """The model of a trial that is over is stored, or a state of one that runs."""
