"""What the driver and every trial share: how data, network and method are built from one configuration."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ms_automl.comparison.ledger import DEVICE_SECONDS, PASSES, Unit, flops
from ms_automl.comparison.registry import METHODS, SPACES, Space, arguments_of
from ms_automl.comparison.run import Suggestion
from ms_automl.config import Config
from ms_automl.data import MultiTaskData, on_device
from ms_automl.data.factories import OWN, build_data
from ms_automl.errors import ConfigError
from ms_automl.meta import LambdaSchedule, Objective, Reference
from ms_automl.meta.lambda_bounds import LambdaBounds
from ms_automl.meta.learners import of_penalised
from ms_automl.meta.settings import SETTINGS
from ms_automl.models import MultiTaskNet, check_network, flops_of_a_sample, head_specs
from ms_automl.models.archive import Architecture, save_model
from ms_automl.models.factories import build_network
from ms_automl.models.separate import networks_of
from ms_automl.sparsity import build_groups, remark
from ms_automl.sparsity.groups import Groups
from ms_automl.training import Trainable, TrainingSettings


@dataclass(frozen=True)
class Experiment:
    """A comparison's ingredients."""

    config: Config
    data_dir: Path | None = None  # where own data lies
    # Factories that were handed over as functions, by the name that the configuration has for them; they travel to
    # the processes of trials.
    own: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def data(self, seed: int) -> MultiTaskData:
        """The data with the split of a seed; kept for the next trial of that seed."""
        OWN.update(self.own)
        section = self.config.data
        args = json.dumps(section.args, sort_keys=True)
        return _data(id(OWN.get(section.factory)), section.factory, args, seed, self.data_dir)

    def network(self, seed: int, training_seed: int | None = None) -> MultiTaskNet:
        """The network for the data of a seed with the initialisation of it, or of a training seed; checked."""
        data, section = self.data(seed), self.config.network
        own, heads = seed if training_seed is None else training_seed, head_specs(data.tasks)
        network = build_network(section.factory, section.args, image_shape=data.image_shape, heads=heads, seed=own)
        check_network(network, data.image_shape, data.tasks)
        return network

    def space(self, bounds: LambdaBounds) -> Space:
        """What λ may be, over the layers of the network."""
        return SPACES[self.config.space](self._first_groups.names, (bounds.low, bounds.high))

    def layers(self, network: MultiTaskNet) -> tuple[str, ...]:
        """What has a λ of its own, by name: layers, or streams of coupled channels."""
        return self._groups(network).names

    def _groups(self, network: MultiTaskNet) -> Groups:
        return build_groups(network, self.config.training.grouping, self.data(self.config.first_seed).image_shape)

    def remark(self) -> str:
        """A line on what λ cannot act on in the network; empty where there is nothing to say."""
        return remark(self._first_groups)

    @property
    def asked(self) -> Objective:
        """The objective in terms of the weights that λ can act on; ConfigError for a target out of reach."""
        return of_penalised(self.config.objective, self._first_groups)

    @property
    def weights(self) -> tuple[int, int]:
        """Parameters of the trunk, and how many of them λ can act on."""
        groups = self._first_groups
        return round(groups.total / groups.share), round(groups.total)

    @cached_property
    def _first_groups(self) -> Groups:
        return self._groups(self.network(self.config.first_seed))

    def build(
        self,
        suggestion: Suggestion,
        seed: int,
        reference: Reference | None = None,
        training_seed: int | None = None,
    ) -> tuple[Trainable, MultiTaskNet]:
        """A trial, ready for its first step; the methods that need it get the dense reference of the seed.

        ``seed`` is that of split, initialisation, data order and episodes, of the latter three ``training_seed``
        where it is given.
        """
        data, network = self.data(seed), self.network(seed, training_seed)
        params, settings = dict(suggestion.params), self.training(suggestion)
        params.pop("training", None)
        if params.get("schedule") is not None:
            params["schedule"] = LambdaSchedule.from_dict(params["schedule"])
        build = METHODS[suggestion.method].build
        if "reference" in arguments_of(build):
            assert reference is not None
            layers, space = self.layers(network), params.pop("space", self.config.space)
            bounds = self.bounds(reference.bounds)
            params = self._learning(params) | {"reference": reference, "bounds": (bounds.low, bounds.high)}
            params["ties"] = SPACES[space](layers, params["bounds"]).ties(layers)
        device = self.config.resources.device
        data, network = on_device(data, device), network.to(device)
        seed = seed if training_seed is None else training_seed
        return build(data, network, settings, seed, **params), network

    def training(self, suggestion: Suggestion) -> TrainingSettings:
        """How a suggested trial trains."""
        return self.config.training.under(suggestion.params.get("training", {}))

    def planned_passes(self, suggestion: Suggestion, seed: int) -> dict[str, float]:
        """Passes of a whole trial that is suggested, by kind; known before it starts."""
        planned_cost = METHODS[suggestion.method].planned_cost
        takes = arguments_of(planned_cost)
        given = {key: value for key, value in suggestion.params.items() if key in takes}
        if "learning" in takes:
            space = suggestion.params.get("space", self.config.space)
            lambdas = len(SPACES[space](self._first_groups.names, (1.0, 1.0)).parameters)
            given = self._learning(suggestion.params) | {"lambdas": lambdas}
        return planned_cost(self.data(seed), self.training(suggestion), **given).by_kind()

    def bounds(self, measured: LambdaBounds | None) -> LambdaBounds:
        """The bounds of λ: those that the configuration states, else those that the dense reference has measured.

        Raises:
            ConfigError: where there are neither.
        """
        found = self.config.lambda_.stated or measured
        if found is None:
            raise ConfigError(
                "the dense reference has measured no bounds of λ: set lambda.low and lambda.high, or begin anew"
            )
        return found

    def _learning(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """What λ is learned for, and how: as a suggestion says, and where it does not, as the configuration does.

        Args:
            params: of the suggestion: ``learning``, the learner's settings by name, and ``level``, a share of the
                weights that λ acts on which shall be zero.
        """
        own, level = dict(params.get("learning", {})), params.get("level")
        objective = self.config.objective
        if level is not None:
            level = min(level, self._first_groups.most)  # a group of each layer stays
            objective = replace(objective, kind="target", target=level, cost="penalised_weights")
        learning = SETTINGS[own.pop("learner")](**own) if own else self.config.meta
        return {"objective": objective, "learning": learning}

    def unit(self) -> Unit:
        """What the budget is counted in."""
        name = self.config.budget.unit
        if name == "flops":
            network = self.network(self.config.first_seed)
            return flops(*flops_of_a_sample(network, self.data(self.config.first_seed).image_shape))
        return DEVICE_SECONDS if name == "device_seconds" else PASSES

    def save_model(self, network: MultiTaskNet, seed: int, folder: Path) -> None:
        """Write a trained network in the form that ``ms_automl.load`` reads."""
        data, section = self.data(seed), self.config.network
        specs = head_specs(data.tasks).items()
        heads = {name: spec for name, spec in specs if name in network.heads}  # one may have been taken off
        alone = networks_of(network) > 1
        form = Architecture(section.factory, section.args, data.image_shape, heads, separate=alone)
        save_model(network, folder, form)


@lru_cache(maxsize=1)  # a trial's process sees the same seed again and again
def _data(own: int, factory: str, args: str, seed: int, data_dir: Path | None) -> MultiTaskData:
    return build_data(factory, json.loads(args), seed=seed, data_dir=data_dir)
