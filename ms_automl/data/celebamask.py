"""CelebAMask-HQ (Lee et al. 2020, arXiv 1907.11922): 30,000 faces, their parts by pixel, 40 attributes by image.

Its licence allows non-commercial research only, and no handing on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ms_automl.data.augmentation import Augmentation, View
from ms_automl.data.cache import Array, Arrays
from ms_automl.data.contract import MultiTaskData, check_arguments
from ms_automl.data.geometry import nearest, resized
from ms_automl.data.images import empty_images, normalise
from ms_automl.data.prepare import Source, opened
from ms_automl.data.prepared import Prepared, PreparedSplit
from ms_automl.data.splits import Batch
from ms_automl.errors import ConfigError, DataError, unknown_name
from ms_automl.tasks import binary, segmentation

NAME = "celebamask"
PARTS = (
    "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
"""The 19 classes; a later part covers an earlier one, as in the authors' own script."""
ATTRIBUTES = (
    "five_o_clock_shadow", "arched_eyebrows", "attractive", "bags_under_eyes", "bald", "bangs", "big_lips",
    "big_nose", "black_hair", "blond_hair", "blurry", "brown_hair", "bushy_eyebrows", "chubby", "double_chin",
    "eyeglasses", "goatee", "gray_hair", "heavy_makeup", "high_cheekbones", "male", "mouth_slightly_open",
    "mustache",
    "narrow_eyes", "no_beard", "oval_face", "pale_skin", "pointy_nose", "receding_hairline", "rosy_cheeks",
    "sideburns", "smiling", "straight_hair", "wavy_hair", "wearing_earrings", "wearing_hat", "wearing_lipstick",
    "wearing_necklace", "wearing_necktie", "young",
)  # fmt: skip
"""The attributes' names in lower case (of the file's, 5_o_Clock_Shadow is no name a task could have)."""

_IMAGES, _MASKS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
_TABLE, _MAPPING = "CelebAMask-HQ-attribute-anno.txt", "CelebA-HQ-to-CelebA-mapping.txt"
_FOLDER = 2000  # images whose masks share a folder
_MASK_SIDE = 512
_TRAIN_END, _VAL_END = 162771, 182638  # of CelebA's own indices
_SIDES = torch.arange(256, dtype=torch.uint8)
for _left in ("l_eye", "l_brow", "l_ear"):
    _pair = [PARTS.index(_left), PARTS.index(_left.replace("l_", "r_", 1))]
    _SIDES[_pair] = _SIDES[_pair[::-1]]


class CelebAMask:
    """The official folders: images, masks by part, the table of attributes and the mapping to CelebA's indices.

    Args:
        folder: that holds them.
        size: side of the prepared images.

    Raises:
        DataError: where the table or the mapping is missing or damaged.
    """

    name = NAME
    layout = "official folders"

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size
        self.arguments = {"size": size}
        self.attributes, self.celeba = self._attributes(), self._celeba()
        if unknown := sorted(set(self.attributes) - set(self.celeba), key=int):
            raise DataError(f"{folder / _MAPPING} has no line for {unknown[0]} and {len(unknown) - 1} more")
        self.parts = {"all": list(self.attributes)}

    def _lines(self, name: str) -> list[list[str]]:
        file = self.folder / name
        try:
            return [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            raise DataError(f"{file} cannot be read ({error}): it belongs to CelebAMask-HQ") from error

    def _attributes(self) -> dict[str, Array]:
        """[40] 0 or 1 by sample. The file: a count, the names, then ``0.jpg -1 1 …`` a line."""
        lines = self._lines(_TABLE)
        names = [name.lower() for name in lines[1]] if len(lines) > 1 else []
        if [*names[:1], *names[1:]] != ["5_o_clock_shadow", *ATTRIBUTES[1:]]:
            raise DataError(f"{self.folder / _TABLE}: its second line must name CelebA's 40 attributes")
        table = {}
        for line in lines[2:]:
            values = line[1:]
            if len(values) != len(ATTRIBUTES) or not set(values) <= {"1", "-1"}:
                raise DataError(f"{self.folder / _TABLE}: the line of {line[0]} must hold 40 times 1 or -1")
            table[Path(line[0]).stem] = np.array([value == "1" for value in values], dtype=np.uint8)
        if len(table) != int(lines[0][0]):
            raise DataError(f"{self.folder / _TABLE} promises {lines[0][0]} lines and has {len(table)}")
        return table

    def _celeba(self) -> dict[str, int]:
        """CelebA's index by sample. The file: a header, then ``idx orig_idx orig_file`` a line."""
        try:
            return {line[0]: int(line[1]) for line in self._lines(_MAPPING)[1:]}
        except (IndexError, ValueError) as error:
            raise DataError(f"{self.folder / _MAPPING} is damaged ({error})") from error

    @cached_property
    def _masks(self) -> dict[str, list[tuple[int, Path]]]:
        """(class, file) by sample, in the order in which they cover each other."""
        found: dict[str, list[tuple[int, Path]]] = {sample: [] for sample in self.attributes}
        for sample, masks in found.items():
            folder = self.folder / _MASKS / str(int(sample) // _FOLDER)
            files = ((number, folder / f"{int(sample):05}_{part}.png") for number, part in enumerate(PARTS))
            masks.extend((number, file) for number, file in files if number and file.is_file())
        return found

    def check(self, part: str, sample: str) -> Iterator[str]:
        """Yield what is wrong with the image or a mask; a part without a file is not in it, but one must be."""
        masks = self._masks[sample]
        if not masks:
            yield f"{self.folder / _MASKS / str(int(sample) // _FOLDER) / f'{int(sample):05}_*.png'} are missing"
        for file in (self._image(sample), *(file for _, file in masks)):
            try:
                _decoded(file, self.size)
            except FileNotFoundError:
                yield f"{file} is missing"
            except Exception as error:  # Pillow raises much: OSError, SyntaxError, EOFError, ValueError
                yield f"{file} is damaged: {error}"

    def _image(self, sample: str) -> Path:
        return self.folder / _IMAGES / f"{sample}.jpg"

    def read(self, part: str, sample: str) -> Arrays:
        """``image`` [S, S, 3], ``segmentation`` [S, S], ``attributes`` [40], all uint8; ``celeba`` int32."""
        classes = np.zeros((_MASK_SIDE, _MASK_SIDE), dtype=np.uint8)
        for number, file in self._masks[sample]:
            with Image.open(file) as mask:
                classes[nearest(np.asarray(mask.convert("L")), _MASK_SIDE, _MASK_SIDE) > 0] = number
        return {
            "image": resized(_decoded(self._image(sample), self.size), self.size, self.size),
            "segmentation": nearest(classes, self.size, self.size),
            "attributes": self.attributes[sample],
            "celeba": np.array(self.celeba[sample], dtype=np.int32),
        }


def _decoded(file: Path, size: int) -> Array:
    """[H, W, 3] uint8; a JPEG is decoded at the smallest size that is not below ``size``, which is much faster."""
    with Image.open(file) as image:
        image.draft("RGB", (size, size))
        return np.asarray(image.convert("RGB"))


def source(folder: Path, asked: Mapping[str, Any]) -> Source:
    """CelebAMask-HQ's official folders.

    Args:
        folder: that holds them.
        asked: ``size``; None is 256.

    Raises:
        ConfigError: for a size outside its range.
        DataError: where one of them is missing.
    """
    check_size(asked.get("size"))
    for name in (_IMAGES, _MASKS, _TABLE, _MAPPING):
        if not (folder / name).exists():
            raise DataError(f"{folder} is not CelebAMask-HQ as it is published: {name} is missing")
    return CelebAMask(folder, asked.get("size") or 256)


def check_size(size: int | None) -> None:
    """Check the side of the images; None is the default.

    Raises:
        ConfigError: where it is no multiple of 8, or larger than the masks.
    """
    if size is not None and (size < 16 or size % 8 or size > _MASK_SIDE):
        raise ConfigError(f"`size` must be a multiple of 8 from 16 to {_MASK_SIDE}, but got size={size}")


def celebamask(
    seed: int,
    data_dir: Path | None = None,
    *,
    train: int | None = None,
    val: int | None = None,
    test: int | None = None,
    size: int | None = None,
    split: str = "official",
    tasks: Sequence[str] = ("segmentation", "male", "smiling", "young"),
    unseen: Sequence[str] = ("wearing_lipstick", "eyeglasses", "high_cheekbones"),
    flip: bool = True,
    threads: int = 1,
) -> MultiTaskData:
    """Faces [3, size, size]; parts of the face (:data:`PARTS`) and any of the attributes (:data:`ATTRIBUTES`).

    Images are normalised by ImageNet's mean and deviation. Half of the training samples are flipped; then a
    left eye, brow or ear becomes a right one.

    Args:
        seed: decides the ``random`` split, and which samples a size below the whole takes.
        data_dir: a prepared folder, or the official ones, which are then prepared in the cache folder.
        train: number of samples to train on; None for all of the split.
        val: number of samples for validation; None for all of the split.
        test: number of test samples; None for all of the split.
        size: side of the images, a multiple of 8.
        split: ``official`` (CelebA's own: 24,183, 2,993 and 2,824) or ``random`` (70, 15 and 15 %, by ``seed``).
        tasks: ``segmentation`` and attributes, to train.
        unseen: ``segmentation`` and attributes, held back.
        flip: whether half of the training samples are flipped.
        threads: that read samples.

    Raises:
        ConfigError: for an argument outside its range, or without ``data_dir``.
        DataError: where files are missing or damaged.
    """
    counts = {"train": train, "val": val, "test": test}
    given = {name: count for name, count in counts.items() if count is not None}
    check_arguments(seed, threads=threads, **given)
    check_size(size)
    if split not in ("official", "random"):
        raise unknown_name("split", split, ["official", "random"])
    for name in (*tasks, *unseen):
        if name not in ("segmentation", *ATTRIBUTES):
            raise unknown_name("task", name, ["segmentation", *ATTRIBUTES])
    prepared = opened(NAME, data_dir, {"size": size}, source)
    rng = np.random.default_rng(seed)
    parts = _official(prepared) if split == "official" else _random(rng, prepared.count("all"))
    for name, count in given.items():
        if count > len(parts[name]):
            raise ConfigError(f"`{name} <= {len(parts[name])}` must hold for these files, but got {count}")
        parts[name] = np.sort(rng.permutation(parts[name])[:count])
    splits = {
        name: PreparedSplit(
            prepared, "all", part, Decoder(), Augmentation(flip=flip) if name == "train" else None, threads
        )
        for name, part in parts.items()
    }
    make = {"segmentation": segmentation("segmentation", len(PARTS))} | {name: binary(name) for name in ATTRIBUTES}
    return MultiTaskData(
        NAME, **splits, tasks=[make[name] for name in tasks], unseen_tasks=[make[name] for name in unseen]
    )


def _official(prepared: Prepared) -> dict[str, Array]:
    celeba = np.concatenate([shard["celeba"] for shard in prepared.fields("all")])
    part = np.searchsorted([_TRAIN_END, _VAL_END], celeba, side="right")
    return {name: np.flatnonzero(part == index) for index, name in enumerate(("train", "val", "test"))}


def _random(rng: np.random.Generator, count: int) -> dict[str, Array]:
    order, ends = rng.permutation(count), [round(0.7 * count), round(0.85 * count)]
    return dict(zip(("train", "val", "test"), map(np.sort, np.split(order, ends)), strict=True))


class Decoder:
    """Turns what is stored (:meth:`CelebAMask.read`) into batches."""

    def empty(self, count: int, shapes: Mapping[str, Sequence[int]], device: torch.device) -> Batch:
        """A batch that is not filled; all of it counts."""
        height, width = shapes["image"][:2]
        targets = {name: torch.empty(count, device=device) for name in ATTRIBUTES}
        targets["segmentation"] = torch.empty(count, height, width, dtype=torch.long, device=device)
        valid = {name: torch.ones(of.shape, dtype=torch.bool, device=device) for name, of in targets.items()}
        return Batch(empty_images(count, height, width, device), targets, valid)

    def decode(self, rows: Mapping[str, Tensor], views: Sequence[View], out: Batch) -> None:
        """Fill a batch; left and right change names in flipped views."""
        normalise(rows["image"], out.images)
        classes = out.targets["segmentation"].copy_(rows["segmentation"])
        sides = _SIDES.to(classes.device)
        for index, view in enumerate(views):
            if view.flipped:
                classes[index] = sides[classes[index]]
        for index, name in enumerate(ATTRIBUTES):
            out.targets[name].copy_(rows["attributes"][:, index])
