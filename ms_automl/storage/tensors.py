"""Trees of tensors and plain values on disk: tensors as safetensors, the rest as JSON; nothing is unpickled."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from ms_automl.errors import DataError
from ms_automl.storage.files import checksum


def save(tree: Any, folder: Path, name: str) -> None:
    """Write ``<name>.safetensors`` and ``<name>.json``, each whole or not at all.

    The second holds the SHA-256 of the first, so that :func:`load` knows damage where it meets it. A tree is made
    of dicts (string or integer keys), lists, tuples, tensors, numbers, strings, booleans and None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    skeleton = _pack(tree, tensors)
    temporary = folder / f".{name}.{os.getpid()}"
    save_file(tensors, temporary)
    digest = checksum(temporary)
    temporary.replace(folder / f"{name}.safetensors")
    temporary.write_text(json.dumps({"sha256": digest, "tree": skeleton}), encoding="utf-8")
    temporary.replace(folder / f"{name}.json")


def load(folder: Path, name: str) -> Any:
    """Inverse of :func:`save`; tuples come back as lists. DataError where a file is missing or damaged."""
    skeleton, tensors = folder / f"{name}.json", folder / f"{name}.safetensors"
    for file in (skeleton, tensors):
        if not file.exists():
            raise DataError(f"{folder} holds no '{name}': {file.name} is missing")
    try:
        content = json.loads(skeleton.read_text(encoding="utf-8"))
        digest = checksum(tensors)
        if digest != content["sha256"]:
            raise ValueError(f"its SHA-256 is {digest[:12]}…, not {content['sha256'][:12]}…")
        return _unpack(content["tree"], load_file(tensors))
    except Exception as error:  # safetensors raises its own, without a common root
        raise DataError(f"{folder}: '{name}' is damaged and cannot be read ({error})") from error


def _pack(node: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, Tensor):
        # Memory may be shared or strided (channels_last): safetensors takes neither.
        name = str(len(tensors))
        tensors[name] = node.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(node, dict):
        return {"dict": [[key, _pack(value, tensors)] for key, value in node.items()]}
    if isinstance(node, (list, tuple)):
        return {"list": [_pack(value, tensors) for value in node]}
    return {"value": node}


def _unpack(node: Any, tensors: dict[str, Tensor]) -> Any:
    ((kind, content),) = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unpack(value, tensors) for key, value in content}
    if kind == "list":
        return [_unpack(value, tensors) for value in content]
    return content
