"""Going on with a comparison that was stopped, killed, or is to become larger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ms_automl.comparison.state import FORMAT
from ms_automl.config import Config, flat, parse, upgraded
from ms_automl.errors import ConfigError, DataError

GROWS = ("budget.trials", "budget.retrain", "seeds")
"""What a comparison may have more of when it goes on."""
FREE = (
    "cpus_per_trial",
    "gpus_per_trial",
    "start_timeout",
    "report_timeout",
    "checkpoint_every",
    "retries",
    "onnx",
)
"""Settings of the resources that change no result."""


def read_record(out: Path) -> dict[str, Any]:
    """``comparison.json`` of the folder that ``--resume`` goes on in; ConfigError where it cannot."""
    file = out / "comparison.json"
    if not file.is_file():
        raise ConfigError(
            f"--resume: no comparison.json in {out}: name the --out folder of a comparison, or add the --storage "
            "that it was begun with"
        )
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        written = record["format"]
    except (ValueError, KeyError) as error:
        raise DataError(f"{file} is damaged ({error}): restore it from a copy") from error
    if written != FORMAT:
        raise ConfigError(f"--resume: {file} has format {written}, this version goes on with {FORMAT}")
    record["config"] = upgraded(record["config"])
    return record


def may_grow(record: dict[str, Any], new: Config) -> Config:
    """The new configuration; ConfigError where it makes what is done already another comparison's."""
    old = parse(record["config"])
    before, after = flat(old.to_dict()), flat(new.to_dict())
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        if was == now or key.removeprefix("resources.") in FREE:
            continue
        if key not in GROWS:
            raise ConfigError(
                f"--resume: {key} was {was} and cannot become {now} in the same comparison; only "
                f"{', '.join(GROWS)} can grow: start a new one without --resume"
            )
        if now is None or was is None or now < was:
            raise ConfigError(f"--resume: {key} can grow from {was}, but got {now}")
    return new
