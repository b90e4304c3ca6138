"""Channels of a model go to zero while it trains: the step after the optimiser's, for anybody's training loop."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ms_automl.errors import ConfigError, DivergenceError
from ms_automl.meta.level import AskedLevel, PricedLevel
from ms_automl.meta.reference import Reference
from ms_automl.meta.rule import Rule
from ms_automl.meta.schedule import LambdaSchedule
from ms_automl.meta.settings import LearnerSettings
from ms_automl.models import frozen_buffers
from ms_automl.models.penalised import told
from ms_automl.sparsifier.base import GroupSparsifier
from ms_automl.sparsifier.goal import Goal
from ms_automl.sparsifier.ranks import Ranks, refuse_sharded
from ms_automl.sparsifier.scope import (
    Chosen,
    as_network,
    as_optimizers,
    check_metric,
    check_names,
    check_precision,
    check_steps,
    image_shape_of,
    kept_modules,
    unwrapped,
)
from ms_automl.sparsity import Groups, build_groups
from ms_automl.sparsity.choice import choose

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

IDLE = 200
"""Calls of :meth:`Sparsifier.step` in a row without a step of the optimisers that are worth a word."""
RECORDS = 100
"""Rows of the history over a training, besides those of losses."""


class Sparsifier(GroupSparsifier):
    """Learns how sparse each layer of a model should be, and makes it so, while somebody else trains it.

        sparsifier = Sparsifier(model, optimizer, example=images[:1], steps=10_000, target=0.6)
        for images, labels in loader:
            optimizer.zero_grad()
            loss(model(images), labels).backward()
            optimizer.step()
            sparsifier.step()
        small = sparsifier.compact()

    In the first ``prox_share`` of the steps, the *sparsifying* phase, proximal steps of
    Σ_l λ_l Σ_g sqrt(n_g) ||θ_g|| drive whole groups of weights to zero, λ_l learned meanwhile (docs/method.md,
    'The rule'). Then the zeros are frozen and the rest trains on. η is the optimiser's learning rate at each step.

    Exactly one of ``target``, ``price``, ``schedule`` and ``rule`` says how sparse the model becomes.

    Args:
        model: trained in place; it may be wrapped in ``DistributedDataParallel`` or compiled. λ acts on its
            ungrouped convolutions and linear layers, of a MultiTaskNet on those of its trunk.
        optimizer: what trains it; several as a sequence.
        example: [B, channels, H, W] images as the model takes them.
        steps: optimiser steps of the whole training.
        target: share of the model's weights (of a MultiTaskNet: of its trunk's) to be zero in the end.
        price: of J = loss / dense loss + price · density; the level is learned from what :meth:`observe` is told.
        schedule: a given λ.
        rule: one of your own, or what makes one of the groups.
        learner: how λ is learned: a key of :data:`~ms_automl.meta.learners.LEARNERS`, or its settings.
        reference: a dense network's losses, for ``price``. None foretells its course from the losses before the
            ramp, which then begins after a fifth of the phase (:class:`~ms_automl.meta.early.EarlyReference`).
        outer_loss: the model's loss on a fresh validation batch, for the learners that take a gradient of it.
        bounds: (low, high) of λ; None reads them off the weights (:class:`~ms_automl.meta.bounds.MeasuredBounds`).
        keep: what to leave alone: names of modules, which stand for all in them, or a predicate on names. Under
            ``coupled`` the channels that pass a norm or a grouped convolution in it stay, too. Layers whose
            outputs are the model's own are always left alone.
        only: the layers to take and no others: convolutions and linear layers.
        removable: names of layers that may lose every channel; None finds those that all may at once.
        prox_share: share of the steps that the sparsifying phase takes.
        grouping: which weights go to zero together, a key of :data:`~ms_automl.sparsity.GROUPINGS`; None tries
            which of them compaction can take out of this model (:func:`~ms_automl.sparsity.choice.choose`).
        prox_metric: of a given λ's proximal step, a key of :data:`~ms_automl.sparsity.PROX_METRICS`.

    Attributes:
        warnings: what a user should know of the run, a line each.
        choice: which weights go to zero together, and why.
        rows: of the history, by column.

    Raises:
        ConfigError: for arguments out of range, or a target beyond what λ can act on.
        NetworkError: where no channel of the model can go to zero, or it does not run on such images.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        *,
        example: Tensor,
        steps: int,
        target: float | None = None,
        price: float | None = None,
        schedule: LambdaSchedule | None = None,
        rule: Rule | Callable[[Groups], Rule] | None = None,
        learner: str | LearnerSettings = "waterfill",
        reference: Reference | None = None,
        outer_loss: Callable[[], Tensor] | None = None,
        bounds: tuple[float, float] | None = None,
        keep: Chosen | str = (),
        only: Chosen | str | None = None,
        removable: Collection[str] | None = None,
        prox_share: float = 0.75,
        grouping: str | None = None,
        prox_metric: str = "euclidean",
    ) -> None:
        if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
            raise ConfigError(f"`model` must be an nn.Module in Python, but is a {type(model).__name__}")
        self.ranks = Ranks(model)
        with self.ranks.together():
            goal = Goal(target, price, schedule, rule, learner, reference, outer_loss, bounds)
            optimizers = as_optimizers(optimizer)
            refuse_sharded(model)
            self.model, self.example = unwrapped(model), example
            removable = [removable] if isinstance(removable, str) else removable
            if removable is not None and not isinstance(removable, Collection):
                raise ConfigError(f"`removable` takes names of layers, but got a {type(removable).__name__}")
            check_names(grouping, prox_metric)
            self.network = as_network(self.model, removable)
            self.image_shape = image_shape_of(example)
            check_steps(steps, prox_share)
            trained = [value for one in optimizers for group in one.param_groups for value in group["params"]]
            whole = self.network is not self.model
            check_metric(prox_metric, optimizers, schedule is not None)
            kept = kept_modules(self.network, self.image_shape, keep, only, trained, ends=whole)
            grouping = grouping or (None if goal.any_groups else "input_channel")
            self.choice = choose(self.network, self.image_shape, kept, grouping)
            groups = build_groups(self.network, self.grouping, self.image_shape, kept)
            check_precision(groups)
        self.ranks.check((steps, prox_share, target, price, self.grouping), "the sparsifier's arguments")
        super().__init__(groups, optimizers, steps=steps, prox_share=prox_share, prox_metric=prox_metric)
        self.rule = goal.build(groups, self.prox_steps, self.prox)
        if outer_loss is not None:
            self.outer_gradient = lambda parameters: _gradient(self.model, outer_loss, parameters)
        self._names = {id(value): name for name, value in self.model.named_parameters()}
        self.warnings: list[str] = []
        self._idle = 0  # calls in a row without a step of the optimisers
        self.rows: list[dict[str, float]] = []
        self._told: set[str] = set()  # the tasks whose losses were told
        if not self.choice.serves:
            self._warn(f"what goes to zero could not be taken out of this model: {self.choice.why}")
        if (share := groups.share) < 0.5:
            self._warn(f"λ can act on {100 * share:.3g} % of the model's weights; left out: {self._left_out}")

    @property
    def grouping(self) -> str:
        """Which weights go to zero together."""
        return self.choice.grouping

    @property
    def sparsity(self) -> float:
        """Share of the model's weights (of a MultiTaskNet: of its trunk's) in zero groups."""
        return self.measure()["sparsity/trunk"]

    @property
    def _left_out(self) -> str:
        return (
            told(self.groups.left_out) or "parameters of other layers than ungrouped convolutions and linear ones"
        )

    def check_layers(self) -> None:
        """Refuse where a layer or a weight was replaced since the sparsifier was made.

        Raises:
            ConfigError: naming one.
        """
        held = {id(value) for value in self.model.parameters()}
        for weight in self.groups.weights:
            if id(weight) not in held:
                raise ConfigError(
                    f"'{self._names[id(weight)]}' is no longer a weight of the model: it was replaced since the "
                    "sparsifier was made. Change the model first, then make optimizer and sparsifier"
                )

    def step(self) -> None:
        """To be called after each optimiser step; without one since the last call it does nothing.

        With a GradScaler: ``scaler.step(optimizer); scaler.update(); sparsifier.step()``. A scheduler may step
        before or after.

        Raises:
            ConfigError: where the gradients of that step have been written to since, or a layer was replaced.
            DivergenceError: where the weights are no longer finite.
        """
        before = self.taken
        super().step()
        self._idle = self._idle + 1 if self.taken == before else 0
        if self._idle == IDLE:
            self._warn(f"no optimizer that was given has stepped in the last {IDLE} calls of sparsifier.step()")
        if self.taken == before:
            return
        every, ends = max(1, self.steps // RECORDS), (self.prox_steps, self.steps)
        if self.taken % every == 0 or self.taken in (1, *ends):
            self.check_layers()
        if self.taken % every == 0 or self.taken in ends:
            self._record({})
        if self.taken == self.prox_steps:
            self.ranks.check((self.groups.norms() > 0).tolist(), "which groups they have zeroed")
            for line in self.rule.warnings():
                self._warn(line)
            level, begin = getattr(self.rule, "level", None), getattr(self.rule, "begin", 0.0)
            if isinstance(level, PricedLevel) and not any(phase > begin for phase, _, _ in level.measured):
                self._warn(
                    "no loss was told while zeros came: the level is a guess; call sparsifier.observe(loss)"
                )

    def observe(self, losses: float | Mapping[str, float]) -> None:
        """Tell how the model does on validation samples: what ``price`` learns from, and a row of the history.

        In a distributed training every rank calls it, and the mean of what they tell counts.

        Args:
            losses: the loss, or L_t by task; best under batch statistics, as batch norm's averages lag behind
                (docs/method.md, 'What a weight costs').

        Raises:
            ConfigError: for a loss that the goal cannot use.
        """
        with self.ranks.together():
            try:
                found = {str(name): float(loss) for name, loss in _by_task(losses).items()}
            except (TypeError, ValueError, RuntimeError) as error:
                raise ConfigError(f"a loss is a number, or numbers by task, but got {losses!r}") from error
            if not found or (self._told and found.keys() != self._told):
                raise ConfigError(
                    f"losses are of the same tasks each time ({', '.join(self._told)}), but got {found}"
                )
            if bad := {name: value for name, value in found.items() if not math.isfinite(value)}:
                raise ConfigError(f"a loss must be finite, but got {bad}")
        found = dict(zip(found, self.ranks.mean(list(found.values())), strict=True))
        if self.pattern is None and self.taken < self.prox_steps:
            for line in self.hear(found, 1 - self.measure()["sparsity/param"]):
                self._warn(line)
        self._told = set(found)
        self._record({f"loss/{name}": value for name, value in found.items()})

    def _warn(self, line: str) -> None:
        self.warnings.append(line)
        warnings.warn(line, UserWarning, stacklevel=3)

    def _record(self, losses: dict[str, float]) -> None:
        measured = self.measure()
        if not bool(self.groups.norms().isfinite().all()):
            raise DivergenceError(f"weights are NaN or infinite by step {self.taken}: lower the learning rate")
        shares = {"sparsity": measured["sparsity/trunk"]}
        layers = {key: value for key, value in measured.items() if key.startswith(("sparsity/layer/", "lambda/"))}
        self.rows.append({"step": self.taken} | shares | losses | layers)

    @property
    def history(self) -> DataFrame:
        """By step: sparsity, what :meth:`observe` was told, sparsity and λ by layer."""
        from ms_automl.sparsifier.reading import history

        return history(self)

    def summary(self) -> DataFrame:
        """By layer: groups, zero groups, weights, zero weights, λ, multiply-adds of an image, dense and now."""
        from ms_automl.sparsifier.reading import summary

        return summary(self)

    def plot(self) -> Figure:
        """Sparsity by step, and the course of λ by layer."""
        from ms_automl.sparsifier.reading import plot

        return plot(self)

    def compact(self, model: nn.Module | None = None) -> nn.Module:
        """A copy without its zero channels, of the same class and with the same outputs, in evaluation mode.

        Args:
            model: an average of the model's weights, or another copy of it, to be made as sparse; None is the
                model itself.

        Raises:
            ConfigError: where single weights are zero and no channels.
            NetworkError: where what is left would not compute the same.
        """
        from ms_automl.sparsifier.reading import compacted

        return compacted(self, model)

    def state_dict(self) -> dict[str, Any]:
        """Everything that later steps depend on, and the history."""
        own = {"rows": [dict(row) for row in self.rows], "warnings": list(self.warnings)}
        return super().state_dict() | own | {"made": self._made()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`; of a model and optimisers that are restored too.

        Raises:
            ConfigError: for the state of a sparsifier that was made otherwise.
        """
        made = state.get("made") if isinstance(state, dict) else None
        if made != self._made():
            raise ConfigError(
                f"this is the state of another sparsifier: made as {made}, and this one as {self._made()}"
            )
        try:
            super().load_state_dict(state)
            self.rows, self.warnings = [dict(row) for row in state["rows"]], list(state["warnings"])
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ConfigError(
                f"this state is damaged, or of another version ({type(error).__name__}: {error})"
            ) from error

    def _made(self) -> dict[str, Any]:
        """What a state must agree in."""
        measured = getattr(getattr(self.rule, "bounds", None), "measures", False)
        level = getattr(self.rule, "level", None)
        kinds = {"rule": type(self.rule).__name__, "level": type(level).__name__, "bounds measured": measured}
        if isinstance(level, AskedLevel):
            kinds["share asked for"] = level.share
        layers = [f"{name}: {count}" for name, count in zip(self.groups.names, self.groups.counts, strict=True)]
        return {"steps": self.steps, "prox_steps": self.prox_steps, "layers": layers} | kinds

    def __getstate__(self) -> dict[str, Any]:
        raise ConfigError(
            "a sparsifier cannot be copied or pickled, as it watches an optimizer: make another one, and give it "
            "this one's state_dict()"
        )


def _by_task(losses: Any) -> Mapping[str, Any]:
    if isinstance(losses, str):
        raise TypeError
    found = losses if isinstance(losses, Mapping) else {"loss": losses}
    return {name: loss.detach() if isinstance(loss, Tensor) else loss for name, loss in found.items()}


def _gradient(model: nn.Module, loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    with frozen_buffers(model):
        value = loss()
    return list(torch.autograd.grad(value, list(parameters), allow_unused=True, materialize_grads=True))
