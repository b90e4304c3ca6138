"""One network for each task: a trunk and a head each, as one network that gives all predictions."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

from torch import Tensor, nn

from ms_automl.models.heads import Heads, place
from ms_automl.models.network import MultiTaskNet


class SeparateTrunks(nn.Module):
    """A trunk for each task.

    Args:
        trunk: is copied for each.
        tasks: their names.
    """

    def __init__(self, trunk: nn.Module, tasks: Collection[str]) -> None:
        super().__init__()
        self.of_task = nn.ModuleDict({place(task): copy.deepcopy(trunk) for task in tasks})

    def forward(self, images: Tensor) -> dict[str, object]:
        """Each task's features by the name under which its trunk is registered."""
        return {name: trunk(images) for name, trunk in self.of_task.items()}


class OfTask(nn.Module):
    """A head that reads its own trunk's features.

    Args:
        head: of what the trunk gives.
        task: its name.
    """

    def __init__(self, head: nn.Module, task: str) -> None:
        super().__init__()
        self.head, self.trunk = head, place(task)

    def forward(self, features: Mapping[str, object]) -> Tensor:
        """[B, …] as the head gives it."""
        output: Tensor = self.head(features[self.trunk])
        return output


def separate(network: MultiTaskNet) -> None:
    """Give each task of a network a copy of the trunk, in place: T networks, of which none reads another's.

    The gradient of Σ_t w_t L_t in the parameters of task t is then that of w_t L_t alone, so that training it
    trains T networks of one task each.
    """
    tasks, removable = list(network.heads), network.removable
    heads = {task: OfTask(network.heads[task], task) for task in tasks}
    network.trunk = SeparateTrunks(network.trunk, tasks)
    network.heads = Heads(heads)
    if removable is not None:
        network.removable = frozenset(f"of_task.{place(task)}.{name}" for task in tasks for name in removable)


def networks_of(network: MultiTaskNet) -> int:
    """How many networks it is."""
    return len(network.trunk.of_task) if isinstance(network.trunk, SeparateTrunks) else 1
