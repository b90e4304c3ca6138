"""Arms whose trials build on each other's training: a short rung for many, and a warm-started sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ms_automl.comparison.registry import Parameter
from ms_automl.comparison.run import Start, Suggestion
from ms_automl.samplers.base import DONE, WAIT, Answer, Observation, Render, Sampler
from ms_automl.samplers.random import Draws, ListedTrials


class TopK(Sampler):
    """All candidates for one short rung, the best k from there to the end (arXiv 2307.15422).

    With b trials' worth of budget, a rung at the share r of a trial and k = max(1, b // 4) that go on, there are
    n = (b - k (1 - r)) / r candidates, drawn at random. A trial that goes on is a new one, which starts from the
    state in which the candidate was stopped.

    Args:
        parameters: what is drawn.
        render: values to a trial.
        seed: of the draws.
        trials: b.
        rung: the report at which candidates stop.
        share: r, at least what a candidate takes.
    """

    def __init__(
        self, parameters: tuple[Parameter, ...], render: Render, seed: int, trials: int, rung: int, share: float
    ) -> None:
        self.render = render
        self.draws = Draws(parameters, seed)
        self.rung = rung
        # Where a trial makes one report alone, its end is the rung, and every candidate has come to it.
        self.kept = max(1, trials // 4) if share < 1 else 0
        self.short: dict[str, Any] = {"until": rung, "share": share} if share < 1 else {}
        self.least = min(share, 1 - share or 1.0) * 0.9  # the test split is passed at the end alone
        self.candidates = max(self.kept, int((trials - self.kept * (1 - share)) / share + 1e-9))

    @property
    def stops_trials(self) -> bool:
        """True: candidates stop at the rung."""
        return True

    def ask(self, trials: Sequence[Observation]) -> Suggestion | Answer:
        """A candidate; once all have ended, the best of them again, to the end."""
        candidates = [trial for trial in trials if trial.suggestion.start is None]
        if len(candidates) < self.candidates:
            return replace(self.render(self.draws[len(candidates)]), **self.short)
        if not all(trial.ended for trial in candidates):
            return WAIT
        ranked = sorted((trial.result.rank, trial.name, trial) for trial in candidates if trial.result is not None)
        gone_on = len(trials) - len(candidates)
        if gone_on >= min(self.kept, len(ranked)):
            return DONE
        _, name, best = ranked[gone_on]
        return replace(best.suggestion, until=None, share=1.0, start=Start("state", name))


class WarmPath(Sampler):
    """One sweep of λ upward, each trial from the weights of the one before, as glmnet fits a lasso path.

    Every trial has both of its phases in full, so each point of the path is debiased.

    Args:
        listed: the trials, λ rising.
    """

    sequential = True

    def __init__(self, listed: ListedTrials) -> None:
        self.listed = listed

    def ask(self, trials: Sequence[Observation]) -> Suggestion | Answer:
        """The next λ, from the weights of the last trial that came to its end."""
        answer = self.listed.ask(trials)
        last = next((trial.name for trial in reversed(trials) if trial.result is not None), None)
        if isinstance(answer, Answer) or last is None:
            return answer
        return replace(answer, start=Start("weights", last))
