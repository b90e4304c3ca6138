"""Selected models on disk: ``model.safetensors`` and the architecture in ``model.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from ms_automl.errors import DataError
from ms_automl.factories import build_network
from ms_automl.models import MultiTaskNet, contract
from ms_automl.tasks import HeadSpec

FORMAT = 1


def save_model(
    network: MultiTaskNet,
    folder: Path,
    *,
    factory: str,
    args: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    heads: Mapping[str, HeadSpec],
) -> None:
    """Write a network with what is needed to build it again; factored convolutions are contracted."""
    folder.mkdir(parents=True, exist_ok=True)
    # Memory may be shared or strided (channels_last): safetensors takes neither.
    state = contract(network).state_dict()
    tensors = {name: value.cpu().clone().contiguous() for name, value in state.items()}
    save_file(tensors, folder / "model.safetensors")
    architecture = {
        "format": FORMAT,
        "factory": factory,
        "args": dict(args),
        "image_shape": list(image_shape),
        "heads": {name: asdict(spec) for name, spec in heads.items()},
    }
    (folder / "model.json").write_text(json.dumps(architecture, indent=2) + "\n", encoding="utf-8")


def load(path: str | Path) -> MultiTaskNet:
    """Give a selected model back, in evaluation mode, on the CPU.

    Args:
        path: a folder ``<out>/best/<arm>-<seed>``. The network factory that it names is imported and called,
            so load models of people you trust.

    Raises:
        DataError: where the folder holds no model, or one of another format.
    """
    folder = Path(path)
    architecture, shape, heads = _architecture(folder / "model.json")
    network = build_network(architecture["factory"], architecture["args"], image_shape=shape, heads=heads)
    try:
        network.load_state_dict(load_file(folder / "model.safetensors"))
    except Exception as error:  # safetensors raises its own, without a common root
        raise DataError(f"{folder}: the weights do not fit or are damaged ({error})") from error
    return network.eval()


def _architecture(path: Path) -> tuple[dict[str, Any], tuple[int, int, int], dict[str, HeadSpec]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise DataError(f"{path.parent}: format {found['format']}, this version reads {FORMAT}")
        channels, height, width = found["image_shape"]
        heads = {name: HeadSpec(**spec) for name, spec in found["heads"].items()}
        return {"factory": found["factory"], "args": found["args"]}, (channels, height, width), heads
    except FileNotFoundError as error:
        raise DataError(f"{path.parent} holds no model.json: give a folder <out>/best/<arm>-<seed>") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error!r}): copy the folder again") from error
