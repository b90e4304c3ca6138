"""The one training and evaluation loop that every way of training uses.

A trial has two phases. In the *sparsifying* phase a rule may zero groups after each optimiser step (a prox, a
pruning). Then the pattern of zeros is frozen for good and the network trains on without shrinkage
('debiasing'), or every surviving weight would stay too small and a sparse model would look worse than it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ms_automl.environment.lazy import lazy

if TYPE_CHECKING:
    from ms_automl.training.constant import constant_losses
    from ms_automl.training.evaluation import Metrics, evaluate, task_losses, weighted
    from ms_automl.training.feed import BatchOrder, State
    from ms_automl.training.finite import Seen
    from ms_automl.training.loop import TrainingLoop
    from ms_automl.training.settings import PROBE, TrainingSettings
    from ms_automl.training.trainable import Trainable

__all__ = [
    "PROBE",
    "BatchOrder",
    "Metrics",
    "Seen",
    "State",
    "Trainable",
    "TrainingLoop",
    "TrainingSettings",
    "constant_losses",
    "evaluate",
    "task_losses",
    "weighted",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "BatchOrder": "ms_automl.training.feed",
        "Metrics": "ms_automl.training.evaluation",
        "PROBE": "ms_automl.training.settings",
        "Seen": "ms_automl.training.finite",
        "State": "ms_automl.training.feed",
        "Trainable": "ms_automl.training.trainable",
        "TrainingLoop": "ms_automl.training.loop",
        "TrainingSettings": "ms_automl.training.settings",
        "constant_losses": "ms_automl.training.constant",
        "evaluate": "ms_automl.training.evaluation",
        "task_losses": "ms_automl.training.evaluation",
        "weighted": "ms_automl.training.evaluation",
    },
)
