"""A network in ONNX, the form that runs without torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ms_automl.errors import NetworkError, first_line
from ms_automl.models.copying import copied
from ms_automl.models.network import MultiTaskNet

if TYPE_CHECKING:
    import onnx

TOLERANCE = 1e-4
"""Largest difference to torch, relative to the largest output of the head."""


class _Outputs(nn.Module):
    """The heads' outputs as a tuple: ONNX names outputs by their place."""

    def __init__(self, network: MultiTaskNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network(images).values())


def to_onnx(network: MultiTaskNet, image_shape: tuple[int, int, int]) -> onnx.ModelProto:
    """The network in evaluation mode: input ``images`` [N, C, H, W], an output per head, any N.

    Outputs are called as their tasks, but for a task ``images``, whose output is ``images-``.

    The result is run by onnxruntime and compared with torch before it is given back.

    Args:
        network: it is copied.
        image_shape: (C, H, W).

    Raises:
        NetworkError: where it has an operation that ONNX does not, or gives other outputs there.
    """
    network = copied(network).eval().to(memory_format=torch.contiguous_format)
    images = torch.randn(3, *image_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(images)
    shapes = {"images": {0: torch.export.Dim("batch")}}
    try:
        with _quietly():
            program = torch.onnx.export(
                _Outputs(network).eval(),
                (images,),
                input_names=["images"],
                output_names=[f"{name}-" for name in expected],
                dynamic_shapes=shapes,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # its own kinds are many
        raise NetworkError(f"the network cannot be exported to ONNX: {first_line(error)}") from error
    assert program is not None
    model = program.model_proto
    _rename_outputs(model)
    _check(model, images, expected)
    return model


class OnnxNetwork(nn.Module):
    """A network in ONNX, run by onnxruntime on the CPU with as many threads as torch has.

    Args:
        model: as :func:`to_onnx` makes it.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        content, providers = model.SerializeToString(), ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(content, options, providers=providers)
        self.names = [output.name for output in self.session.get_outputs()]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Predictions by task name."""
        outputs = self.session.run(None, {"images": images.numpy()})
        return {
            name.removesuffix("-"): torch.from_numpy(output)
            for name, output in zip(self.names, outputs, strict=True)
        }


def _rename_outputs(model: onnx.ModelProto) -> None:
    """Call every output as its task, and what else of the graph is called so otherwise; but the input stays."""
    names = {output.name for output in model.graph.output} - {"images-"}
    swap = {name: name.removesuffix("-") for name in names} | {name.removesuffix("-"): name for name in names}
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [swap.get(name, name) for name in values]
    for value in (*model.graph.output, *model.graph.value_info, *model.graph.initializer):
        value.name = swap.get(value.name, value.name)


def _check(model: onnx.ModelProto, images: Tensor, expected: Mapping[str, Tensor]) -> None:
    found = OnnxNetwork(model)(images)
    for name, wanted in expected.items():
        off = float((found[name] - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))
        if not off <= TOLERANCE:
            raise NetworkError(f"the ONNX form's output '{name}' is off by {off:.1e} of its largest value")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The exporter talks of what it does on every channel there is."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
