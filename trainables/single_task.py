"""One network for each task, dense or group-sparse: what the literature holds multi-task training against."""

from __future__ import annotations

from dataclasses import replace

from ms_automl.data import MultiTaskData
from ms_automl.meta import LambdaSchedule
from ms_automl.models import MultiTaskNet
from ms_automl.models.cost import Cost
from ms_automl.models.separate import networks_of, separate
from ms_automl.sparsity import build_groups
from ms_automl.training import Metrics, State, TrainingSettings
from trainables.dense import Dense
from trainables.fixed_lambda import FixedLambda


class SingleTask:
    """T networks, each trained on L_t of its own task: the baselines of 'Less is More' (arXiv 2308.12114).

    Each has a trunk and a head, and starts from the weights that the multi-task network has. As no parameter is
    that of two tasks, Σ_t w_t L_t trains each network as its own loss alone would. A sample is T passes, and the
    metric ``networks`` says that density counts T times: J holds all T against one dense multi-task network.

    Args:
        data: what to train on.
        network: separated in place, then trained in place.
        settings: length, optimiser and phases; the tasks' losses do not weigh on each other, whatever they say.
        seed: of the data order.
        lambda_: of every layer of every network; None trains without sparsity.
    """

    def __init__(
        self,
        data: MultiTaskData,
        network: MultiTaskNet,
        settings: TrainingSettings,
        seed: int,
        *,
        lambda_: float | None = None,
    ) -> None:
        separate(network)
        self.networks, settings = networks_of(network), replace(settings, weighting="equal")
        self.method: Dense | FixedLambda
        if lambda_ is None:
            self.method = Dense(data, network, settings, seed)
        else:
            names = build_groups(network, settings.grouping, data.image_shape).names
            schedule = LambdaSchedule.constant(dict.fromkeys(names, lambda_))
            self.method = FixedLambda(data, network, settings, seed, schedule=schedule)
        self.loop = self.method.loop
        self.loop.passes = self.networks
        self.cost = self.loop.cost

    @staticmethod
    def planned_cost(data: MultiTaskData, settings: TrainingSettings) -> Cost:
        """What a whole run costs."""
        return replace(settings, weighting="equal").cost(data).times(len(data.tasks))

    @property
    def done(self) -> bool:
        """Whether the last report was made."""
        return self.loop.done

    def step(self) -> Metrics:
        """Train one report interval and evaluate."""
        return self.method.step() | {"networks": float(self.networks)}

    def state_dict(self) -> State:
        """Everything that the rest of the run depends on."""
        return self.method.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Restore :meth:`state_dict`."""
        self.method.load_state_dict(state)
