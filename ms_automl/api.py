"""A comparison from Python: :func:`compare`, and what it returns."""

from __future__ import annotations

import copy
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ms_automl.config import Config, changed, place, preset_values
from ms_automl.environment import arguments
from ms_automl.environment.siblings import ours
from ms_automl.errors import ConfigError, DataError, unknown_name
from ms_automl.samplers.arms import REFERENCE

if TYPE_CHECKING:
    import pandas as pd

    from analysis.statistics.findings import Findings
    from ms_automl.data import MultiTaskData
    from ms_automl.models import MultiTaskNet

Factory = Callable[..., Any]


def compare(
    preset: str | None = None,
    *,
    config: Mapping[str, Any] | Config | None = None,
    data: str | Factory | MultiTaskData | None = None,
    network: str | Factory | MultiTaskNet | None = None,
    arms: Sequence[str] | None = None,
    seeds: int | None = None,
    budget: int | None = None,
    settings: Mapping[str, Any] | None = None,
    tune: Mapping[str, Any] | None = None,
    data_dir: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    slots: int | None = None,
    address: str | None = None,
    storage: str | None = None,
    progress: bool = True,
) -> ComparisonResult:
    """Compare ways of choosing λ under one budget, as ``python -m ms_automl.search`` does (docs/python.md).

    Args:
        preset: a preset's name (default: ``rooms``); or ``config``.
        config: a whole configuration in the form of a preset.
        data: a factory's name, a function ``(seed, data_dir, **data.args)``, or data for every seed. A function or
            an object takes none of the preset's arguments; name its own by ``settings={"data.args": {...}}``.
        network: a factory's name, a function ``(image_shape, heads, **network.args)``, or a network that every
            trial begins with a copy of.
        arms: by name; the dense reference is always added.
        seeds: how many; a claim needs at least 5.
        budget: of each arm and seed, in fixed-λ trials: ``budget.trials``.
        settings: other values by key, ``{"training.steps": 400}``.
        tune: training settings that searches choose besides λ, by key a range, choices, or None for the usual
            range: ``{"training.lr": "0.0003..0.03", "training.batch_size": [8, 16, 32]}``.
        data_dir: where own data lies.
        out: new folder for the results (default: ``comparisons/<preset>-<time>``).
        resume: go on with the comparison in ``out``; only seeds and budget can grow.
        slots: trials at a time (default: one for each CPU core).
        address: of a running Ray cluster; a Ray that the process has already is used.
        storage: where trials leave models that all hosts see.
        progress: whether it is shown how it goes.

    Raises:
        MsAutomlError: before anything trains, in one line what is wrong and what to do.
        KeyboardInterrupt: where it is interrupted; its records are closed, and ``resume=True`` goes on.
    """
    from rich.console import Console

    from ms_automl.driver.compare import run_comparison

    given, arms = arguments.path("out", out), arguments.names("arms", arms)
    seeds, budget = arguments.whole("seeds", seeds), arguments.whole("budget", budget)
    slots = arguments.whole("slots", slots, 1) or len(os.sched_getaffinity(0))
    where, address = arguments.path("data_dir", data_dir), arguments.text("address", address)
    storage = arguments.text("storage", storage)
    values, record = _values(arguments.text("preset", preset), config, given, resume)
    own = _own(values, {"data": data, "network": network})
    if arms is not None:
        if resume:
            raise ConfigError("resume: the arms are those of the comparison: leave `arms` out")
        values["arms"] = arms
    if budget is not None:
        place(values, "budget.trials", budget)
    for key, value in arguments.values("settings", settings).items():
        place(values, key, value)
    for key, value in arguments.values("tune", tune).items():
        place(values, f"tune.{key}", value)
    whole = changed(values, seeds=seeds, settings=())
    if record is not None:
        from ms_automl.comparison.resume import may_grow

        may_grow(record, whole)
    folder = default_folder(whole) if given is None else given
    ended = run_comparison(
        whole, folder, report=write_report, console=Console(quiet=not progress), own=own, data_dir=where,
        address=address, slots=slots, storage=storage, record=record,
    )  # fmt: skip
    if isinstance(ended.stopped, KeyboardInterrupt):
        raise KeyboardInterrupt(f"stopped; what has ended is kept: resume=True goes on with out='{folder}'")
    if ended.stopped is not None:
        raise ended.stopped
    return ComparisonResult(ended.out)


def _values(
    preset: str | None, config: Mapping[str, Any] | Config | None, out: Path | None, resume: bool
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The configuration to begin with, and the record of the comparison that goes on."""
    if resume:
        from ms_automl.comparison.resume import read_record

        if out is None or preset is not None or config is not None:
            raise ConfigError(
                "resume goes on with the comparison in `out`: name its folder, and no preset or config"
            )
        record = read_record(out)
        return copy.deepcopy(record["config"]), record
    if config is None:
        return preset_values("rooms" if preset is None else preset), None
    if preset is not None:
        raise ConfigError("give a preset or a config, not both")
    given = config.to_dict() if isinstance(config, Config) else arguments.values("config", config)
    return {"preset": "own", **copy.deepcopy(given)}, None


def _own(values: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Factory]:
    """Name in a configuration what is handed over; by name what is no name itself."""
    own: dict[str, Factory] = {}
    for kind, value in given.items():
        if value is None:
            continue
        name, factory = (value, None) if isinstance(value, str) else _named(kind, value)
        if factory is not None:
            own[name] = factory
        if values.get(kind, {}).get("factory") != name:  # its own arguments and bounds of λ, never the preset's
            values[kind] = {"factory": name, "args": {}}
            if values.get("preset") != "own":
                values["lambda"] = {}
    return own


def _named(kind: str, value: Any) -> tuple[str, Factory]:
    """A factory and its name: data as an object are those of every seed, a network is copied for every trial."""
    from ms_automl.data import MultiTaskData
    from ms_automl.models import MultiTaskNet
    from ms_automl.models.copying import copied

    if isinstance(value, MultiTaskData):
        return f"object:{value.name}", lambda seed, data_dir: value
    if isinstance(value, MultiTaskNet):
        return f"object:{type(value.trunk).__name__}", lambda image_shape, heads: copied(value)
    if not callable(value):
        wanted = "MultiTaskData" if kind == "data" else "MultiTaskNet"
        raise ConfigError(
            f"{kind}: give a factory's name, a function or a {wanted} itself, but got {type(value).__name__}"
        )
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", type(value).__name__)
    found: Any = sys.modules.get(str(module))
    for part in name.split("."):
        found = getattr(found, part, None)
    # A lambda, a partial or a method of an object is not found by its name, and others are called the same.
    return f"{module}:{name}" if found is value else f"object:{kind}:{name}", value


def default_folder(config: Config) -> Path:
    """A new folder for the results of a comparison that begins now."""
    return Path("comparisons") / f"{config.preset}-{time.strftime('%Y%m%d-%H%M%S')}"


def write_report(comparison: str | Path) -> tuple[Path, str]:
    """Write a report; its page, and why MLflow lacks it ('': it has it)."""
    from ms_automl.callbacks.mlflow import short_timeouts

    with ours():
        from analysis.report.write import logged_report
    with short_timeouts():
        return logged_report(comparison)


@dataclass(frozen=True)
class Verdict:
    """What a comparison allows to say.

    Attributes:
        sentence: whether learning or searching λ is better, as far as the seeds say.
        beside: what the sentence leaves out; may be empty.
        pairs: a row for each learned arm against each other one: means, difference and its 95 % interval.
    """

    sentence: str
    beside: str
    pairs: pd.DataFrame

    def __str__(self) -> str:
        return " ".join(part for part in (self.sentence, self.beside) if part)


class ComparisonResult:
    """What the comparison in a folder, or with a run's id in MLflow, came to; DataError where there is none."""

    def __init__(self, out: str | Path) -> None:
        self.out = out

    @cached_property
    def _findings(self) -> Findings:
        with ours():
            from analysis.records.comparison import load
            from analysis.statistics.findings import Findings

        return Findings(load(self.out))

    @property
    def table(self) -> pd.DataFrame:
        """A row for each arm, best first: means over its seeds of J, Δm, sparsity and cost."""
        return self._findings.table

    @property
    def rows(self) -> pd.DataFrame:
        """A row for each arm and seed."""
        return self._findings.comparison.rows

    @property
    def trials(self) -> pd.DataFrame:
        """A row for each trial: what it was, how it ended, its last metrics."""
        return self._findings.comparison.trials

    @property
    def curves(self) -> pd.DataFrame:
        """The best J so far of each arm and seed at so many spent passes and seconds."""
        return self._findings.curves

    @property
    def verdict(self) -> Verdict:
        """Whether to learn λ or to search for it, as far as the seeds say."""
        import pandas as pd

        pairs = pd.DataFrame([asdict(pair) for pair in self._findings.pairs])
        return Verdict(self._findings.verdict, self._findings.beside, pairs)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What must be known before any number is read."""
        return self._findings.comparison.warnings

    @cached_property
    def report(self) -> Path:
        """The report's page; written where it is not there yet."""
        page = Path(self.out) / "report" / "index.html"
        return page if page.is_file() else write_report(self.out)[0]

    def best(self, arm: str | None = None, seed: int | None = None) -> MultiTaskNet:
        """The selected network of an arm, in evaluation mode, on the CPU.

        Of what is not named that of the lowest J on validation is taken, but never the reference.

        Raises:
            ConfigError: where no such arm and seed has a valid result.
            DataError: where the comparison's folder is not at hand.
        """
        from ms_automl.models.archive import load

        row = chosen([dict(row) for _, row in self.rows.iterrows()], arm, seed)
        folder = self._findings.comparison.folder
        if folder is None:
            raise DataError(f"{self.out}: the selected models are read from the comparison's folder: give that")
        return load(folder / "best" / f"{row['arm']}-{row['seed']}")

    def __repr__(self) -> str:
        return f"ComparisonResult({str(self.out)!r}): {self.verdict.sentence}"

    def _repr_html_(self) -> str:
        with ours():
            from analysis.report.tables import display

        verdict = self.verdict
        lines = [f"<b>{escape(line)}</b>" for line in self.warnings]
        lines += [escape(line) for line in (verdict.sentence, verdict.beside) if line]
        table = display(self.table).to_html(index=False, border=0)
        link = f'<a href="{escape(os.path.relpath(self.report))}">Report</a>'
        return "".join(f"<p>{line}</p>" for line in lines) + f"{table}<p>{link}</p>"


def chosen(rows: Sequence[dict[str, Any]], arm: str | None, seed: int | None) -> dict[str, Any]:
    """The row of the lowest J on validation among those asked for; ConfigError where no such row has a model."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    if arm is not None and arm not in arms:
        raise unknown_name("arm", arm, arms)
    found = [
        row
        for row in rows
        if row["status"] != "failed"
        and (row["arm"] == arm if arm is not None else row["arm"] != REFERENCE)
        and (seed is None or int(row["seed"]) == seed)
    ]
    if not found:
        asked = " ".join([arm or "no arm but dense", "" if seed is None else f"with seed {seed}"]).strip()
        raise ConfigError(f"{asked}: the comparison has no valid result for that")
    best = min(found, key=lambda row: row["objective"])
    return best | {"seed": int(best["seed"])}
