"""Samplers as searchers of Ray Tune, for a Tuner and a trainable of one's own."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from ray.tune.search import Searcher

from ms_automl.comparison.registry import Space
from ms_automl.comparison.run import Suggestion
from ms_automl.errors import ConfigError
from ms_automl.samplers.base import DONE, WAIT, Observation, Result, Sampler
from ms_automl.samplers.meta import MetaSparsity


class SamplerSearcher(Searcher):
    """A sampler behind the interface of Ray Tune.

    The config of a trial is ``{"method": ..., "params": {...}, "values": {...}}``: a key of
    :data:`trainables.METHODS`, its arguments as JSON (``schedule`` in the form of ``LambdaSchedule.to_dict``), and
    what was chosen, by parameter. A trial reports the metric that is searched by, and where there are such
    ``violation`` (by how much its sparsity misses a target) and ``schedule`` (the λ that it has learned).

    Args:
        sampler: one that stops no trial and builds none on another: a Ray searcher can do neither.
        metric: that trials report; None for the Tuner's own.
        mode: ``min`` or ``max``; None for the Tuner's own.

    Raises:
        ConfigError: for a sampler that stops trials.
    """

    def __init__(self, sampler: Sampler, metric: str | None = None, mode: str | None = None) -> None:
        super().__init__(metric=metric, mode=mode)
        if sampler.stops_trials or sampler.sequential:
            raise ConfigError(
                f"{type(sampler).__name__} stops trials or builds one on another, which a Ray searcher cannot: "
                "take one that does not, or `ask` it yourself"
            )
        self.sampler = sampler
        self._trials: list[Observation] = []

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Take over the Tuner's metric and mode; a space of its own it must not have."""
        if config:
            return False
        self._metric, self._mode = self._metric or metric, self._mode or mode
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next trial's config, None while it waits for one that runs, FINISHED at the end."""
        answer = self.sampler.ask(self._trials)
        if answer is WAIT:
            return None
        if answer is DONE:
            return Searcher.FINISHED
        assert isinstance(answer, Suggestion)
        if answer.start is not None or answer.until is not None:
            raise ConfigError(f"{type(self.sampler).__name__} builds trials on others: a Ray searcher cannot")
        known = next((n for n, trial in enumerate(self._trials) if not trial.ended), len(self._trials))
        self._trials.append(Observation(trial_id, answer, known))
        return {"method": answer.method, "params": answer.params, "values": answer.values}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hear how a trial ended."""
        ended = None
        if result is not None and not error and self._metric in result:
            objective = float(result[self._metric]) * (-1 if self._mode == "max" else 1)
            ended = Result(objective, float(result.get("violation", 0.0)), result.get("schedule"))
        for index, trial in enumerate(self._trials):
            if trial.name == trial_id:
                self._trials[index] = replace(trial, ended=True, result=ended)

    def save(self, checkpoint_path: str) -> None:
        """Write the trials so far."""
        Path(checkpoint_path).write_text(json.dumps([asdict(trial) for trial in self._trials]), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Go on from what :meth:`save` wrote."""
        entries = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
        self._trials = TypeAdapter(list[Observation]).validate_python(entries)


def as_searcher(sampler: Sampler, metric: str | None = None, mode: str | None = None) -> Searcher:
    """A sampler as :class:`ray.tune.search.Searcher` (:class:`SamplerSearcher`)."""
    return SamplerSearcher(sampler, metric, mode)


class MetaSparsitySearcher(SamplerSearcher):
    """The meta-sparsity trainer as a searcher: a trial that learns λ, then fixed λ around what it has learned.

    Args:
        space: what λ may be, over the layers of the network (:data:`search_spaces.SPACES`).
        seed: of the steps around the learned λ.
        metric: that trials report; as ``mode`` None for the Tuner's own.
    """

    def __init__(self, space: Space, seed: int = 0, metric: str | None = None, mode: str | None = None) -> None:
        super().__init__(MetaSparsity(space, seed), metric, mode)
