"""Search spaces as samplers' own types."""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution
from ray import tune

from ms_automl.comparison.registry import Parameter


def optuna_distributions(parameters: tuple[Parameter, ...]) -> dict[str, BaseDistribution]:
    """For ``study.ask``."""
    return {p.name: FloatDistribution(p.low, p.high, log=p.scale == "log") for p in parameters}


def ray_domains(parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    """For ``Tuner(param_space=...)`` of one's own."""
    return {
        p.name: tune.loguniform(p.low, p.high) if p.scale == "log" else tune.uniform(p.low, p.high)
        for p in parameters
    }
