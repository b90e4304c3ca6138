"""The step that zeroes channels: of the trainables' loop (``base``), and for anybody's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ms_automl.environment.lazy import lazy

if TYPE_CHECKING:
    from ms_automl.sparsifier.sparsifier import Sparsifier

__all__ = ["Sparsifier"]

__getattr__, __dir__ = lazy(__name__, {"Sparsifier": "ms_automl.sparsifier.sparsifier"})
