"""Copies of networks, those of strangers too, and how their weights lie in memory."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from ms_automl.errors import NetworkError, first_line

M = TypeVar("M", bound=nn.Module)


def copied(network: M) -> M:
    """A copy. A tensor that a module remembers of a forward is a value there, and no longer part of a graph.

    Raises:
        NetworkError: where the network holds what cannot be copied.
    """
    remembered = {
        id(value): value.detach().clone()
        for module in network.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        return copy.deepcopy(network, remembered)
    except Exception as error:  # whatever a stranger's network holds
        raise NetworkError(
            f"the network cannot be copied ({first_line(error)}), which storing it needs"
        ) from error


def channels_last(network: M) -> M:
    """An eighth less time a step for small 3x3 convolutions on a CPU, and what a GPU likes."""
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim == 4:  # Module.to refuses what has five axes
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return network
