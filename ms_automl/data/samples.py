"""One sample as people have it, as tensors: images and targets of torch, numpy, PIL and Python.

Images are tensors [channels, H, W] or [H, W], arrays [H, W, channels], [channels, H, W] or [H, W], or PIL's,
without their transparency. Floating-point ones stay as they are; bool, uint8 and uint16 become 0 to 1.

Targets have the shapes of :mod:`ms_automl.tasks.task` without B; dimensions of size 1 may lack or be too many, and
[H, W, C] is read as [C, H, W]. A label that is missing is None, absent, masked, NaN, or for classes -1 or -100.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ms_automl.errors import DataError
from ms_automl.tasks import Task

IMAGE = ("image", "images", "pixel_values")
"""Names under which a mapping may have its image."""
MISSING = (-1, -100)
"""Class numbers that say that there is none; the latter is torch's ``ignore_index``."""
SCALES = {torch.uint8: 255.0, torch.uint16: 65535.0, torch.bool: 1.0}


@dataclass(frozen=True)
class Sample:
    """An image [channels, H, W] float32, and by task name a target and which of its labels count."""

    image: Tensor
    targets: Mapping[str, Tensor]
    valid: Mapping[str, Tensor]


def sample_of(given: Any, tasks: Sequence[Task], labelled: Sequence[str]) -> Sample:
    """What a data set gives for an index, as a sample.

    Args:
        given: in one of the forms above.
        tasks: all of them: those without a target have labels that do not count.
        labelled: names of the tasks of targets that come in order.

    Raises:
        DataError: saying what it is and what is expected.
    """
    found, targets, masks = _taken_apart(given, labelled)
    image = image_of(found)
    height, width = image.shape[1:]
    labels = {}
    for task in tasks:
        target = targets.get(task.name) if task.name in labelled else None
        labels[task.name] = label_of(task, target, masks.get(task.name), height, width)
    return Sample(
        image,
        {name: target for name, (target, _) in labels.items()},
        {name: valid for name, (_, valid) in labels.items()},
    )


def _taken_apart(given: Any, labelled: Sequence[str]) -> tuple[Any, Mapping[str, Any], Mapping[str, Any]]:
    """Image, targets by task, and masks by task."""
    if isinstance(given, Mapping):
        key = next((name for name in IMAGE if name in given), None)
        if key is None:
            raise DataError(
                f"it is a mapping with {_listed(given)} and no image: call that 'image', and targets as tasks"
            )
        if key in labelled:
            raise DataError(f"'{key}' is the image and a task: give (image, {{task: target}})")
        masks = given.get("valid", {})
        return given[key], given, {} if "valid" in labelled else _by_task(masks, labelled)
    if not isinstance(given, tuple | list) or len(given) < 2:
        what = f"a {type(given).__name__}"
        if isinstance(given, tuple | list):
            what += f" of {len(given)}"
        raise DataError(
            f"it is {what}: expected (image, {{task: target}}), (image, target, ...) or a mapping with 'image' "
            "and the targets by task"
        )
    image, *rest = given
    if isinstance(rest[0], Mapping):
        if len(rest) > 2 or (len(rest) == 2 and not isinstance(rest[1], Mapping)):
            raise DataError("behind the targets by task stands something else: only a mapping of masks may")
        return image, _known(rest[0], labelled), _by_task(rest[1], labelled) if len(rest) == 2 else {}
    if len(rest) == 1 and len(labelled) > 1 and isinstance(rest[0], tuple | list):
        rest = list(rest[0])
    if len(rest) != len(labelled):
        raise DataError(
            f"it has {len(rest)} target{'s' * (len(rest) != 1)} for the {len(labelled)} task"
            f"{'s' * (len(labelled) != 1)} {', '.join(labelled)}: give them in this order, or as {{task: target}}"
        )
    return image, dict(zip(labelled, rest, strict=True)), {}


def _known(targets: Mapping[Any, Any], labelled: Sequence[str]) -> Mapping[Any, Any]:
    """Targets by task; DataError where one is all but called as a task that has none."""
    lacking = {name.lower(): name for name in labelled if name not in targets}
    for name in targets:
        if isinstance(name, str) and name not in labelled and (meant := lacking.get(name.lower())):
            raise DataError(f"it has a target of '{name}' and none of '{meant}', as the task is called")
    return targets


def _by_task(masks: Any, labelled: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(masks, Mapping):
        if len(labelled) != 1:
            raise DataError(f"its 'valid' is a {type(masks).__name__}: give {{task: mask}}")
        return {labelled[0]: masks}
    if unknown := [name for name in masks if name not in labelled]:
        raise DataError(f"it says which labels count of {unknown[0]!r}: its tasks are {', '.join(labelled)}")
    return masks


def _listed(given: Mapping[Any, Any]) -> str:
    names = [repr(name) for name in given]
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "") if names else "nothing"


def image_of(given: Any) -> Tensor:
    """An image as [channels, H, W] float32.

    Raises:
        DataError: for what is no image, and for whole numbers of more than 16 bits.
    """
    last = isinstance(given, Image.Image)
    if isinstance(given, Image.Image):
        given = np.asarray(_plain(given))
    if isinstance(given, np.ma.MaskedArray):
        raise DataError("its image is a masked array: fill it (array.filled(value))")
    if isinstance(given, np.ndarray) and given.dtype.kind in "biuf":
        last = last or (given.ndim == 3 and _channels_last(given.shape))
        image = _tensor(given)
    elif isinstance(given, Tensor):
        if given.ndim == 3 and given.shape[2] <= 4 < 8 <= min(given.shape[:2]):
            raise DataError(
                f"its image is a tensor of shape {tuple(given.shape)}, expected is [channels, H, W]: permute it"
            )
        image = _dense(given, "its image")
    else:
        what = f"an array of {given.dtype}" if isinstance(given, np.ndarray) else f"a {type(given).__name__}"
        raise DataError(f"its image is {what}, expected a tensor, an array of numbers or an image of PIL's")
    if image.ndim == 2:
        image = image[None]
    elif image.ndim == 3 and last:
        image = image.movedim(2, 0)
    if image.ndim != 3 or not image.numel():
        raise DataError(f"its image has shape {tuple(image.shape)}, expected [channels, H, W] or [H, W]")
    if image.is_floating_point():
        return image.to(torch.float32, copy=True)  # a data set may write over what it gave
    if image.dtype not in SCALES:
        raise DataError(
            f"its image is of {image.dtype}: give floating-point numbers, or uint8 or uint16, which become 0 to 1"
        )
    return image.to(torch.float32) / SCALES[image.dtype]


def _plain(image: Image.Image) -> Image.Image:
    """An image of PIL's as grey or RGB; one of 16 or 32 bits as it is."""
    if image.mode in ("L", "RGB", "F", "I") or image.mode.startswith("I;16"):
        return image
    if image.mode in ("La", "RGBa"):  # multiplied by their transparency
        image = image.convert(f"{image.mode[:-1]}A")
    return image.convert("L" if image.mode in ("1", "LA") else "RGB")


def _channels_last(shape: tuple[int, ...]) -> bool:
    """Whether an array's channels come last. Libraries differ, so it must show: 4 channels at the most, or H = W.

    Raises:
        DataError: where it does not.
    """
    first, middle, last = shape
    few = first <= 4, last <= 4
    if few[0] != few[1]:
        return few[1]
    if first != last and middle in (first, last):
        return middle == first
    raise DataError(f"its image is an array of shape {shape}, which may be read in two ways: give a tensor")


def label_of(task: Task, value: Any, mask: Any, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Target and validity of a task for an image of ``height`` x ``width`` pixels.

    Raises:
        DataError: for a target of another shape or kind.
    """
    shape = task.target_shape(1, height, width)[1:]
    valid_shape = task.valid_shape(1, height, width)[1:]
    dtype = torch.float32 if task.classes is None else torch.int64
    if value is None:
        return torch.zeros(shape, dtype=dtype), torch.zeros(valid_shape, dtype=torch.bool)
    what = f"target of '{task.name}'"
    found = _shaped(_numbers(value, what, task.classes is not None), shape, what)
    if task.classes is None:
        target = found.to(torch.float32, copy=True)
        known = ~target.isnan()
    else:
        target, known = _classes(found, what)
    if isinstance(value, np.ma.MaskedArray):
        known = known & ~_shaped(_tensor(np.ma.getmaskarray(value)), shape, what)
    if known.shape != valid_shape:
        known = known.all(0)  # of several channels one label
    if mask is not None:
        what = f"valid of '{task.name}'"
        counted = _shaped(_numbers(mask, what, False), valid_shape, what)
        if not bool(((counted == 0) | (counted == 1)).all()):
            raise DataError(f"{what} holds other values than True and False, 1 and 0")
        known = known & counted.bool()
    return target, known


def _classes(found: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Class numbers as int64, and which of them there are."""
    known = ~found.isnan() if found.is_floating_point() else torch.ones(found.shape, dtype=torch.bool)
    if found.is_floating_point() or found.dtype == torch.uint64:
        whole = found.to(torch.float64).nan_to_num(0.0, torch.inf, -torch.inf)
        odd = whole[(whole != whole.round()) | (whole.abs() > 2**53)]
        if len(odd):
            raise DataError(f"{what} holds {odd[0].item():g}, which is no class number")
        found = whole
    target = found.to(torch.int64, copy=True)
    for number in MISSING:
        known = known & (target != number)
    return target, known


def _numbers(value: Any, what: str, classes: bool) -> Tensor:
    if isinstance(value, Tensor):
        return _dense(value, what)
    if isinstance(value, Image.Image):
        value = np.asarray(value)
    try:
        array = np.ma.getdata(value) if isinstance(value, np.ma.MaskedArray) else np.asarray(value)
        return _tensor(array.astype(np.float64) if array.dtype == object else array)  # None becomes NaN
    except (TypeError, ValueError) as error:  # a text, an object, lists of different lengths
        shown = repr(value) if isinstance(value, str) else f"a {type(value).__name__}"
        wanted = "the number of a class" if classes else "a number"
        raise DataError(f"{what} is {shown}, expected {wanted}, or an array of them") from error


def _dense(value: Tensor, what: str) -> Tensor:
    if value.is_meta or value.layout != torch.strided or value.is_complex() or value.is_quantized:
        kinds = {"without values": value.is_meta, "sparse": value.layout != torch.strided}
        kinds |= {"complex": value.is_complex(), "quantised": value.is_quantized}
        found = next(kind for kind, so in kinds.items() if so)
        raise DataError(f"{what} is a tensor that is {found}: give an ordinary one")
    return value.detach().cpu()


def _tensor(array: Any) -> Tensor:
    if array.dtype.kind not in "biuf":
        raise TypeError(f"an array of {array.dtype}")
    wide = array.dtype.kind == "f" and array.dtype.itemsize > 8  # torch has no longer ones
    array = np.array(array, dtype=np.float64 if wide else array.dtype.newbyteorder("="))
    return torch.from_numpy(array) if array.ndim else torch.as_tensor(array.item())


def _shaped(found: Tensor, shape: tuple[int, ...], what: str) -> Tensor:
    """A tensor in a shape that differs in dimensions of size 1 alone, in where channels stand, or as points do."""
    if tuple(found.shape) == shape:
        return found
    if _without_ones(found.shape) == _without_ones(shape):
        return found.reshape(shape)
    if len(shape) == 3 and tuple(found.shape) == (*shape[1:], shape[0]):
        return found.movedim(2, 0)
    if len(shape) == 1 and found.ndim == 2 and found.numel() == shape[0]:
        return found.reshape(shape)  # [points, 2]
    raise DataError(f"{what} has shape {tuple(found.shape)}, expected {shape}")


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
