"""Small files in exactly the forms that NYU-v2 and CelebAMask-HQ are published in; their content is made up."""

from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from scipy.io import savemat

from ms_automl.data.cache import Array
from ms_automl.data.celebamask import PARTS

TRAIN, TEST = 40, 14
HEIGHT, WIDTH = 48, 64
FACES = 60
NAMES_OF_ATTRIBUTES = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair "
    "Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup "
    "High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose "
    "Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat "
    "Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young"
)


def scene(rng: np.random.Generator, classes: int, height: int = HEIGHT, width: int = WIDTH) -> dict[str, Array]:
    """A slanted wall with a box before it: what a room is reduced to.

    Returns:
        image [H, W, 3] uint8, label [H, W] from -1 (none) to classes - 1, depth [H, W] metres with 0 where not
        valid, normal [H, W, 3], edge [H, W] bool.
    """
    label = np.full((height, width), rng.integers(classes))
    top, left = rng.integers(4, height // 2), rng.integers(4, width // 2)
    box = (slice(top, top + height // 3), slice(left, left + width // 3))
    label[box] = (label[0, 0] + 1 + rng.integers(classes - 1)) % classes
    slope = rng.uniform(-1, 1)
    depth = 3 + slope * np.linspace(0, 1, width)[None].repeat(height, 0)
    depth[box] = 2.0
    normal = np.zeros((height, width, 3))
    normal[..., 2] = -1
    normal[..., 0] = slope / 4
    normal[box] = (0, 0, -1)
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    # Grey noise on a class's brightness: of coloured noise JPEG leaves little.
    image = 15 * (label[..., None] % 13) + rng.integers(0, 40, (height, width, 1)) + np.zeros(3, dtype=int)
    label[:2], depth[:, :3], normal[:, :3] = -1, 0, 0
    edge = np.zeros((height, width), dtype=bool)
    edge[box] = True
    edge[top + 1 : top + height // 3 - 1, left + 1 : left + width // 3 - 1] = False
    return {
        "image": image.clip(0, 255).astype(np.uint8),
        "label": label,
        "depth": depth,
        "normal": normal,
        "edge": edge,
    }


def task_folders(folder: Path, train: int = TRAIN, test: int = TEST) -> Path:
    """MTAN's and LibMTL's form."""
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("val", test)):
        for kind in ("image", "label", "depth", "normal"):
            (folder / part / kind).mkdir(parents=True)
        for index in range(count):
            made = scene(rng, 13)
            contents = {
                "image": made["image"] / 255,
                "label": made["label"].astype(np.float32),
                "depth": made["depth"][..., None].astype(np.float32),
                "normal": made["normal"],
            }
            for kind, content in contents.items():
                np.save(folder / part / kind / f"{index}.npy", content)
    return folder


def nyud_mt(folder: Path, train: int = TRAIN, test: int = TEST, images: bool = False, first: int = 1) -> Path:
    """The form of 'NYUD_MT'; normals and edges as images or as arrays, classes from ``first`` on."""
    rng = np.random.default_rng(1)
    for name in ("images", "segmentation", "depth", "normals", "edge", "gt_sets"):
        (folder / name).mkdir(parents=True)
    for part, count in (("train", train), ("val", test)):
        names = [f"{part}_{index:04}" for index in range(count)]
        (folder / "gt_sets" / f"{part}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            made = scene(rng, 40)
            none = 0 if first else 255
            classes = np.where(made["label"] < 0, none, made["label"] + first).astype(np.uint8)
            Image.fromarray(made["image"]).save(folder / "images" / f"{name}.jpg", quality=95)
            Image.fromarray(classes).save(folder / "segmentation" / f"{name}.png")
            np.save(folder / "depth" / f"{name}.npy", made["depth"].astype(np.float32))
            if images:
                coded = np.rint(127.5 * (made["normal"] + 1)).astype(np.uint8)
                Image.fromarray(coded).save(folder / "normals" / f"{name}.png")
                Image.fromarray(made["edge"].astype(np.uint8) * 255).save(folder / "edge" / f"{name}.png")
            else:
                np.save(folder / "normals" / f"{name}.npy", made["normal"].astype(np.float32))
                np.save(folder / "edge" / f"{name}.npy", made["edge"].astype(np.float32))
    return folder


def labelled_mat(folder: Path, train: int = TRAIN, test: int = TEST, height: int = 96, width: int = 128) -> Path:
    """``nyu_depth_v2_labeled.mat`` (HDF5, axes as in v7.3 files), 1-based splits, the class maps."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(2)
    to40 = 1 + np.arange(894) % 40
    scenes = [scene(rng, 894, height, width) for _ in range(train + test)]
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = np.stack([made["image"].transpose(2, 1, 0) for made in scenes])
        file["depths"] = np.stack([made["depth"].T for made in scenes]).astype(np.float32)
        file["labels"] = np.stack([made["label"].T + 1 for made in scenes]).astype(np.uint16)
    order = 1 + np.random.default_rng(3).permutation(train + test)
    savemat(
        folder / "splits.mat",
        {"trainNdxs": np.sort(order[:train])[:, None], "testNdxs": np.sort(order[train:])[:, None]},
    )
    savemat(folder / "classMapping40.mat", {"mapClass": to40[None].astype(np.uint8)})
    labels, names = (np.arange(40) % 13 + 1)[None].astype(np.uint8), np.array([["Bed"] * 13], dtype=object)
    mapping = np.array([[(labels, names)]], dtype=[("labels", object), ("className", object)])
    savemat(folder / "class13Mapping.mat", {"classMapping13": mapping})
    return folder


def faces(folder: Path, count: int = FACES, side: int = 64, mask_side: int = 128) -> Path:
    """CelebAMask-HQ's folders: every fourth face wears a hat, some parts are missing."""
    rng = np.random.default_rng(4)
    (folder / "CelebA-HQ-img").mkdir(parents=True)
    lines = [str(count), NAMES_OF_ATTRIBUTES]
    mapping = ["idx     orig_idx   orig_file"]
    for index in range(count):
        image = Image.fromarray(rng.integers(0, 240, (side // 4, side // 4, 3), dtype=np.uint8))
        image.resize((side, side), Image.Resampling.BILINEAR).save(folder / "CelebA-HQ-img" / f"{index}.jpg")
        masks = folder / "CelebAMask-HQ-mask-anno" / str(index // 2000)
        masks.mkdir(parents=True, exist_ok=True)
        for number, part in enumerate(PARTS[1:]):
            if part == "hat" and index % 4:
                continue
            mask = np.zeros((mask_side, mask_side, 3), dtype=np.uint8)
            row, column, step = mask_side * (number // 4) // 5, mask_side * (number % 4) // 4, mask_side // 6
            mask[row : row + step, column : column + step] = 255
            if part == "skin":
                mask[:] = 255
            Image.fromarray(mask).save(masks / f"{index:05}_{part}.png")
        lines.append(f"{index}.jpg  " + " ".join(rng.choice(["1", "-1"], 40).tolist()))
        celeba = (100, 160000, 162771, 182638)[index % 4] + index // 4  # train, train, val, test
        mapping.append(f"{index:<8}{celeba:<11}{celeba + 1:06}.jpg")
    (folder / "CelebAMask-HQ-attribute-anno.txt").write_text("\n".join(lines) + "\n")
    (folder / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(mapping) + "\n")
    return folder
