"""One Tuner for a whole comparison."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.error import TuneError

from ms_automl.comparison.experiment import Experiment
from ms_automl.tuning.adapter import TrialAdapter
from ms_automl.tuning.lifecycle import Lifecycle, NextTrial, Order, Schedule, Stopper
from ms_automl.tuning.session import Session
from ms_automl.tuning.starting import StartMonitor


def run_trials(
    experiment: Experiment,
    schedule: Schedule,
    session: Session,
    *,
    keep: bool = True,
    remove: Callable[[str], None] | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Run every trial of a schedule: Ray Tune's loop asks for them, and its hooks say what becomes of them.

    Args:
        experiment: what trials are built from.
        schedule: says what runs next, hears of everything.
        session: where they run, and leave their models.
        keep: whether the model of every trial is kept.
        remove: has a place deleted that nobody needs any more; None deletes it at once.
        say: shows a line to who looks on.

    Raises:
        StartError: where on this machine no trial begins at all.
    """
    remove = remove or session.storage.remove
    resources = experiment.config.resources
    trainable = tune.with_resources(
        tune.with_parameters(TrialAdapter, experiment=experiment, needs=session.needs, keep=keep),
        {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial},
    )
    start_monitor, searcher = StartMonitor(session, resources, say), NextTrial(schedule)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=Order(searcher),
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=_folder_name,
        ),
        run_config=tune.RunConfig(
            # A folder of its own for every start: Ray would take one that is there for its own unfinished run.
            name=f"tune-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}",
            storage_path=session.storage.address,
            verbose=0,
            stop=Stopper(schedule),
            callbacks=[Lifecycle(schedule, session.storage, remove, resources.report_timeout, start_monitor)],
            # What is stored, and what of it is needed no more, the schedule knows; and which trials go on.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=keep),
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )
    try:
        tuner.fit()
    except TuneError as error:
        raise _first(error) from None


def _first(error: BaseException) -> BaseException:
    """What went wrong first: Ray's own errors have pages of tracebacks for a message."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error


def _folder_name(trial: Any) -> str:
    """A trial's folder: Ray's own name spells out what the trial is built from, too long for some stores."""
    return str(trial.trial_id)
