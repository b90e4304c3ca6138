"""What lies beside this package and is run by it: the ways of training and the spaces of λ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ms_automl.environment.lazy import lazy
from ms_automl.environment.siblings import ours

if TYPE_CHECKING:
    from search_spaces import SPACES, Parameter, Space
    from trainables import METHODS, Method, arguments_of

__all__ = ["METHODS", "SPACES", "Method", "Parameter", "Space", "arguments_of"]

_get, __dir__ = lazy(
    __name__,
    {
        **dict.fromkeys(("SPACES", "Parameter", "Space"), "search_spaces"),
        **dict.fromkeys(("METHODS", "Method", "arguments_of"), "trainables"),
    },
)


def __getattr__(name: str) -> Any:
    with ours():
        return _get(name)
