"""A compact model written in forms that other programs load, with what it costs beside dense and as trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ms_automl.comparison.selection import dense_rivals
from ms_automl.errors import NetworkError, first_line
from ms_automl.models import MultiTaskNet
from ms_automl.models.archive import load, read_architecture, save_model
from ms_automl.models.onnx_form import OnnxNetwork, to_onnx
from ms_automl.models.profile import latencies, peak_memory, size_of
from ms_automl.sparsity.compact import compact, leftovers

BATCHES = (1, 32)


def export(model: Path, out: Path, formats: Sequence[str], images: Tensor, rounds: int = 30) -> dict[str, Any]:
    """Compact the selected model in a folder, and write it to another one; what ``figures.json`` holds.

    Outputs are compared and timed, in so many rounds, on real images [B, channels, H, W].

    Raises:
        NetworkError: where the network cannot be compacted or exported.
    """
    architecture, masked = read_architecture(model), load(model)
    shape = architecture.image_shape
    small, surgery = compact(masked, shape, images)
    program = to_onnx(small, shape) if "onnx" in formats else None
    session = None if program is None else OnnxNetwork(program)  # MLflow moves the weights out of it when it saves
    out.mkdir(parents=True, exist_ok=True)
    save_model(small, out, replace(architecture, surgery=surgery))
    if "torch" in formats:
        _save_program(small, images, out / "model.pt2")
    if program is not None:
        from ms_automl.callbacks.mlflow.models import save_onnx

        save_onnx(program, out)
    networks = dense_rivals(model, images) | {"masked": masked, "compact": small}
    parts: dict[str, Mapping[str, nn.Module]] = {
        "network": networks,
        "trunk": {name: network.trunk for name, network in networks.items()},
    }
    figures: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__, "rounds": rounds}
    figures["size"] = {name: size_of(network, shape) for name, network in networks.items()}
    figures["latency"], figures["peak_memory"] = _timed(parts, images, rounds), {}
    for count in BATCHES:
        batch = _batch(images, count)
        used = {name: peak_memory(network, batch) for name, network in networks.items()}
        figures["peak_memory"][f"batch {count}"] = used
    if session is not None:
        others = {name: OnnxNetwork(to_onnx(networks[name], shape)) for name in ("dense", "masked")}
        figures["latency"] |= _timed({"onnxruntime": {**others, "compact": session}}, images, rounds)
    figures["leftovers"] = {name: asdict(leftover) for name, leftover in leftovers(masked, surgery).items()}
    figures["files"] = {path.name: path.stat().st_size for path in sorted(out.iterdir()) if path.is_file()}
    if "safetensors" not in formats:
        for name in ("model.safetensors", "model.json"):
            (out / name).unlink()
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


def _save_program(network: MultiTaskNet, images: Tensor, path: Path) -> None:
    """Write a ``torch.export`` program: images [N, C, H, W] to outputs by head, any N."""
    batch = torch.export.Dim("batch")
    try:
        program = torch.export.export(network, (images[:2],), dynamic_shapes={"images": {0: batch}})
        torch.export.save(program, path)
    except Exception as error:  # its own kinds are many
        raise NetworkError(
            f"the network cannot be exported as a torch program ({first_line(error)}): leave torch out of --format"
        ) from error


def _timed(parts: Mapping[str, Mapping[str, nn.Module]], images: Tensor, rounds: int) -> dict[str, dict[str, Any]]:
    """Times by part and batch size, and by network."""
    return {
        f"{part}, batch {count}": {
            name: asdict(timing)
            for name, timing in latencies(dict(modules), _batch(images, count), rounds).items()
        }
        for count in BATCHES
        for part, modules in parts.items()
    }


def _batch(images: Tensor, count: int) -> Tensor:
    return images.repeat(-(-count // len(images)), 1, 1, 1)[:count]


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
