"""The tensors in what a module gives back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor


def leaves(features: Any) -> list[Tensor]:
    """The tensors of a value, in order: one, or mappings, sequences and dataclasses of them, nested at will."""
    if isinstance(features, Tensor):
        return [features]
    if isinstance(features, Mapping):
        return [leaf for value in features.values() for leaf in leaves(value)]
    if is_dataclass(features) and not isinstance(features, type):
        return [leaf for one in fields(features) for leaf in leaves(getattr(features, one.name))]
    if isinstance(features, Iterable) and not isinstance(features, str | bytes):
        return [leaf for value in features for leaf in leaves(value)]
    return []
