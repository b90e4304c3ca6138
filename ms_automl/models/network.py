"""A network with one trunk and one head per task."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ms_automl.errors import NetworkError
from ms_automl.models.heads import Heads, place
from ms_automl.models.weights import Layer, mixes, names_of_modules, why_not_penalised
from ms_automl.tasks import HeadSpec, Task


class MultiTaskNet(nn.Module):
    """One trunk, computed once per forward, and one head per task.

    Args:
        trunk: images [B, channels, H, W] to features of any shape the heads agree on.
        heads: by task name; features to [B, C, H, W] (dense) or [B, C].
        removable: names (inside the trunk) of layers with a skip around them. They may lose every group; in any
            other one group survives, because the signal must pass. Any name of a layer will do; the attribute
            holds its first. None has those found that all may go at once (``ms_automl/sparsity/skips.py``).

    Attributes:
        precision: of the arithmetic of a forward; the weights are float32.
        uncertainty: log variance by task, while they are learned; no part of what is predicted.
    """

    def __init__(
        self, trunk: nn.Module, heads: Mapping[str, nn.Module], removable: Collection[str] | None = None
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = Heads(heads)
        known = self.layers()
        first = {alias: names[0] for module, names in names_of_modules(trunk).items() for alias in names}
        self.removable = None if removable is None else frozenset(first.get(name, name) for name in removable)
        self.precision: Literal["float32", "bfloat16"] = "float32"
        self.uncertainty: nn.ParameterDict | None = None
        if unknown := (self.removable or frozenset()) - set(known):
            raise NetworkError(f"`removable` names {sorted(unknown)}, which are no layers of the trunk")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Predictions by task name, float32 whatever they were computed in."""
        if self.precision == "float32":
            return self._predictions(images)
        with torch.autocast(images.device.type, torch.bfloat16):
            return {name: output.float() for name, output in self._predictions(images).items()}

    def _predictions(self, images: Tensor) -> dict[str, Tensor]:
        features = self.trunk(images)
        return {name: head(features) for name, head in self.heads.items()}

    def learn_uncertainty(self, tasks: Sequence[Task]) -> None:
        """Give each task a log variance s_t that trains with the network, from 0."""
        device = next(self.parameters()).device
        self.uncertainty = nn.ParameterDict({place(task.name): torch.zeros((), device=device) for task in tasks})

    def log_variance(self, task: str) -> Tensor:
        """s_t of a task, while they are learned."""
        assert self.uncertainty is not None
        spread: Tensor = self.uncertainty[place(task)]
        return spread

    def layers(self) -> dict[str, Layer]:
        """What mixes channels in the trunk, by its first name, in order: ungrouped convolutions, linear layers."""
        return {name: module for name, module in self.trunk.named_modules() if mixes(module)}

    def penalised(self) -> dict[str, Layer]:
        """The layers whose weights may go to zero: those that have one of their own, and train it.

        A weight that several share is there once, under the first of their names. What a forward shows is not
        looked at here: :func:`~ms_automl.models.penalised.find_penalised` leaves out more.
        """
        found = {name: layer for name, layer in self.layers().items() if not why_not_penalised(layer)}
        by_weight = {layer.weight: name for name, layer in reversed(found.items())}
        return {name: layer for name, layer in found.items() if by_weight[layer.weight] == name}


def head_specs(tasks: Sequence[Task]) -> dict[str, HeadSpec]:
    """What a network factory is told about the tasks."""
    return {task.name: task.head for task in tasks}
