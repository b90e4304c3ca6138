"""The one searcher a Tuner sees: it routes to streams, one per arm and seed, each with its own sampler.

Within a stream trials come one after another, so what a sampler proposes does not depend on how many streams
run beside it: the same config and seed give the same trials at any number of slots. Slots are filled by
streams, the longest first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.search import Searcher

from ms_automl.comparison import Comparison, Stream, Trial
from ms_automl.tuning.experiment import Suggestion
from ms_automl.tuning.sampling import Sampler

PlannedPasses = Callable[[str, int], float]


class StreamRouter(Searcher):
    """Suggests the next trial of whichever stream is free and can afford it.

    Args:
        comparison: told of every trial and report.
        samplers: by stream name.
        planned_passes: what a trial of a method and seed costs; no trial starts that cannot finish.
    """

    def __init__(
        self, comparison: Comparison, samplers: Mapping[str, Sampler], planned_passes: PlannedPasses
    ) -> None:
        super().__init__()
        self.comparison = comparison
        self.samplers = samplers
        self.planned_passes = planned_passes
        self.running: dict[str, Stream] = {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial's config, None while every open stream is busy, FINISHED after the last."""
        open_streams = [stream for stream in self.comparison.streams.values() if not stream.closed]
        # Ties go by order of definition: sorted() is stable.
        for stream in sorted(open_streams, key=lambda s: (s.arm != "dense", len(s.trials) - s.planned_trials)):
            if stream.name not in {busy.name for busy in self.running.values()}:
                config = self._next(stream, trial_id)
                if config is not None:
                    return config
        if all(stream.closed for stream in self.comparison.streams.values()):
            return Searcher.FINISHED
        return None

    def _next(self, stream: Stream, trial_id: str) -> dict[str, Any] | None:
        reference = self.comparison.reference(stream.seed)
        if reference is None and stream.arm != "dense":
            dense = self.comparison.streams[f"dense-{stream.seed}"]
            if dense.closed:
                stream.closed, stream.note = True, "the dense reference failed"
            return None
        failed = sum(trial.status == "FAILED" for trial in stream.trials)
        if failed >= stream.planned_trials:  # failures are cheap: the budget alone would allow endlessly many
            stream.closed, stream.note = True, "gave up"
            return None
        began = time.perf_counter()
        answer: Any = self.samplers[stream.name].suggest(trial_id)  # Ray types FINISHED away
        stream.searcher_seconds += time.perf_counter() - began
        if answer is None:
            return None
        if answer == Searcher.FINISHED:
            stream.closed = True
            return None
        suggestion: Suggestion = answer["suggestion"]
        if not self.comparison.ledger.affords(stream.name, self.planned_passes(suggestion.method, stream.seed)):
            stream.closed = True
            return None
        index = len(stream.trials)
        self.comparison.register(
            Trial(trial_id, stream.name, index, suggestion.method, suggestion.values, suggestion.params)
        )
        self.running[trial_id] = stream
        return {"suggestion": suggestion, "seed": stream.seed, "reference": reference}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Charge and judge a report; the same report again changes nothing."""
        trial = self.comparison.trials[trial_id]
        if trial.status == "RUNNING":
            self.comparison.report(trial_id, result["report"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the stream's sampler how its trial ended."""
        if error:
            self.comparison.failed(trial_id, "the trial's process died; see the log in the tune folder")
        elif result is not None:
            self.on_trial_result(trial_id, result)
        trial, stream = self.comparison.trials[trial_id], self.running.pop(trial_id)
        began = time.perf_counter()
        self.samplers[stream.name].on_trial_complete(trial_id, *self._verdict(trial))
        stream.searcher_seconds += time.perf_counter() - began

    def _verdict(self, trial: Trial) -> tuple[dict[str, Any] | None, bool]:
        if trial.status != "FINISHED":
            return None, True
        told = {
            "objective": trial.metrics["val/objective"],
            "violation": self.comparison.objective.violation(trial.metrics["density"]),
            "schedule": trial.schedule,
        }
        return told, False

    def __getstate__(self) -> dict[str, Any]:
        # Ray keeps a pickled copy to restore a Tuner from. It is never used: it could not hold open files.
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger and the records hold what a stream has done."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as above."""
