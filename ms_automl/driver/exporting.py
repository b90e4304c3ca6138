"""A compact model written in forms that other programs load, with what it costs beside dense and as trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ms_automl.comparison.selection import dense_rivals, first_line
from ms_automl.errors import NetworkError
from ms_automl.models import MultiTaskNet
from ms_automl.models.archive import Architecture, load, read_architecture, save_model
from ms_automl.models.onnx_form import OnnxNetwork, to_onnx
from ms_automl.models.profile import latencies, peak_memory, size_of
from ms_automl.sparsity.compact import compact, leftovers

BATCHES = (1, 32)


def export(model: Path, out: Path, formats: Sequence[str], images: Tensor, rounds: int = 30) -> dict[str, Any]:
    """Compact a selected model, and write it.

    Args:
        model: folder of the model.
        out: folder to write to; is made.
        formats: of safetensors, torch and onnx.
        images: [B, channels, H, W] real ones, for the comparison of outputs and for timing.
        rounds: timings.

    Returns:
        What ``figures.json`` holds.

    Raises:
        NetworkError: where the network cannot be compacted or exported.
    """
    architecture = read_architecture(model)
    masked = load(model)
    small, surgery = compact(masked, architecture.image_shape, images)
    program = to_onnx(small, architecture.image_shape) if "onnx" in formats else None
    session = None if program is None else OnnxNetwork(program)  # MLflow moves the weights out of it when it saves
    out.mkdir(parents=True, exist_ok=True)
    save_model(small, out, replace(architecture, surgery=surgery))
    if "torch" in formats:
        save_program(small, images, out / "model.pt2")
    if program is not None:
        from ms_automl.callbacks.mlflow.models import save_onnx

        save_onnx(program, out)
    networks = dense_rivals(model, images) | {"masked": masked, "compact": small}
    figures = measured(networks, architecture, images, rounds)
    if session is not None:
        figures["latency"] |= in_onnx(networks, session, architecture, images, rounds)
    figures["leftovers"] = {name: asdict(leftover) for name, leftover in leftovers(masked, surgery).items()}
    figures["files"] = {path.name: path.stat().st_size for path in sorted(out.iterdir()) if path.is_file()}
    if "safetensors" not in formats:
        for name in ("model.safetensors", "model.json"):
            (out / name).unlink()
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


def save_program(network: MultiTaskNet, images: Tensor, path: Path) -> None:
    """Write a ``torch.export`` program: images [N, C, H, W] to outputs by head, any N.

    Raises:
        NetworkError: where torch cannot export it.
    """
    batch = torch.export.Dim("batch")
    try:
        program = torch.export.export(network, (images[:2],), dynamic_shapes={"images": {0: batch}})
        torch.export.save(program, path)
    except Exception as error:  # its own kinds are many
        raise NetworkError(
            f"the network cannot be exported as a torch program ({first_line(error)}): leave torch out of --format"
        ) from error


def measured(
    networks: dict[str, MultiTaskNet], architecture: Architecture, images: Tensor, rounds: int
) -> dict[str, Any]:
    """Size, arithmetic, time and memory of the networks, the first of which is what others are compared with."""
    figures: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__, "rounds": rounds}
    figures["size"] = {name: size_of(network, architecture.image_shape) for name, network in networks.items()}
    figures["latency"] = {}
    for count in BATCHES:
        batch = images.repeat(-(-count // len(images)), 1, 1, 1)[:count]
        for part, modules in (("network", networks), ("trunk", {n: net.trunk for n, net in networks.items()})):
            timed: dict[str, nn.Module] = dict(modules)
            found = latencies(timed, batch, rounds)
            figures["latency"][f"{part}, batch {count}"] = {name: asdict(timing) for name, timing in found.items()}
        figures.setdefault("peak_memory", {})[f"batch {count}"] = {
            name: peak_memory(network, batch) for name, network in networks.items()
        }
    return figures


def in_onnx(
    networks: dict[str, MultiTaskNet],
    compact: OnnxNetwork,
    architecture: Architecture,
    images: Tensor,
    rounds: int,
) -> dict[str, dict[str, Any]]:
    """Times in onnxruntime of the networks ``dense``, ``masked`` and ``compact``, by batch size and network."""
    others = {name: OnnxNetwork(to_onnx(networks[name], architecture.image_shape)) for name in ("dense", "masked")}
    timed = others | {"compact": compact}
    found = {}
    for count in BATCHES:
        batch = images.repeat(-(-count // len(images)), 1, 1, 1)[:count]
        measures = latencies(dict(timed), batch, rounds)
        found[f"onnxruntime, batch {count}"] = {name: asdict(timing) for name, timing in measures.items()}
    return found


def summary_lines(figures: dict[str, Any]) -> list[str]:
    """The figures in a few lines."""
    dense, small = figures["size"]["dense"], figures["size"]["compact"]
    lines = [
        f"parameters {small['parameters']:,.0f} of {dense['parameters']:,.0f}, multiply-adds "
        f"{small['macs'] / 1e6:.1f} of {dense['macs'] / 1e6:.1f} million an image"
    ]
    for part, key in (("network", "macs"), ("trunk", "trunk_macs"), ("onnxruntime", "macs")):
        timed = figures["latency"].get(f"{part}, batch {max(BATCHES)}")
        if timed is None:
            continue
        ratio = timed["compact"]["ratio"]
        speedup, limit = 1 / ratio["median"], dense[key] / small[key]
        lines.append(
            f"{part}, batch {max(BATCHES)}: {speedup:.2f} times as fast as dense "
            f"({1 / ratio['high']:.2f} to {1 / ratio['low']:.2f}), {100 * speedup / limit:.0f} % of the "
            f"{limit:.2f} that its arithmetic allows"
        )
    stayed = {name: leftover for name, leftover in figures["leftovers"].items() if leftover["stayed"]}
    zeros = sum(leftover["zeros"] for leftover in figures["leftovers"].values())
    lines.append(f"zeros that stayed: {sum(leftover['stayed'] for leftover in stayed.values()):,} of {zeros:,}")
    lines += [f"  {name}: {leftover['stayed']:,}, {leftover['why']}" for name, leftover in stayed.items()]
    return lines
