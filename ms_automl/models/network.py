"""A network with one trunk and one head per task, and what must hold before it is trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ms_automl.errors import NetworkError
from ms_automl.models.heads import Heads, place
from ms_automl.tasks import HeadSpec, Task


class MultiTaskNet(nn.Module):
    """One trunk, computed once per forward, and one head per task.

    Args:
        trunk: images [B, channels, H, W] to features of any shape the heads agree on.
        heads: by task name; features to [B, C, H, W] (dense) or [B, C].
        removable: names (inside the trunk) of convolutions with a skip around them. They may lose every
            group; in any other one group survives, because the signal must pass.

    Attributes:
        precision: of the arithmetic of a forward; the weights are float32.
        uncertainty: log variance by task, while they are learned; no part of what is predicted.
    """

    def __init__(self, trunk: nn.Module, heads: Mapping[str, nn.Module], removable: Collection[str] = ()) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = Heads(heads)
        self.removable = frozenset(removable)
        self.precision: Literal["float32", "bfloat16"] = "float32"
        self.uncertainty: nn.ParameterDict | None = None
        if unknown := self.removable - set(self.penalised()):
            raise NetworkError(f"`removable` names {sorted(unknown)}, which are no convolutions of the trunk")

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

    def penalised(self) -> dict[str, nn.Conv2d]:
        """The convolutions whose channels are penalty groups: every ungrouped one of the trunk, in order."""
        return {
            name: module
            for name, module in self.trunk.named_modules()
            if isinstance(module, nn.Conv2d) and module.groups == 1
        }


def head_specs(tasks: Sequence[Task]) -> dict[str, HeadSpec]:
    """What a network factory is told about the tasks."""
    return {task.name: task.head for task in tasks}


def check_network(network: nn.Module, image_shape: tuple[int, int, int], tasks: Sequence[Task]) -> None:
    """Check a network before anything trains, on two random images; leaves its state as it was.

    Raises:
        NetworkError: naming the task, the shape found and the shape expected.
    """
    if not isinstance(network, MultiTaskNet):
        raise NetworkError(
            f"the network factory must return a MultiTaskNet, but returned {type(network).__name__}"
        )
    if not network.penalised():
        raise NetworkError("the trunk has no ungrouped Conv2d, so no channel can be driven to zero")
    missing = [task.name for task in tasks if task.name not in network.heads]
    if missing:
        raise NetworkError(f"no head for {', '.join(missing)}; heads: {', '.join(network.heads) or 'none'}")
    channels, height, width = image_shape
    images = torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(0))
    training = network.training
    network.eval()  # batch-norm buffers stay untouched
    try:
        with torch.no_grad():
            outputs = network(images)
    except Exception as error:  # whatever the user's own network raises
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise NetworkError(f"the network fails on images of shape {tuple(images.shape)}: {reason}") from error
    finally:
        network.train(training)
    for task in tasks:
        expected = task.head.shape(2, height, width)
        output: object = outputs[task.name]
        if not isinstance(output, Tensor):
            raise NetworkError(f"task '{task.name}': the head gives a {type(output).__name__}, expected a tensor")
        found = tuple(output.shape)
        if found != expected:
            raise NetworkError(f"task '{task.name}': the head gives shape {found}, expected {expected}")
