"""One λ for the whole trunk."""

from search_spaces.space import Parameter, Space


def scalar(layers: tuple[str, ...], bounds: tuple[float, float]) -> Space:
    """A single parameter ``lambda`` within ``bounds``, driving every layer."""
    return Space("scalar", (Parameter("lambda", *bounds),), {"lambda": layers})
