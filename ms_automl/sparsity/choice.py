"""Which kind of groups a network gets when nobody says: the one whose zeros can be taken out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ms_automl.errors import NetworkError, first_line
from ms_automl.models import MultiTaskNet
from ms_automl.sparsity.beforehand import freed

CANDIDATES = ("input_channel", "coupled")
GAIN = 1.1
"""How many times the weights the second kind must free to be preferred: the first leaves the learner freer, as a
channel that one layer does not need may go there and stay elsewhere."""


@dataclass(frozen=True)
class Choice:
    """A kind of groups and a line on why.

    Attributes:
        grouping: a key of ``GROUPINGS``.
        why: what of the weights can go with it, and with the other; or why none can.
        serves: whether any can, of a kind that was asked for.
    """

    grouping: str
    why: str
    serves: bool = True


def choose(
    network: MultiTaskNet,
    image_shape: tuple[int, int, int],
    kept: Mapping[str, str] = MappingProxyType({}),
    asked: str | None = None,
) -> Choice:
    """Try the kinds of groups on copies of a network of which a random half is zero.

    Args:
        network: it stays as it is.
        image_shape: (channels, H, W); smaller images serve, where the network takes them.
        kept: as of :func:`~ms_automl.sparsity.groupings.build_groups`.
        asked: the kind that somebody wants, which is then taken whatever comes of it.

    Raises:
        NetworkError: where neither can be taken out.
    """
    if asked is not None:
        return _asked(network, image_shape, kept, asked)
    found: dict[str, float] = {}
    why: dict[str, str] = {}
    first, second = CANDIDATES
    for grouping in CANDIDATES:
        try:
            found[grouping] = freed(network, grouping, image_shape, kept)
        except Exception as error:  # whatever a stranger's network does
            why[grouping] = first_line(error)
            continue
        why[grouping] = _told(found[grouping])
        if grouping == first and GAIN * found[grouping] > 1:
            return Choice(grouping, why[grouping])
    if not found:
        reasons = "; ".join(f"{grouping}: {reason}" for grouping, reason in why.items())
        raise NetworkError(
            f"its zeros could not be taken out of this network ({reasons}): name a `grouping` to have them "
            "all the same"
        )
    better = second if found.get(second, 0.0) > GAIN * found.get(first, 0.0) else first
    return Choice(better, f"{why.pop(better)}; with {next(iter(why))}: {next(iter(why.values()))}")


def _asked(
    network: MultiTaskNet, image_shape: tuple[int, int, int], kept: Mapping[str, str], grouping: str
) -> Choice:
    if grouping == "weight":
        return Choice(grouping, "single weights are zero, no whole channel is", serves=True)
    try:
        return Choice(grouping, _told(freed(network, grouping, image_shape, kept)))
    except Exception as error:  # whatever a stranger's network does
        return Choice(grouping, first_line(error), serves=False)


def _told(share: float) -> str:
    return f"{100 * share:.3g} % of the weights can go"
