"""The selected models in the stage's storage, for hosts that share no folder with the driver."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ms_automl.errors import ConfigError
from ms_automl.storage.remote import Storage, shown

MODELS = "models"
LIST = "models.json"
"""Names of the models that are there whole."""


def store_models(
    storage: Storage, models: Mapping[tuple[str, int], Path], digests: Mapping[tuple[str, int], str]
) -> dict[tuple[str, int], str]:
    """Put models where every host can fetch them, but for those that are there; their places.

    Args:
        storage: of the stage.
        models: folders, by arm and seed.
        digests: of their weights, by arm and seed.

    Raises:
        ConfigError: where nothing can be stored.
    """
    names = {key: f"{key[0]}-{key[1]}-{digests[key]}" for key in models}
    try:
        stored = set(json.loads(storage.read(LIST) or "[]"))
        storage.write(LIST, json.dumps(sorted(stored)).encode())  # can it be written at all?
        for key, name in names.items():
            if name not in stored:
                storage.below(MODELS).copy(models[key], name)
                stored.add(name)
                storage.write(LIST, json.dumps(sorted(stored)).encode())
    except (OSError, ValueError) as error:
        raise ConfigError(f"no models can be stored in {shown(storage.address)}: {error}") from error
    return {key: storage.below(MODELS).below(name).address for key, name in names.items()}
