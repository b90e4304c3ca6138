"""A trial: what is suggested, what it reports, the run it belongs to, and who is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ms_automl.meta import Reference


class Role(StrEnum):
    """What an arm stands for in a comparison; tables show the roles in this order."""

    LEARNED = "learned"
    """Learns λ by training."""
    SEARCHED = "searched"
    """Searches λ by trials."""
    PRUNED = "pruned"
    """Removes groups without a λ."""
    LITERATURE = "literature"
    """A method of a paper, as it is there."""
    CONTROL = "control"
    """What else could explain a difference to the reference."""
    REFERENCE = "reference"
    """The dense network that every objective is relative to."""


@dataclass(frozen=True)
class Start:
    """Where a trial begins that does not begin at the beginning.

    Attributes:
        what: ``state``: the other trial goes on where it was stopped; ``weights``: a whole training from its
            weights.
        trial: name of the other trial, of the same run.
    """

    what: Literal["state", "weights"]
    trial: str


@dataclass(frozen=True)
class Suggestion:
    """One trial to run.

    Attributes:
        method: a key of :data:`trainables.METHODS`.
        params: the method's own arguments, as JSON.
        values: what a sampler chose, by parameter name; for the record.
        until: the report at which it stops; None for its end.
        share: of a whole trial, what it takes at most.
        start: where it begins; None for the initialisation of its seed.
        profile: whether arithmetic and time of its compact network are measured at its end.
        title: what records and the screen call it; '' where its number does.
        about: what it is, for the record, where ``values`` do not say.
    """

    method: str
    params: dict[str, Any]
    values: dict[str, float]
    until: int | None = None
    share: float = 1.0
    start: Start | None = None
    profile: bool = False
    title: str = ""
    about: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Assignment:
    """What a trial's process is built from.

    Attributes:
        suggestion: method and arguments.
        seed: of split, initialisation, data order and episodes.
        reference: the dense reference of the seed; None for the reference itself.
        training_seed: of initialisation, data order and episodes, where not ``seed``.
        start: what it begins from (:attr:`Start.what`), and the place where that lies.
        states: places of states that it may go on from, the newest last.
    """

    suggestion: Suggestion
    seed: int
    reference: Reference | None = None
    training_seed: int | None = None
    start: tuple[str, str] | None = None
    states: tuple[str, ...] = ()


class Status(StrEnum):
    """Where a trial stands."""

    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    """The trial came to its end."""
    FAILED = "FAILED"
    """The trial went wrong, or its process was lost for the last time."""
    STOPPED = "STOPPED"
    """The trial's arm or budget ended it on the way."""
    KILLED = "KILLED"
    """The comparison was stopped."""


@dataclass(frozen=True)
class Report:
    """What a trial says after each interval.

    Attributes:
        interval: 0, 1, … within the trial; one that another process has reported already may come again.
        metrics: as ``Trainable.step`` gives them; empty where the interval failed.
        passes: by kind (train, outer, hessian, forward; never empty), of this interval alone.
        device_seconds: since the device was granted or the last report.
        busy_seconds: of these, spent training or evaluating.
        evaluation_seconds: of these, spent evaluating.
        done: no further report follows.
        error: one line, where the trial failed.
        schedule: the learned λ, where there is one.
        warnings: what a user should know of how λ was learned or the trial went on, a line each; of the whole
            trial so far.
        peak_memory: of the trial's process so far, MB.
        host: address of the host it runs on, as Ray knows it.
    """

    interval: int
    metrics: dict[str, float]
    passes: dict[str, float]
    device_seconds: float
    busy_seconds: float
    done: bool
    error: str | None = None
    schedule: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    peak_memory: float = 0.0
    evaluation_seconds: float = 0.0
    host: str = ""


@dataclass
class Trial:
    """One trial of a run.

    Attributes:
        start: name of the trial it began from, and how (:class:`Start`).
        until: the report at which it stops; None for its end.
        share: of a whole trial, what it takes at most.
        profile: whether its compact network is measured at its end.
        title: what records and the screen call it; '' where its number does.
        about: what it is, for the record, where ``values`` do not say.
        known: of how many of its run's trials its sampler knew the end when it was suggested.
        training_seed: of a retraining on a fresh seed, which is charged to nobody and cannot win.
        reports: how many it has made.
        attempt: how often it had begun before its process did.
        interruptions: how often its process was lost and another one went on, since the driver began.
        states: places of the states it can go on from, the newest last; none once it has ended.
        rungs: reports at which its arm decides whether it goes on.
        at_rungs: J there, by report.
        course: of a dense reference its losses on the way, by step and task.
        last_seen: when its process last gave a sign of life, on the comparison's clock.
        checkpoint: where its model lies, or the state that another trial goes on from (a place,
            :mod:`ms_automl.storage.remote`); None before its end.
        host: address of the host that it ran on.
    """

    id: str
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
    known: int = 0
    start: dict[str, str] | None = None
    training_seed: int | None = None
    status: Status = Status.RUNNING
    metrics: dict[str, float] = field(default_factory=dict)
    schedule: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None
    passes: float = 0.0
    device_seconds: float = 0.0
    busy_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    reports: int = 0
    attempt: int = 0
    interruptions: int = 0
    states: tuple[str, ...] = ()
    rungs: tuple[int, ...] = ()
    at_rungs: dict[int, float] = field(default_factory=dict)
    course: dict[int, dict[str, float]] = field(default_factory=dict)
    started: float | None = None
    last_seen: float | None = None
    seconds: float = 0.0
    peak_memory: float = 0.0
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
    """One arm with one seed: its trials come one after another.

    Attributes:
        role: of its arm.
        winners: the methods whose trials may be selected.
        limit: in the budget's unit; not known yet (inf) where it is a multiple of what the dense reference took.
        planned_trials: how many whole trials the budget allows; after as many failures the run gives up.
        retrained: the selected model's method again, on fresh training seeds.
        settled: how many of its trials, in the order in which they were suggested, have ended without a gap. Best
            and curve are those of these: they do not depend on which of several trials at a time ended first.
        passes: of these.
        macs_ratio: multiply-adds of the selected model, compacted, over the dense network's; None before the end.
        latency_ratio: the same of the time for a batch.
    """

    arm: str
    seed: int
    space: str
    limit: float
    winners: tuple[str, ...]
    planned_trials: int
    role: Role = Role.SEARCHED
    trials: list[Trial] = field(default_factory=list)
    retrained: list[Trial] = field(default_factory=list)
    settled: int = 0
    passes: float = 0.0
    best: Trial | None = None
    anytime: list[tuple[float, float, float, float]] = field(default_factory=list)
    closed: bool = False
    note: str = ""
    macs_ratio: float | None = None
    latency_ratio: float | None = None

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
