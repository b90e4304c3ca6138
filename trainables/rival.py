"""Training with a sparsity method of the literature in the place of λ."""

from __future__ import annotations

from ms_automl.data import Batch, MultiTaskData
from ms_automl.errors import ConfigError, unknown_name
from ms_automl.models import MultiTaskNet
from ms_automl.models.cost import Cost
from ms_automl.rivals import Rival, RivalInputs, check_rival
from ms_automl.training import Metrics, State, TrainingLoop, TrainingSettings


class RivalTraining:
    """Multi-task training whose groups go to zero by a rule of :data:`~ms_automl.rivals.RIVALS`.

    Data, groups, phases and optimiser are those of every other trainable, and what is zero at the end of the
    sparsifying phase stays so, unless the method's own recipe lets it come back.

    Args:
        data: what to train on.
        network: trained in place.
        settings: length, optimiser and phases.
        seed: of the data order, and of what the method draws.
        rule: a key of :data:`~ms_automl.rivals.RIVALS`.
        level: share of the trunk's penalised weights to be zero in the end, 0 to 1; of a method that is told one.
        knobs: of the rule, by name.

    Raises:
        ConfigError: for an unknown rule or knob, a level out of range, or groups that the rule does not cover.
    """

    def __init__(
        self,
        data: MultiTaskData,
        network: MultiTaskNet,
        settings: TrainingSettings,
        seed: int,
        *,
        rule: str,
        level: float | None = None,
        **knobs: float,
    ) -> None:
        method = check_rival(rule, settings.grouping)
        if level is None and method.levelled:
            raise ConfigError(f"'{rule}' needs a level, the share of the weights to be zero: level=0.5")
        if level is not None and not 0 <= level < 1:
            raise ConfigError(f"`0 <= level < 1` must hold, but got level={level}")
        for name in knobs:
            if name not in method.knobs:
                raise unknown_name(f"knob of '{rule}'", name, list(method.knobs))
        self.loop = loop = TrainingLoop(data, network, settings, seed)
        self.cost = loop.cost
        sparsifier = loop.sparsifier
        given = RivalInputs(sparsifier.groups, settings.steps, sparsifier.prox_steps, level or 0.0, seed)
        self.rule = sparsifier.rule = method.build(given, **knobs)

    @staticmethod
    def planned_cost(data: MultiTaskData, settings: TrainingSettings, *, rule: str) -> Cost:
        """What a whole run costs: a training, whatever the rule is.

        Raises:
            ConfigError: for groups that the rule does not cover.
        """
        check_rival(rule, settings.grouping)
        return settings.cost(data)

    @property
    def done(self) -> bool:
        """Whether the last report was made."""
        return self.loop.done

    def step(self) -> Metrics:
        """Train one report interval and evaluate."""
        return self.loop.interval(backward=self._backward)

    def _backward(self, batch: Batch) -> None:
        sparsifier, rule = self.loop.sparsifier, self.rule
        if isinstance(rule, Rival) and sparsifier.taken < sparsifier.prox_steps:
            rule.prepare()
            self.loop.backward(batch)
            rule.adjust()
        else:
            self.loop.backward(batch)

    def state_dict(self) -> State:
        """Everything that the rest of the run depends on."""
        return {"loop": self.loop.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Restore :meth:`state_dict`."""
        self.loop.load_state_dict(state["loop"])
