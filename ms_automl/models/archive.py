"""Selected models on disk: ``model.safetensors`` and the architecture in ``model.json``."""

from __future__ import annotations

import json
import shutil
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from ms_automl.errors import DataError, NetworkError
from ms_automl.models import NETWORKS, MultiTaskNet, contract
from ms_automl.models.factories import build_network
from ms_automl.models.separate import separate
from ms_automl.models.surgery import Surgery, operate
from ms_automl.tasks import HeadSpec

FORMAT = 1


@dataclass(frozen=True)
class Architecture:
    """What a network is built of.

    Attributes:
        factory: a name in ``NETWORKS`` or ``pkg.module:function``, which builds it as it was trained.
        args: of the factory.
        image_shape: (channels, H, W).
        heads: by task.
        surgery: what makes the network as trained a compact one; None where it is not compact.
        separate: whether each task has a trunk of its own (:mod:`~ms_automl.models.separate`).
    """

    factory: str
    args: Mapping[str, Any]
    image_shape: tuple[int, int, int]
    heads: Mapping[str, HeadSpec]
    surgery: Surgery | None = None
    separate: bool = False


def save_model(network: MultiTaskNet, folder: Path, architecture: Architecture) -> None:
    """Write a network with what is needed to build it again; factored convolutions are contracted.

    Args:
        network: as trained, or compact.
        folder: is made.
        architecture: of the network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(contract(network), folder / "model.safetensors")
    content = {
        "format": FORMAT,
        "factory": architecture.factory,
        "args": dict(architecture.args),
        "image_shape": list(architecture.image_shape),
        "heads": {name: asdict(spec) for name, spec in architecture.heads.items()},
    }
    if architecture.separate:
        content["separate"] = True
    if architecture.surgery is not None:
        content["surgery"] = architecture.surgery.to_dict()
    (folder / "model.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    # safetensors' own is for its owner alone, and a model is for others.
    shutil.copymode(folder / "model.json", folder / "model.safetensors")


def save_weights(network: nn.Module, path: Path) -> None:
    """Write what a network computes with; log variances of tasks are no part of it."""
    # Memory may be shared or strided (channels_last): safetensors takes neither.
    used = {name: value for name, value in network.state_dict().items() if not name.startswith("uncertainty.")}
    save_file({name: value.cpu().clone().contiguous() for name, value in used.items()}, path)


def load_weights(network: nn.Module, path: Path) -> None:
    """Read :func:`save_weights` into a network of the same architecture."""
    state = OrderedDict(load_file(path))
    state._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]  # versions, which MNASNet asks for
    network.load_state_dict(state)


def load(path: str | Path) -> MultiTaskNet:
    """Give a selected or exported model back, in evaluation mode, on the CPU.

    Args:
        path: a folder ``<out>/best/<arm>-<seed>``, or one that ``python -m ms_automl.export`` made. The network
            factory that it names is imported and called, so load models of people you trust.

    Raises:
        DataError: where the folder holds no model, or one of another format.
    """
    folder = Path(path)
    network = build(read_architecture(folder))
    try:
        load_weights(network, folder / "model.safetensors")
    except Exception as error:  # safetensors raises its own, without a common root
        raise DataError(f"{folder}: the weights do not fit or are damaged ({error})") from error
    return network.eval()


def build(architecture: Architecture) -> MultiTaskNet:
    """A new network of an architecture, with weights that nobody has trained."""
    # Pretrained weights would be overwritten: a stored model must not need a download.
    known = architecture.factory in NETWORKS
    args = {name: value for name, value in architecture.args.items() if not (known and name == "weights")}
    network = build_network(
        architecture.factory, args, image_shape=architecture.image_shape, heads=architecture.heads
    )
    if architecture.separate:
        separate(network)
    if architecture.surgery is not None:
        operate(network, architecture.surgery)
    return network


def read_architecture(folder: Path) -> Architecture:
    """Read ``model.json``.

    Raises:
        DataError: where the folder has none, or a damaged one, or one of another format.
    """
    path = folder / "model.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise DataError(f"{folder}: format {found['format']}, this version reads {FORMAT}")
        channels, height, width = found["image_shape"]
        heads = {name: HeadSpec(**spec) for name, spec in found["heads"].items()}
        surgery = Surgery.from_dict(found["surgery"]) if "surgery" in found else None
        alone = bool(found.get("separate", False))
        return Architecture(found["factory"], found["args"], (channels, height, width), heads, surgery, alone)
    except FileNotFoundError as error:
        raise DataError(f"{folder} holds no model.json: give a folder <out>/best/<arm>-<seed>") from error
    except (AttributeError, KeyError, NetworkError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error!r}): copy the folder again") from error
