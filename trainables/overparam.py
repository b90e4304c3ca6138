"""Overparameterised multi-task training, contracted afterwards (our reading of arXiv 2308.13300)."""

from __future__ import annotations

from ms_automl.data import MultiTaskData
from ms_automl.errors import ConfigError
from ms_automl.meta import LambdaSchedule
from ms_automl.models import MultiTaskNet, overparameterise
from ms_automl.models.cost import Cost
from ms_automl.training import Trainable, TrainingSettings
from trainables.dense import Dense
from trainables.fixed_lambda import FixedLambda


def overparam(
    data: MultiTaskData,
    network: MultiTaskNet,
    settings: TrainingSettings,
    seed: int,
    *,
    schedule: LambdaSchedule | None = None,
) -> Trainable:
    """Σ_t w_t L_t over the factors of W_t = U M_t V, with the groups V[:, c] sparse where a λ is given.

    It is :class:`~trainables.dense.Dense`, or :class:`~trainables.fixed_lambda.FixedLambda` where a λ is given,
    on a network whose convolutions are factored (:mod:`ms_automl.models.overparam` has the form, its start and
    what is not known of the paper's). Saving contracts the factors (:func:`ms_automl.models.contract` does it
    by hand): the kept network is as small as any other. A sample counts as one pass: the product is taken once a
    step and not once a sample, and what it takes shows in device seconds only.

    Args:
        data: what to train on.
        network: its convolutions are factored in place, then trained in place.
        settings: length, optimiser and phases.
        seed: of the data order.
        schedule: λ by layer, of the groups of V; None trains without sparsity. A λ found for ordinary
            convolutions need not carry over, because U and M can make up for a V that shrinks.

    Raises:
        ConfigError: for a grouping whose zeros in V are none in U M V.
    """
    _check(settings)
    overparameterise(network)
    if schedule is None:
        return Dense(data, network, settings, seed)
    return FixedLambda(data, network, settings, seed, schedule=schedule)


def overparam_cost(data: MultiTaskData, settings: TrainingSettings) -> Cost:
    """What a whole run costs: as many passes as any.

    Raises:
        ConfigError: for a grouping whose zeros in V are none in U M V.
    """
    _check(settings)
    return settings.cost(data)


def _check(settings: TrainingSettings) -> None:
    if settings.grouping != "input_channel":
        raise ConfigError(
            f"overparam keeps the zeros of input channels alone, but got training.grouping={settings.grouping}: "
            "set training.grouping=input_channel"
        )
