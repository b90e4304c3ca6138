"""What must hold of a network before it is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ms_automl.errors import NetworkError, first_line
from ms_automl.models.copying import copied
from ms_automl.models.network import MultiTaskNet
from ms_automl.models.penalised import NOTHING_TO_PENALISE, cheap, check_weights, find_penalised, tried
from ms_automl.tasks import Task


def check_network(network: nn.Module, image_shape: tuple[int, int, int], tasks: Sequence[Task]) -> None:
    """Check a network before anything trains, on two random images; leaves its state as it was.

    Raises:
        NetworkError: naming the task, the shape found and the shape expected; or the weight, or the layer.
    """
    if not isinstance(network, MultiTaskNet):
        raise NetworkError(
            f"the network factory must return a MultiTaskNet, but returned {type(network).__name__}"
        )
    if not network.layers():
        raise NetworkError(NOTHING_TO_PENALISE)
    missing = [task.name for task in tasks if task.name not in network.heads]
    if missing:
        raise NetworkError(f"no head for {', '.join(missing)}; heads: {', '.join(network.heads) or 'none'}")
    check_weights(network)
    _check_values(network)
    images = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
    twin = copied(network).eval()  # batch-norm buffers stay untouched
    twin.precision = "float32"
    outputs, drew = _evaluated(twin, images, 0)
    for task in tasks:
        _check_output(task, outputs.get(task.name), image_shape)
    if drew or cheap(network, image_shape):  # Python's own random numbers leave no trace
        again, _ = _evaluated(twin, images, 1)
        for task in tasks:
            _check_same(task, outputs[task.name], again[task.name])
    if cheap(network, image_shape):
        for one in range(len(images)):
            alone, _ = _evaluated(twin, images[one : one + 1], 0)
            for task in tasks:
                _check_alone(task, outputs[task.name][one : one + 1], alone[task.name])
    tried(lambda twin, images: _train(twin, images, tasks), network, images, "the network fails in training")
    find_penalised(network, image_shape)


def _check_values(network: MultiTaskNet) -> None:
    for name, parameter in network.named_parameters():
        if parameter.device.type != "cpu":
            raise NetworkError(
                f"'{name}' is on {parameter.device}: a factory makes its network on the CPU, and resources decide "
                "where it trains"
            )
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            kind = str(parameter.dtype).removeprefix("torch.")
            raise NetworkError(f"'{name}' is {kind}, expected float32 (training.precision is for less)")
        if parameter.is_inference():
            raise NetworkError(
                f"'{name}' was made under torch.inference_mode and cannot be trained: make it outside"
            )
        if not bool(torch.isfinite(parameter).all()):
            raise NetworkError(f"'{name}' holds values that are NaN or infinite")


def _evaluated(network: MultiTaskNet, images: Tensor, seed: int) -> tuple[Mapping[str, Tensor], bool]:
    """Outputs by task, and whether torch drew random numbers for them."""
    given = images.clone()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            outputs: Mapping[str, Tensor] = network(given)
            drew = not torch.equal(before, torch.get_rng_state())
    except Exception as error:  # whatever the user's own network raises
        raise NetworkError(
            f"the network fails on images of shape {tuple(images.shape)}: {first_line(error)}"
        ) from error
    if not isinstance(outputs, Mapping):
        raise NetworkError(f"the network's forward must give outputs by task, but gave {type(outputs).__name__}")
    if not torch.equal(given, images):
        raise NetworkError(
            "the network changes the images it is given, which are needed again: leave inplace=True and the like "
            "out of what comes first"
        )
    return outputs, drew


def _check_same(task: Task, one: Tensor, other: Tensor) -> None:
    if not torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise NetworkError(
            f"task '{task.name}': the same images give other outputs when they are evaluated again: nothing may "
            "be random or remembered in evaluation mode (self.training is False there)"
        )


def _check_alone(task: Task, among: Tensor, alone: Tensor) -> None:
    if not torch.allclose(among, alone, rtol=1e-2, atol=1e-2 * float(among.abs().max())):
        raise NetworkError(
            f"task '{task.name}': an image's output depends on the others of its batch in evaluation mode, and "
            "every number on the batch size: compute each image alone there (self.training is False)"
        )


def _check_output(task: Task, output: object, image_shape: tuple[int, int, int]) -> None:
    expected = task.head.shape(2, *image_shape[1:])
    if not isinstance(output, Tensor):
        raise NetworkError(f"task '{task.name}': the head gives a {type(output).__name__}, expected a tensor")
    found = tuple(output.shape)
    if found != expected:
        raise NetworkError(f"task '{task.name}': the head gives shape {found}, expected {expected}")
    if output.dtype != torch.float32:
        kind = str(output.dtype).removeprefix("torch.")
        raise NetworkError(f"task '{task.name}': the head gives {kind}, expected float32")
    if not bool(torch.isfinite(output).all()):
        raise NetworkError(f"task '{task.name}': the head gives NaN or infinite values in evaluation mode")


def _train(network: MultiTaskNet, images: Tensor, tasks: Sequence[Task]) -> None:
    with torch.enable_grad():
        outputs = network.train()(images)
        torch.stack([outputs[task.name].sum() for task in tasks]).sum().backward()  # type: ignore[no-untyped-call]
