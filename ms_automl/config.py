"""What a comparison is: one model of its settings, presets in YAML, and ``--set key=value``.

Every error names the key, the value and the allowed range.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic_core import ErrorDetails

from ms_automl.environment.siblings import ours
from ms_automl.errors import ConfigError, require, unknown_name
from ms_automl.meta import Objective
from ms_automl.meta.lambda_bounds import DECADES, LambdaBounds
from ms_automl.meta.settings import SETTINGS, AnySettings, WaterfillSettings
from ms_automl.training import TrainingSettings

with ours():
    from search_spaces import Parameter, training

if TYPE_CHECKING:
    import torch

AUTO = "auto"
"""In the place of the section `lambda`: its bounds are measured."""
DEFAULT_LEARNER = WaterfillSettings().learner


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FactorySection(_Section):
    """A built-in's name or ``pkg.module:function``, and the keyword arguments it is called with."""

    factory: str
    args: dict[str, JsonValue] = {}


class LambdaSection(_Section):
    """Bounds of λ for every arm, the λ of the arm `fixed`, and where they come from, each where it is stated.

    Without either bound (``auto``) both follow from the dense reference of each seed; where one is stated, the
    other lies two decades from it.
    """

    low: float | None = Field(None, gt=0)
    high: float | None = Field(None, gt=0)
    fixed: float | None = Field(None, ge=0)
    source: str = ""

    @model_validator(mode="before")
    @classmethod
    def _auto(cls, values: Any) -> Any:
        if isinstance(values, str) and values != AUTO:
            raise ConfigError(f"'{AUTO}' measures the bounds, lambda.low and lambda.high state them")
        return {} if values == AUTO else values

    @model_validator(mode="after")
    def _ordered(self) -> LambdaSection:
        if self.low is not None and self.high is not None:
            require({"low < high": self.low < self.high}, self)
        return self

    @property
    def stated(self) -> LambdaBounds | None:
        """The bounds where either is stated."""
        ratio = 10**DECADES
        if self.low is None:
            return None if self.high is None else LambdaBounds(self.high / ratio, self.high)
        return LambdaBounds(self.low, self.low * ratio if self.high is None else self.high)


class BudgetSection(_Section):
    """The limit of each arm and seed, ``trials`` times one fixed-λ trial, and the retraining that is free.

    In the unit ``device_seconds`` the dense reference stands for that trial, and is measured.
    """

    unit: Literal["passes", "device_seconds", "flops"] = "passes"
    trials: int = Field(4, ge=1)
    retrain: int = Field(0, ge=0, le=999)


class ResourcesSection(_Section):
    """What one trial is given.

    A trial that waits ``start_timeout`` seconds for its process although a slot is free is told to the user; where
    none has begun at all, it ends a comparison on this machine. One that is silent for ``report_timeout`` seconds
    is stopped. One whose process or host is lost goes on in another process, ``retries`` times at most, from its
    last stored state; a state is stored at the first report that comes ``checkpoint_every`` seconds after the last
    one. Of an arm and seed ``concurrency_per_run`` trials run at a time; with more than one its sampler knows that
    many fewer results when it suggests. ``onnx`` logs each arm's best model to MLflow in ONNX, in some seconds to
    minutes for each at the end.
    """

    cpus_per_trial: int = Field(1, ge=1)
    gpus_per_trial: float = Field(0, ge=0)
    start_timeout: float = Field(120, gt=0)
    report_timeout: float = Field(3600, gt=0)
    checkpoint_every: float = Field(600, ge=0)
    retries: int = Field(2, ge=0)
    concurrency_per_run: int = Field(1, ge=1)
    onnx: bool = True

    @property
    def device(self) -> torch.device:
        """What a trial trains on; of several GPUs Ray shows it its own alone."""
        import torch

        return torch.device("cuda" if self.gpus_per_trial else "cpu")


class Config(_Section):
    """A whole comparison, of ``seeds`` seeds from ``first_seed`` on; ``preset`` is the one it started from.

    ``tune`` names the training settings that searches choose besides λ (:func:`search_spaces.training`).
    """

    preset: str
    arms: tuple[str, ...]
    seeds: int = Field(1, ge=1)
    first_seed: int = Field(0, ge=0, lt=2**32)
    space: str = "per_layer"
    objective: Objective = Objective()
    data: FactorySection
    network: FactorySection = FactorySection(factory="small_resnet")
    training: TrainingSettings = TrainingSettings()
    lambda_: LambdaSection = Field(LambdaSection(), alias="lambda")
    meta: AnySettings = Field(WaterfillSettings(), discriminator="learner")
    tune: dict[str, JsonValue] = {}
    budget: BudgetSection = BudgetSection()
    resources: ResourcesSection = ResourcesSection()

    @model_validator(mode="before")
    @classmethod
    def _default_learner(cls, values: Any) -> Any:
        meta = values.get("meta") if isinstance(values, dict) else None
        return values | {"meta": {"learner": DEFAULT_LEARNER, **meta}} if isinstance(meta, dict) else values

    @model_validator(mode="after")
    def _tunable(self) -> Config:
        for parameter in self.tuned:
            for value in parameter.choices or (parameter.low, parameter.high):
                self.training.under({parameter.name: value})
        return self

    @property
    def tuned(self) -> tuple[Parameter, ...]:
        """The training settings that searches choose besides λ."""
        base = {f"training.{name}": getattr(self.training, name) for name in _names(self.training)}
        return training(self.tune, base)

    @property
    def seed_numbers(self) -> tuple[int, ...]:
        """The numbers of the seeds, from ``first_seed`` on."""
        return tuple(range(self.first_seed, self.first_seed + self.seeds))

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON values, in the form that a preset has."""
        values = self.model_dump(mode="json", by_alias=True)
        if self.lambda_ == LambdaSection():
            values["lambda"] = AUTO
        return values


def presets() -> list[str]:
    """Names of the presets that ship with the package."""
    folder = resources.files("ms_automl") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_config(
    preset: str, *, arms: Sequence[str] | None = None, seeds: int | None = None, settings: Sequence[str] = ()
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
    values = preset_values(preset)
    if arms is not None:
        values["arms"] = list(arms)
    return changed(values, seeds=seeds, settings=settings)


def preset_values(preset: str) -> dict[str, Any]:
    """What a preset states; ConfigError for an unknown one lists the known ones."""
    if preset not in presets():
        raise unknown_name("preset", preset, presets())
    text = (resources.files("ms_automl") / "presets" / f"{preset}.yaml").read_text(encoding="utf-8")
    return {"preset": preset, **yaml.safe_load(text)}


def changed(values: dict[str, Any], *, seeds: int | None, settings: Sequence[str]) -> Config:
    """A whole configuration, as :meth:`Config.to_dict` gives it, with what the command line says."""
    values = copy.deepcopy(values)
    if seeds is not None:
        values["seeds"] = seeds
    for section in ("data", "network"):  # its own arguments and bounds of λ, never the preset's
        factories = [setting for setting in settings if setting.startswith(f"{section}.factory=")]
        if factories and factories[-1].partition("=")[2] != values.get(section, {}).get("factory"):
            values |= {section: {"args": {}}, "lambda": {}}
    for setting in settings:
        _apply(values, setting)
    return parse(values)


def parse(values: dict[str, Any]) -> Config:
    """Check a whole configuration."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(map(_problem, error.errors(include_url=False)))) from error


def upgraded(values: dict[str, Any]) -> dict[str, Any]:
    """A configuration as a comparison has recorded it, in the form of this version.

    Earlier ones knew one scale and one cost of the objective, recorded every learner's settings, and called some
    otherwise.
    """
    values = copy.deepcopy(values)
    values["objective"] = {"scale": "ratio", "cost": "penalised_weights", **values.get("objective", {})}
    resources = values.setdefault("resources", {})
    if "concurrency_per_stream" in resources:
        resources["concurrency_per_run"] = resources.pop("concurrency_per_stream")
    training = values.setdefault("training", {})
    if "metric" in training:
        training["prox_metric"] = training.pop("metric")
    meta = values.setdefault("meta", {})
    entry = SETTINGS.get(meta.get("learner", DEFAULT_LEARNER))
    if entry is not None:
        values["meta"] = {
            name: value for name, value in meta.items() if name in _names(entry) or not _learners_with(name)
        }
    return values


def _apply(values: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set takes key=value, but got '{setting}'; for example --set budget.trials=16")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2020-13-45 is no date
        raise ConfigError(f"--set {key}: '{text}' is not a value; quote it as in YAML") from error
    if isinstance(value, str):  # YAML 1.1 reads 1e-3 as a string; nobody who types it means one
        with suppress(ValueError):
            value = float(value)
    if key == "preset":
        raise ConfigError("--set preset: the preset is what settings change; name it by --preset")
    place(values, key, value)


def place(values: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a key with dots for sections; ConfigError where a part of the key is a single value."""
    # What is tuned goes by the whole key of the setting.
    *sections, last = key.split(".", 1) if key.startswith("tune.") else key.split(".")
    target = values
    for name in sections:
        if name == "lambda" and target.get(name) == AUTO:
            target[name] = {}
        target = target.setdefault(name, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {key}: '{name}' is a single value, it has no keys inside")
    target[last] = value


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one dict with dots in its keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def _problem(problem: ErrorDetails) -> str:
    where, kind, given = [str(part) for part in problem["loc"]], problem["type"], problem["input"]
    learner = where.pop(1) if where[:1] == ["meta"] and len(where) > 1 else ""  # pydantic names the union's member
    key = ".".join(where)
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        if learner and (others := _learners_with(where[-1])):
            return f"{key}: learner '{learner}' has no such setting: leave it out, or set meta.learner={others[0]}"
        return str(unknown_name("key", key, _known_keys()))
    if kind == "union_tag_invalid":
        return str(unknown_name("meta.learner", str(given["learner"]), sorted(SETTINGS)))
    if kind == "missing":
        return f"{key} is missing: --set {key}=VALUE"
    reason = problem["msg"].removeprefix("Value error, ")
    if not where:  # of the whole
        return reason
    return f"{key}: {reason}" + ("" if isinstance(given, dict) else f" (got {given!r})")


def _learners_with(name: str) -> list[str]:
    return [learner for learner, entry in SETTINGS.items() if name in _names(entry)]


def _names(settings: Any) -> list[str]:
    return [field.name for field in fields(settings)]


def _known_keys() -> list[str]:
    keys: list[str] = []
    for name, field in Config.model_fields.items():
        key, section = field.alias or name, field.annotation
        inner: Iterable[str] = ()
        if name == "meta":
            inner = dict.fromkeys(setting for entry in SETTINGS.values() for setting in _names(entry))
        elif is_dataclass(section):
            inner = _names(section)
        elif isinstance(section, type) and issubclass(section, _Section):
            inner = section.model_fields
        keys += [f"{key}.{setting}" for setting in inner] or [key]
    return keys
