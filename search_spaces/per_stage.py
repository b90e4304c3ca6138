"""One λ for each stage of the trunk."""

from search_spaces.space import Parameter, Space


def per_stage(layers: tuple[str, ...], bounds: tuple[float, float]) -> Space:
    """A parameter ``lambda/<stage>`` for each stage: the layers inside one child module of the trunk.

    ``block1.conv1`` and ``block1.conv2`` make the stage ``block1``; ``layer3.0.conv2`` belongs to ``layer3``.
    """
    stages: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        stage = layer.partition(".")[0]
        stages[stage] = (*stages.get(stage, ()), layer)
    names = {f"lambda/{stage}": members for stage, members in stages.items()}
    return Space("per_stage", tuple(Parameter(name, *bounds) for name in names), names)
