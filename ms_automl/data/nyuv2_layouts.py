"""The three forms NYU Depth v2 is handed around in, read into the fields of the prepared one.

All give ``image`` [H, W, 3] uint8, ``segmentation`` [H, W] uint8 (:data:`IGNORED` where it has no class),
``depth`` [H, W] int16 in millimetres (0 where not valid), ``normals`` [H, W, 3] float16 (0 where not valid),
``edges`` [H, W] bool. A valid normal's z is never 0. What a form lacks is derived: normals from depth
(:func:`~ms_automl.data.geometry.normals_from_depth`, with the Kinect's focal lengths), edges from the classes
(:func:`~ms_automl.data.geometry.label_edges`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ms_automl.data.cache import Array, Arrays
from ms_automl.data.geometry import label_edges, nearest, normals_from_depth, resized
from ms_automl.errors import ConfigError, DataError

IGNORED = 255
_OFFICIAL = {"train": "train", "test": "val"}  # what the folders and lists of the other two forms call them
_KINDS = ("image", "label", "depth", "normal")
_FOCAL, _CENTRE = (518.86, 519.47), (325.58, 253.74)  # of the colour camera at 640 x 480 (the authors' toolbox)
_FULL = (480, 640)


class _Layout:
    """What the forms share: the name, what they were asked for, and how fields are brought to one form."""

    name = "nyuv2"
    layout: str
    classes_by_default = 13
    parts: Mapping[str, Sequence[str]]

    def __init__(self, folder: Path, classes: int, height: int, width: int) -> None:
        self.folder = folder
        self.classes = classes
        self.height, self.width = height, width
        self.arguments: dict[str, Any] = {"classes": classes, "height": height, "width": width}

    def _fields(
        self, image: Array, classes: Array, metres: Array, normals: Array | None = None, edges: Array | None = None
    ) -> Arrays:
        size = (self.height, self.width)
        if normals is None:
            scale = metres.shape[0] / _FULL[0]
            focal, centre = ((x * scale, y * scale) for x, y in (_FOCAL, _CENTRE))
            normals = normals_from_depth(metres, focal, centre)
        if edges is None:
            edges = label_edges(nearest(classes, *size), IGNORED)  # thin lines do not survive a change of size
        valid = np.isfinite(metres) & (metres > 0)
        millimetres = np.where(valid, np.rint(np.where(valid, metres, 0) * 1000).clip(1, 32767), 0)
        return {
            "image": resized(image, *size),
            "segmentation": nearest(classes.astype(np.uint8), *size),
            "depth": nearest(millimetres.astype(np.int16), *size),
            "normals": nearest(_unit(np.nan_to_num(np.asarray(normals, dtype=np.float32))), *size),
            "edges": nearest(edges.astype(bool), *size),
        }


class LabelledMat(_Layout):
    """``nyu_depth_v2_labeled.mat`` with ``splits.mat`` and the class maps beside it.

    Axes are those of HDF5: images [N, 3, 640, 480], depths [N, 640, 480] in metres, labels [N, 640, 480] of 894
    names with 0 for none; splits are 1-based. Labels go to 40 classes by ``classMapping40.mat`` (Gupta et al.
    2013) and on to 13 by ``class13Mapping.mat`` (Couprie et al. 2013, arXiv 1301.3572).
    """

    layout = "labelled mat"
    file = "nyu_depth_v2_labeled.mat"

    def __init__(self, folder: Path, classes: int, height: int, width: int) -> None:
        super().__init__(folder, classes, height, width)
        splits = self._mat("splits.mat", "the authors' page has it beside the labelled data set")
        try:
            self.parts = {
                part: [f"{index:04}" for index in sorted(splits[key].ravel().tolist())]
                for part, key in (("train", "trainNdxs"), ("test", "testNdxs"))
            }
        except KeyError as error:
            raise DataError(
                f"{folder / 'splits.mat'} has no {error}: take the one of the authors' page"
            ) from error
        self.classes_of = self._class_map()

    @classmethod
    def found_in(cls, folder: Path) -> bool:
        """Whether a folder holds this form."""
        return (folder / cls.file).is_file()

    def _mat(self, name: str, source: str) -> dict[str, Any]:
        from scipy.io import loadmat

        file = self.folder / name
        if not file.is_file():
            raise DataError(f"{file} is missing: {source}")
        try:
            content: dict[str, Any] = loadmat(file)
        except Exception as error:  # scipy raises much: ValueError, TypeError, MatReadError, zlib.error
            raise DataError(f"{file} cannot be read ({error}): {source}") from error
        return content

    def _class_map(self) -> Array:
        """[895] from a label to its class, 0 … classes - 1, or IGNORED."""
        source = "the repository ankurhanda/nyuv2-meta-data has it"
        try:
            to40 = np.concatenate([[0], self._mat("classMapping40.mat", source)["mapClass"].ravel()])
            if self.classes == 13:
                mapping = self._mat("class13Mapping.mat", source)["classMapping13"][0, 0][0]
                to40 = np.concatenate([[0], mapping.ravel()])[to40]
        except (KeyError, IndexError) as error:
            raise DataError(f"the class maps in {self.folder} are not what they should be: {source}") from error
        return np.where(to40 == 0, IGNORED, to40 - 1).astype(np.uint8)

    @cached_property
    def _content(self) -> Any:
        try:
            import h5py
        except ImportError as error:
            raise ConfigError(
                "reading the .mat file of NYU-v2 needs the package h5py: pip install h5py"
            ) from error
        try:
            return h5py.File(self.folder / self.file, "r")
        except OSError as error:
            raise DataError(f"{self.folder / self.file} cannot be read as HDF5 ({error})") from error

    def check(self, part: str, sample: str) -> Iterator[str]:
        """Yield what is wrong with a sample, a line each."""
        try:
            self._raw(sample)
        except (OSError, KeyError, IndexError, ValueError, DataError) as error:
            yield f"{self.folder / self.file}, image {sample}: {error}"

    def _raw(self, sample: str) -> list[Array]:
        index = int(sample) - 1
        arrays = [np.asarray(self._content[key][index]).T for key in ("images", "labels", "depths")]
        if int(arrays[1].max()) >= len(self.classes_of):
            raise DataError(
                f"label {arrays[1].max()} is none of the {len(self.classes_of) - 1} in classMapping40.mat"
            )
        return arrays

    def read(self, part: str, sample: str) -> Arrays:
        """The fields of a sample."""
        image, labels, metres = self._raw(sample)
        return self._fields(image, self.classes_of[labels], metres)


class TaskFolders(_Layout):
    """``{train,val}/{image,label,depth,normal}/{i}.npy`` of MTAN and LibMTL: 288 x 384, 13 classes.

    Images are floats from 0 to 1; labels -1 where there is none; depth and normals 0 where not valid. Their
    ``val`` is the official test set, and called ``test`` here.
    """

    layout = "task folders"

    def __init__(self, folder: Path, classes: int, height: int, width: int) -> None:
        super().__init__(folder, classes, height, width)
        if classes != 13:
            raise ConfigError(f"the .npy folders of NYU-v2 have 13 classes, but got classes={classes}")
        # Every kind counts: an image whose file is missing shall be found missing by its labels.
        self.parts = {
            part: sorted(
                {file.stem for kind in _KINDS for file in (folder / own / kind).glob("*.npy")}, key=_number
            )
            for part, own in _OFFICIAL.items()
        }

    @classmethod
    def found_in(cls, folder: Path) -> bool:
        """Whether a folder holds this form."""
        return (folder / "train" / "label").is_dir() and (folder / "val" / "label").is_dir()

    def _file(self, part: str, kind: str, sample: str) -> Path:
        return self.folder / _OFFICIAL[part] / kind / f"{sample}.npy"

    def check(self, part: str, sample: str) -> Iterator[str]:
        """Yield what is wrong with headers, lengths and sizes of a sample's files, a line each."""
        sizes: dict[Path, tuple[int, ...]] = {}
        for kind in _KINDS:
            file = self._file(part, kind, sample)
            yield from _try(file, lambda: sizes.setdefault(file, _npy(file).shape[:2]))  # noqa: B023
        if len(set(sizes.values())) > 1:
            yield f"{self._file(part, 'image', sample)}: image and labels differ in size: {list(sizes.values())}"

    def read(self, part: str, sample: str) -> Arrays:
        """The fields of a sample."""
        image, labels, metres, normals = (np.asarray(_npy(self._file(part, kind, sample))) for kind in _KINDS)
        classes = np.where(labels < 0, IGNORED, labels).reshape(labels.shape[:2])
        image = np.rint(np.asarray(image, dtype=np.float64) * 255).clip(0, 255).astype(np.uint8)
        return self._fields(image, classes, metres.reshape(metres.shape[:2]), normals)


class NyudMt(_Layout):
    """NYUD_MT: ``images``, ``segmentation``, ``depth``, ``normals`` and ``edge``; ``gt_sets/{train,val}.txt``.

    40 classes. A segmentation is 1 to 40 with 0 for none (as it is published), or 0 to 39 with 255 for none; the
    files show which. Normals and edges are ``.npy``, or images (normals as 127.5 (n + 1)).
    """

    layout = "NYUD_MT"
    classes_by_default = 40

    def __init__(self, folder: Path, classes: int, height: int, width: int) -> None:
        super().__init__(folder, classes, height, width)
        if classes != 40:
            raise ConfigError(f"NYUD_MT has 40 classes, but got classes={classes}")
        self.parts = {
            part: (folder / "gt_sets" / f"{name}.txt").read_text(encoding="utf-8").split()
            for part, name in _OFFICIAL.items()
        }
        self.arguments["first_class"] = self._first_class()

    @classmethod
    def found_in(cls, folder: Path) -> bool:
        """Whether a folder holds this form."""
        return all((folder / "gt_sets" / f"{name}.txt").is_file() for name in _OFFICIAL.values())

    def _first_class(self) -> int:
        """1 where 0 means no class, else 0."""
        for samples in self.parts.values():
            for sample in samples:
                file = self.folder / "segmentation" / f"{sample}.png"
                if file.is_file():
                    values = _values(file)
                    if 255 in values:
                        return 0
                    if 40 in values:
                        return 1
        return 1

    def _file(self, folder: str, sample: str) -> Path:
        """The file of a sample in a folder, whatever its ending; a .npy where there is none."""
        for ending in ("npy", "png", "jpg"):
            file = self.folder / folder / f"{sample}.{ending}"
            if file.is_file():
                return file
        return self.folder / folder / f"{sample}.{'jpg' if folder == 'images' else 'npy'}"

    def check(self, part: str, sample: str) -> Iterator[str]:
        """Yield what is wrong with a sample's images, and with headers and lengths of its arrays."""
        for folder in ("images", "segmentation", "depth", "normals", "edge"):
            file = self._file(folder, sample)
            yield from _try(file, lambda: _array(file))  # noqa: B023

    def read(self, part: str, sample: str) -> Arrays:
        """The fields of a sample."""
        with Image.open(self._file("images", sample)) as opened:
            image = np.asarray(opened.convert("RGB"))
        labels, metres, normals, edges = (
            _array(self._file(folder, sample)) for folder in ("segmentation", "depth", "normals", "edge")
        )
        first = self.arguments["first_class"]
        inside = (labels >= first) & (labels < first + 40)
        if normals.dtype == np.uint8:
            normals = normals / 127.5 - 1
        shape = labels.shape[:2]
        return self._fields(
            image,
            np.where(inside, labels - first, IGNORED),
            metres.reshape(shape),
            normals,
            edges.reshape(shape) > 0,
        )


LAYOUTS: tuple[type[LabelledMat] | type[TaskFolders] | type[NyudMt], ...] = (LabelledMat, TaskFolders, NyudMt)


def _unit(normals: Array) -> Array:
    """Normals of length 1 as float16, or 0 where they are not valid; z is never 0 where they are."""
    length = np.linalg.norm(normals, axis=2, keepdims=True)
    unit = np.where(length > 0.5, normals / length.clip(0.5), 0).astype(np.float16)
    smallest = np.finfo(np.float16).smallest_subnormal
    unit[..., 2] = np.where((length[..., 0] > 0.5) & (unit[..., 2] == 0), smallest, unit[..., 2])
    return unit


def _number(stem: str) -> tuple[int, str]:
    return (int(stem) if stem.isdigit() else -1, stem)


def _npy(file: Path) -> Array:
    array: Array = np.load(
        file, mmap_mode="r", allow_pickle=False
    )  # fails where the file is shorter than its header says
    return array


def _array(file: Path) -> Array:
    if file.suffix == ".npy":
        return _npy(file)
    with Image.open(file) as image:
        return np.asarray(image)


def _values(file: Path) -> set[int]:
    with Image.open(file) as image:
        return set(np.unique(np.asarray(image)).tolist())


def _try(file: Path, read: Callable[[], object]) -> Iterator[str]:
    try:
        read()
    except FileNotFoundError:
        yield f"{file} is missing"
    except Exception as error:  # numpy and Pillow raise much: ValueError, OSError, SyntaxError, EOFError
        yield f"{file} is damaged: {error}"
