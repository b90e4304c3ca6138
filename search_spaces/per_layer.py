"""One λ for each penalised convolution of the trunk."""

from search_spaces.space import Parameter, Space


def per_layer(layers: tuple[str, ...], bounds: tuple[float, float]) -> Space:
    """A parameter ``lambda/<layer>`` for each layer, all within ``bounds``."""
    names = {f"lambda/{layer}": (layer,) for layer in layers}
    return Space("per_layer", tuple(Parameter(name, *bounds) for name in names), names)
