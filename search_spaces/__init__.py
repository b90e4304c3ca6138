"""What is searched: λ, one file per space, and training settings beside it, as plain data."""

from collections.abc import Callable

from search_spaces.per_layer import per_layer
from search_spaces.per_stage import per_stage
from search_spaces.scalar import scalar
from search_spaces.space import Parameter, Space
from search_spaces.training import training

SPACES: dict[str, Callable[[tuple[str, ...], tuple[float, float]], Space]] = {
    "scalar": scalar,
    "per_stage": per_stage,
    "per_layer": per_layer,
}

__all__ = ["SPACES", "Parameter", "Space", "per_layer", "per_stage", "scalar", "training"]
