"""Sparsity methods of the literature as rules: the same groups, phases and budget as every way of choosing λ."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ms_automl.errors import ConfigError, unknown_name
from ms_automl.meta.rule import Rule
from ms_automl.rivals.base import Rival, RivalInputs
from ms_automl.rivals.gates import d_gating, l0
from ms_automl.rivals.hesso import hesso
from ms_automl.rivals.masks import dsd, iht
from ms_automl.rivals.pat import pat
from ms_automl.rivals.penalties import greg, group_norm


@dataclass(frozen=True)
class RivalMethod:
    """A row of :data:`RIVALS`.

    Attributes:
        build: makes the rule of :class:`RivalInputs`, and by name of its own knobs; their defaults are the
            published ones where there are any.
        overlapping: whether it says anything of groups that share weights (``coupled``).
        levelled: whether it is told a level; otherwise a knob decides how sparse it ends.
    """

    build: Callable[..., Rule]
    overlapping: bool = True
    levelled: bool = True

    @property
    def knobs(self) -> Mapping[str, inspect.Parameter]:
        """What else it takes, by name."""
        parameters = inspect.signature(self.build).parameters.items()
        return {name: one for name, one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}


RIVALS: dict[str, RivalMethod] = {
    "iht": RivalMethod(iht, overlapping=False),
    "dsd": RivalMethod(dsd, overlapping=False, levelled=False),
    "l0": RivalMethod(l0, overlapping=False),
    "hesso": RivalMethod(hesso),
    "d-gating": RivalMethod(d_gating, overlapping=False, levelled=False),
    "greg": RivalMethod(greg),
    "group-norm": RivalMethod(group_norm),
    "pat": RivalMethod(pat),
}


def check_rival(name: str, grouping: str) -> RivalMethod:
    """The row of a name, for groups of a kind.

    Raises:
        ConfigError: for an unknown name, or groups that it says nothing of.
    """
    if name not in RIVALS:
        raise unknown_name("rival", name, list(RIVALS))
    if grouping == "coupled" and not RIVALS[name].overlapping:
        raise ConfigError(
            f"'{name}' acts on groups that do not overlap, but got training.grouping=coupled: set "
            "training.grouping=input_channel"
        )
    return RIVALS[name]


__all__ = ["RIVALS", "Rival", "RivalInputs", "RivalMethod", "check_rival"]
