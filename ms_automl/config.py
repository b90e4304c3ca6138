"""What a comparison is: one model of its settings, presets in YAML, and ``--set key=value``.

Every error names the key, the value and the allowed range.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from importlib import resources
from typing import Any, Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from ms_automl.errors import ConfigError, unknown_name
from ms_automl.meta import LearnerSettings, Objective
from ms_automl.training import TrainingSettings


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FactorySection(_Section):
    """A built-in's name or ``pkg.module:function``, and the keyword arguments it is called with."""

    factory: str
    args: dict[str, JsonValue] = {}


class ObjectiveSection(_Section):
    """The one number J (:class:`~ms_automl.meta.Objective`); the scale `auto` is decided by data and losses."""

    kind: Literal["tradeoff", "target"] = "tradeoff"
    price: float = Field(1.0, ge=0)
    target: float = Field(0.44, gt=0, lt=1)
    scale: Literal["auto", "ratio", "skill"] = "auto"

    def build(self) -> Objective:
        """The objective itself; in the scale `ratio` where the data have not decided yet."""
        return Objective(self.kind, self.price, self.target, "skill" if self.scale == "skill" else "ratio")


class TrainingSection(_Section):
    """As :class:`~ms_automl.training.TrainingSettings`."""

    steps: int = Field(600, ge=1)
    batch_size: int = Field(32, ge=2)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(3e-3, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    warmup_share: float = Field(0.05, ge=0, lt=1)
    prox_share: float = Field(0.75, gt=0, le=1)
    report_every: int = Field(100, ge=1)
    eval_batch_size: int = Field(128, ge=1)
    grouping: Literal["input_channel", "output_channel", "coupled", "weight"] = "input_channel"
    metric: Literal["euclidean", "adam"] = "euclidean"
    weighting: Literal["equal", "uncertainty"] = "equal"
    precision: Literal["float32", "bfloat16"] = "float32"
    micro_batch: int | None = Field(None, ge=2)
    prefetch: int = Field(0, ge=0)
    compile: bool = False

    @model_validator(mode="after")
    def _reports(self) -> TrainingSection:
        if self.report_every > self.steps:
            raise ValueError(
                f"`report_every <= steps` must hold, but got report_every={self.report_every}, steps={self.steps}"
            )
        return self

    def build(self) -> TrainingSettings:
        """The settings themselves."""
        return TrainingSettings(**self.model_dump())


class LambdaSection(_Section):
    """Bounds of λ for every arm, the λ of the arm `fixed`, and the sweep that both come from."""

    low: float = Field(gt=0)
    high: float = Field(gt=0)
    fixed: float = Field(ge=0)
    source: str = ""

    @model_validator(mode="after")
    def _ordered(self) -> LambdaSection:
        if not self.low < self.high:
            raise ValueError(f"`low < high` must hold, but got low={self.low}, high={self.high}")
        return self


class MetaSection(_Section):
    """How λ is learned (:class:`~ms_automl.meta.LearnerSettings`)."""

    learner: str = "waterfill"
    rest: float = Field(0.33, ge=0, le=1)
    guess: float = Field(0.05, gt=0)
    doubt: float = Field(1.0, gt=0)
    outer: Literal["validation", "training"] = "validation"
    decay: float = Field(0.99, ge=0, le=1)
    unroll: int = Field(5, ge=1)
    lambda_optimizer: Literal["adam", "normalised"] = "adam"
    lambda_lr: float = Field(0.02, gt=0)
    every: int = Field(2, ge=1)
    warmup: float = Field(0.3, ge=0, le=1)
    corrected: bool = True

    def build(self) -> LearnerSettings:
        """The settings themselves."""
        return LearnerSettings(**self.model_dump())


class BudgetSection(_Section):
    """The limit of each arm and seed, ``trials`` times one fixed-λ trial, and the retraining that is free.

    In the unit ``device_seconds`` the dense reference stands for that trial, and is measured.
    """

    unit: Literal["passes", "device_seconds", "flops"] = "passes"
    trials: int = Field(4, ge=1)
    retrain: int = Field(0, ge=0, le=999)


class ResourcesSection(_Section):
    """What one trial is given.

    One that waits ``start_timeout`` seconds for its process although there is room for it is said; where none has
    begun at all, it ends a comparison on this machine. One that is silent for ``report_timeout`` seconds is
    stopped. One whose process or host is lost goes on in another process, ``retries`` times at most, from the
    state that it stored: one at the first report that comes ``checkpoint_every`` seconds after the last. Of an arm
    and seed ``concurrency_per_stream`` trials run at a time; with more than one its sampler knows that many fewer
    results when it suggests.
    """

    cpus_per_trial: int = Field(1, ge=1)
    gpus_per_trial: float = Field(0, ge=0)
    start_timeout: float = Field(120, gt=0)
    report_timeout: float = Field(3600, gt=0)
    checkpoint_every: float = Field(600, ge=0)
    retries: int = Field(2, ge=0)
    concurrency_per_stream: int = Field(1, ge=1)

    @property
    def device(self) -> torch.device:
        """What a trial trains on; of several GPUs Ray shows it its own alone."""
        return torch.device("cuda" if self.gpus_per_trial else "cpu")


class Config(_Section):
    """A whole comparison.

    Attributes:
        preset: the name it started from.
        arms: the ways of choosing λ, by name (:data:`ms_automl.samplers.arms.ARMS`).
        seeds: how many seeds, numbered from ``first_seed``.
        space: what λ may be (:data:`search_spaces.SPACES`).
    """

    preset: str
    arms: tuple[str, ...]
    seeds: int = Field(1, ge=1)
    first_seed: int = Field(0, ge=0, lt=2**32)
    space: str = "per_layer"
    objective: ObjectiveSection = ObjectiveSection()
    data: FactorySection
    network: FactorySection = FactorySection(factory="small_resnet")
    training: TrainingSection = TrainingSection()
    lambda_: LambdaSection = Field(alias="lambda")
    meta: MetaSection = MetaSection()
    budget: BudgetSection = BudgetSection()
    resources: ResourcesSection = ResourcesSection()

    @property
    def seed_numbers(self) -> tuple[int, ...]:
        """The seeds themselves."""
        return tuple(range(self.first_seed, self.first_seed + self.seeds))

    def to_dict(self) -> dict[str, Any]:
        """As JSON, in the form that a preset has."""
        return self.model_dump(mode="json", by_alias=True)


def presets() -> list[str]:
    """Names of the presets that ship with the package."""
    folder = resources.files("ms_automl") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_config(
    preset: str,
    *,
    arms: Sequence[str] | None = None,
    seeds: int | None = None,
    settings: Sequence[str] = (),
) -> Config:
    """Read a preset and apply what the command line says.

    Args:
        preset: a name in :func:`presets`.
        arms: replaces the preset's arms.
        seeds: replaces the preset's number of seeds.
        settings: ``key=value`` with dots for sections, values in YAML: ``training.steps=400``.

    Raises:
        ConfigError: in one line, naming the key, the value and what is allowed.
    """
    if preset not in presets():
        raise unknown_name("preset", preset, presets())
    text = (resources.files("ms_automl") / "presets" / f"{preset}.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = {"preset": preset, **yaml.safe_load(text)}
    if arms is not None:
        values["arms"] = list(arms)
    return changed(values, seeds=seeds, settings=settings)


def changed(values: dict[str, Any], *, seeds: int | None, settings: Sequence[str]) -> Config:
    """A whole configuration with what the command line says.

    Args:
        values: as :meth:`Config.to_dict` gives them; left as they are.
        seeds: replaces the number of seeds.
        settings: as in :func:`load_config`.

    Raises:
        ConfigError: in one line, as :func:`load_config`.
    """
    values = copy.deepcopy(values)
    if seeds is not None:
        values["seeds"] = seeds
    for setting in settings:
        _apply(values, setting)
    return parse(values)


def parse(values: dict[str, Any]) -> Config:
    """Check a whole configuration."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_one_line(error)) from error


def _apply(values: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set takes key=value, but got '{setting}'; for example --set budget.trials=16")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2020-13-45 is no date
        raise ConfigError(f"--set {key}: '{text}' is not a value; quote it as in YAML") from error
    if isinstance(value, str):
        value = _number(value)
    if key == "preset":
        raise ConfigError("--set preset: the preset is what settings change; name it by --preset")
    *sections, last = key.split(".")
    target = values
    for name in sections:
        target = target.setdefault(name, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {key}: '{name}' is a single value, it has no keys inside")
    target[last] = value


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one dict with dots in its keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _number(text: str) -> str | float:
    # YAML 1.1 reads 1e-3 as a string; nobody who types it means one.
    try:
        return float(text)
    except ValueError:
        return text


def _one_line(error: ValidationError) -> str:
    parts = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            parts.append(str(unknown_name("key", key, _known_keys())))
        elif problem["type"] == "missing":
            parts.append(f"{key} is missing: --set {key}=VALUE")
        else:
            reason = problem["msg"].removeprefix("Value error, ")
            got = "" if isinstance(problem["input"], dict) else f" (got {problem['input']!r})"
            parts.append(f"{key}: {reason}{got}")
    return "; ".join(parts)


def _known_keys() -> list[str]:
    keys = []
    for name, field in Config.model_fields.items():
        key, section = field.alias or name, field.annotation
        if isinstance(section, type) and issubclass(section, _Section):
            keys += [f"{key}.{inner}" for inner in section.model_fields]
        else:
            keys.append(key)
    return keys
