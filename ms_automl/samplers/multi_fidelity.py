"""Arms whose trials build on each other's training: a short rung for many, and a warm-started sweep."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from ray.tune.search import Searcher

from ms_automl.comparison.registry import Parameter
from ms_automl.comparison.run import Start, Suggestion
from ms_automl.samplers.base import ListedTrials, Render, Sampler, draw


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
        super().__init__()
        self.parameters = parameters
        self.render = render
        self.random = random.Random(seed)
        self.rung = rung
        # Where a trial makes one report alone, its end is the rung, and every candidate has come to it.
        self.kept = max(1, trials // 4) if share < 1 else 0
        self.short: dict[str, Any] = {"until": rung, "share": share} if share < 1 else {}
        self.least = min(share, 1 - share or 1.0) * 0.9  # the test split is passed at the end alone
        self.candidates = max(self.kept, int((trials - self.kept * (1 - share)) / share + 1e-9))
        self.asked: dict[str, Suggestion] = {}
        self.open: set[str] = set()
        self.ranked: list[tuple[float, float, str]] = []
        self.gone_on = 0

    def suggest(self, trial_id: str) -> Any:
        """A candidate; once all have ended, the best of them again, to the end."""
        if len(self.asked) < self.candidates:
            values = {parameter.name: draw(parameter, self.random) for parameter in self.parameters}
            self.asked[trial_id] = replace(self.render(values), **self.short)
            self.open.add(trial_id)
            return {"suggestion": self.asked[trial_id]}
        if self.open:
            return None
        best = sorted(self.ranked)[: self.kept]
        if self.gone_on == len(best):
            return Searcher.FINISHED
        name = best[self.gone_on][2]
        self.gone_on += 1
        return {"suggestion": replace(self.asked[name], until=None, share=1.0, start=Start("state", name))}

    def resume(self, trial_id: str, suggestion: Suggestion) -> None:
        """Take over a candidate, or one that goes on."""
        if suggestion.start is None:
            self.suggest(trial_id)
            self.asked[trial_id] = suggestion
        else:
            self.gone_on += 1

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Rank a candidate."""
        if trial_id not in self.open:
            return
        self.open.remove(trial_id)
        if not error and result is not None:
            self.ranked.append((max(0.0, result["violation"]), result["objective"], trial_id))


class Path(Sampler):
    """One sweep of λ upward, each trial from the weights of the one before, as glmnet fits a lasso path.

    Every trial has both of its phases in full, so each point of the path is debiased.

    Args:
        listed: the trials, λ rising.
    """

    in_turn = True

    def __init__(self, listed: ListedTrials) -> None:
        super().__init__()
        self.listed = listed
        self.last: str | None = None

    def suggest(self, trial_id: str) -> Any:
        """The next λ, from the weights of the last trial that came to its end."""
        answer = self.listed.suggest(trial_id)
        if answer == Searcher.FINISHED or self.last is None:
            return answer
        return {"suggestion": replace(answer["suggestion"], start=Start("weights", self.last))}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial that failed leaves the path where it was."""
        if not error and result is not None:
            self.last = trial_id
