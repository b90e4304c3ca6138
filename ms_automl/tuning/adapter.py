"""The one Ray trainable: any method of ``trainables/``, driven interval by interval."""

from __future__ import annotations

import gc
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.result import SHOULD_CHECKPOINT

from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.run import Assignment, Report
from ms_automl.comparison.selection import compacted, real_images
from ms_automl.errors import DataError, MsAutomlError
from ms_automl.models.archive import load as load_model
from ms_automl.models.cost import Cost
from ms_automl.storage.remote import as_folder
from ms_automl.storage.tensors import load, save
from ms_automl.tuning.hosts import Needs

STATE = "state"


class TrialAdapter(tune.Trainable):
    """Runs one trial; its process is kept for the next one (``reuse_actors``).

    A method's own failure (a loss that is NaN, say) is a report and not a crash: the trial ends, what it cost
    is charged, the process lives on.
    """

    def setup(
        self,
        config: dict[str, Any],
        experiment: Experiment | None = None,
        needs: Needs | None = None,
        keep: bool = True,
    ) -> None:
        """Take over a trial; it is built with its first step.

        Ray knows that a process is up once this is over: what a user's factories do, however long, comes after.
        Experiment, needs of this host and whether states are kept come with the first trial of a process.
        """
        if experiment is not None:
            self.experiment, self.needs, self.keep = experiment, needs, keep
            self.unfit: str | None = None
            self.host = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
            self.gpu = experiment.config.resources.device.type == "cuda"
        self.assignment: Assignment = config["assignment"]
        self.method: Any = None
        self.network: Any = None
        self.interval, self.charged = 0, Cost()
        self.warnings: tuple[str, ...] = ()
        self.last_report, self.last_stored = time.perf_counter(), time.monotonic()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take over the next trial."""
        self.setup(new_config)
        return True

    def _build(self) -> str | None:
        """Build the trial; why that fails, if it does."""
        if self.needs is not None:
            self.unfit, self.needs = self.needs.missing(), None
        if self.unfit is not None:
            return f"host {self.host} {self.unfit}"
        # More threads than cores make a step up to ten times slower when a neighbour is busy.
        torch.set_num_threads(self.experiment.config.resources.cpus_per_trial)
        if self.gpu:  # what the last trial held there goes before the next one is built: others may share it
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        assignment = self.assignment
        try:
            self.method, self.network = self.experiment.build(
                assignment.suggestion, assignment.seed, assignment.reference, assignment.training_seed
            )
            if not self._goes_on(assignment.states) and assignment.start is not None:
                self._begin_from(*assignment.start)
        except Exception as error:
            return _one_line(error)
        return None

    def _goes_on(self, states: tuple[str, ...]) -> bool:
        """Go on from the newest of this trial's own states that is whole; False where there is none."""
        damaged = ""
        for place in reversed(states):
            try:
                with as_folder(place) as folder:
                    state = load(folder, STATE)
            except DataError as error:
                damaged = damaged or _one_line(error)
                continue
            self.method.load_state_dict(state["method"])
            self.interval, self.charged = state["interval"], Cost(**state["charged"])
            if damaged:
                self.warnings = (f"went on from an earlier state, because {damaged}",)
            return True
        if damaged:
            self.warnings = (f"began anew, because {damaged}",)
        return False

    def _begin_from(self, what: str, place: str) -> None:
        """Take over another trial's state, or its weights alone."""
        with as_folder(place) as folder:
            if what == "state":
                state = load(folder, STATE)
                self.method.load_state_dict(state["method"])
                self.charged = Cost(**state["charged"])  # what it had cost is charged to the other
            else:
                self.network.load_state_dict(load_model(folder).state_dict())

    def step(self) -> dict[str, Any]:
        """Train and evaluate one report interval; Ray's result holds its report."""
        error = self._build() if self.method is None else None
        began, evaluating = time.perf_counter(), self._evaluating()
        metrics: dict[str, float] = {}
        if error is None:
            try:
                metrics = self.method.step()
            except Exception as problem:
                error = _one_line(problem)
        evaluating = self._evaluating() - evaluating
        if self.assignment.suggestion.profile and error is None and self.method.done:
            profiling = time.perf_counter()
            metrics |= self._compact()
            evaluating += time.perf_counter() - profiling
        if self.gpu and metrics:
            metrics["cost/peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
        report = self._report(metrics, error, time.perf_counter() - began, evaluating)
        every = self.experiment.config.resources.checkpoint_every
        stores = self.keep and not report.done and time.monotonic() - self.last_stored >= every
        return {"report": report, "done": report.done, SHOULD_CHECKPOINT: stores}

    def _compact(self) -> dict[str, float]:
        """What the network costs without its dead channels, relative to dense."""
        config = self.experiment.config
        try:
            with TemporaryDirectory() as folder:
                self.experiment.save_model(self.network, self.assignment.seed, Path(folder))
                images = real_images(self.experiment.data(self.assignment.seed))
                small = compacted(Path(folder), config.training.grouping, images)
        except Exception as error:  # it costs these figures and not the trial
            self.warnings += (f"not compacted: {_one_line(error)}",)
            return {}
        found = {"compact/macs_ratio": small.macs_ratio, "compact/latency_ratio": small.latency_ratio}
        return {name: value for name, value in found.items() if value is not None}

    def _evaluating(self) -> float:
        return 0.0 if self.method is None else float(self.method.loop.evaluation_seconds)

    def _report(self, metrics: dict[str, float], error: str | None, busy: float, evaluating: float) -> Report:
        now, method = time.perf_counter(), self.method
        cost = Cost() if method is None else method.cost
        done = error is not None or method.done
        schedule = getattr(method, "schedule", None) if done and error is None else None
        report = Report(
            interval=self.interval,
            metrics=metrics,
            passes=cost.since(self.charged).by_kind(),
            device_seconds=now - self.last_report,
            busy_seconds=busy,
            evaluation_seconds=evaluating,
            done=done,
            error=error,
            schedule=None if schedule is None else schedule.to_dict(),
            warnings=(*self.warnings, *getattr(method, "warnings", ())),
            peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            host=self.host,
        )
        self.charged, self.last_report = Cost(**cost.to_dict()), now
        self.interval += 1
        return report

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the model, and before the end the state to go on from."""
        if self.method is None:
            return
        self.experiment.save_model(self.network, self.assignment.seed, Path(checkpoint_dir))
        if not self.method.done:
            state = {"method": self.method.state_dict(), "interval": self.interval}
            save(state | {"charged": self.charged.to_dict()}, Path(checkpoint_dir), STATE)
        self.last_stored = time.monotonic()


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, MsAutomlError) else f"{type(error).__name__}: {text}"
