"""One sample as people have it: images and labels of every form, and what is wrong with one."""

import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from ms_automl.data import check_data, inspect
from ms_automl.errors import DataError
from ms_automl.tasks import (
    depth,
    edges,
    heatmaps,
    keypoints,
    multilabel,
    normals,
    ordinal,
    regression,
    segmentation,
)
from tests.unit.made_samples import IMAGES, KIND, LARGE, Samples, data_of, whole

DRAWN = torch.Generator().manual_seed(1)

# ---- images ---------------------------------------------------------------------------------------------

PIXELS = torch.randint(0, 256, (3, 5, 7), generator=DRAWN, dtype=torch.uint8)
HWC = PIXELS.permute(1, 2, 0).numpy()
FIELDS = np.zeros(HWC.shape, [("a", "f4"), ("b", "u1")])
FIELDS["b"] = HWC
COLOURS = {
    "uint8 tensor": PIXELS,
    "uint8 array, channels last": HWC,
    "uint8 array, channels first": PIXELS.numpy(),
    "a read-only, flipped view": np.flip(np.flip(HWC, 1).copy(), 1),
    "RGB": Image.fromarray(HWC),
    "RGBA": Image.fromarray(HWC).convert("RGBA"),
    "RGBa": Image.fromarray(HWC).convert("RGBA").convert("RGBa"),
    "a field of another": FIELDS["b"],
    "float64 tensor": PIXELS.double() / 255,
    "long double array": HWC.astype(np.longdouble) / 255,
    "big-endian array": (HWC / np.float32(255)).astype(">f4"),
    "float32 array": HWC.astype(np.float32) / np.float32(255),
}


@pytest.mark.parametrize("form", COLOURS)
def test_an_image_is_the_same_in_every_form(form):
    data = data_of([(COLOURS[form], 0)], [KIND])
    torch.testing.assert_close(whole(data.train).images, PIXELS[None].float() / 255, rtol=0, atol=1e-7)


GREY = PIXELS[0]
DEEP = GREY.numpy().astype(np.uint16) * 257  # as white in 16 bits as in 8
GREYS = [GREY, GREY[None], GREY.numpy(), Image.fromarray(GREY.numpy()), DEEP, DEEP.astype(">u2")]
GREYS += [Image.fromarray(DEEP), Image.frombytes("I;16B", (7, 5), DEEP.astype(">u2").tobytes())]


@pytest.mark.parametrize("grey", GREYS)
def test_a_grey_image_has_one_channel(grey):
    data = data_of([(grey, 0)], [KIND])
    torch.testing.assert_close(whole(data.train).images, GREY[None, None].float() / 255, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
@pytest.mark.parametrize("size", [(5, 7), (33, 17), (1, 1)])
def test_images_have_any_number_of_channels_and_any_size(channels, size):
    images = torch.rand(3, channels, *size, generator=torch.Generator().manual_seed(0))
    data = data_of([(image, 0) for image in images], [KIND])
    assert torch.equal(whole(data.train).images, images)
    assert data.image_shape == (channels, *size)


@pytest.mark.parametrize(
    "shape", [(13, 8, 8), (8, 8, 13), (100, 32, 32), (3, 9, 5), (9, 5, 3), (4, 9, 9), (9, 9, 4)]
)
def test_the_channels_of_an_array_are_where_they_show(shape):
    last = shape in ((8, 8, 13), (9, 5, 3), (9, 9, 4))
    array = np.random.default_rng(0).random(shape, np.float32)
    expected = torch.from_numpy(array.transpose(2, 0, 1).copy() if last else array)
    assert torch.equal(whole(data_of([(array, 0)], [KIND], [(IMAGES[0], 0)]).train).images[0], expected)


def test_palettes_and_two_colours_are_colours():
    palette, two = Image.fromarray(HWC).quantize(4), Image.fromarray(GREY.numpy()).convert("1")
    assert whole(data_of([(palette, 0)], [KIND]).train).images.shape == (1, 3, 5, 7)
    assert set(whole(data_of([(two, 0)], [KIND]).train).images.unique().tolist()) <= {0.0, 1.0}


# ---- labels, and those that are missing -----------------------------------------------------------------

NAN = math.nan
MAP = torch.arange(35).reshape(5, 7)
LABELS = [
    (KIND, 2, 2, True),
    (KIND, torch.tensor([2], dtype=torch.int32), 2, True),
    (KIND, 2.0, 2, True),
    (KIND, -1, None, False),
    (KIND, -100, None, False),
    (KIND, NAN, None, False),
    (KIND, None, None, False),
    (ordinal("grade", 4), np.int64(3), 3, True),
    (ordinal("grade", 4), -1, None, False),
    (LARGE, True, 1.0, True),
    (LARGE, torch.tensor([0.25]), 0.25, True),
    (LARGE, NAN, None, False),
    (multilabel("some", 3), [1, NAN, 0], [1.0, None, 0.0], [True, False, True]),
    (multilabel("some", 3), np.array([True, False, True]), [1.0, 0.0, 1.0], [True] * 3),
    (multilabel("some", 3), None, [None] * 3, [False] * 3),
    (multilabel("some", 3), [1, None, 0], [1.0, None, 0.0], [True, False, True]),
    (multilabel("some", 3), np.ma.array([1, 0, 1], mask=[0, 1, 0]), [1.0, None, 1.0], [True, False, True]),
    (keypoints("joints", 2), [[1, 2], [3, 4]], [1.0, 2.0, 3.0, 4.0], [True] * 4),
    (keypoints("joints", 2), [1, 2, None, None], [1.0, 2.0, None, None], [True, True, False, False]),
    (KIND, np.ma.masked, None, False),
    (regression("age"), np.array(31, ">f4"), [31.0], [True]),
    (depth(), np.ma.masked_less(MAP.float().numpy(), 31), None, (MAP > 30).tolist()),
    (regression("age"), 31, [31.0], [True]),
    (regression("age"), NAN, [None], [False]),
    (regression("pose", 2), (1.5, NAN), [1.5, None], [True, False]),
    (segmentation("areas", 36), MAP, MAP.tolist(), [[True] * 7] * 5),
    (segmentation("areas", 36), MAP[None].numpy().astype(np.uint8), MAP.tolist(), [[True] * 7] * 5),
    (segmentation("areas", 36), Image.fromarray(MAP.numpy().astype(np.uint8)), MAP.tolist(), [[True] * 7] * 5),
    (segmentation("areas", 36), MAP.where(MAP > 30, -1), None, (MAP > 30).tolist()),
    (depth(), MAP.float(), [MAP.tolist()], [[True] * 7] * 5),
    (depth(), MAP.float().where(MAP > 30, NAN)[..., None].numpy(), None, (MAP > 30).tolist()),
    (normals(), np.ones((5, 7, 3), np.float16), torch.ones(3, 5, 7).tolist(), [[True] * 7] * 5),
    (edges(), Image.fromarray(MAP.numpy() > 9), [(MAP > 9).float().tolist()], [[True] * 7] * 5),
    (heatmaps("joints", 2), torch.stack([MAP.float(), torch.full((5, 7), NAN)]), None,
     [[[True] * 7] * 5, [[False] * 7] * 5]),
]  # fmt: skip


@pytest.mark.parametrize(("task", "given", "target", "valid"), LABELS)
def test_a_label_may_be_of_any_form_and_may_be_missing(task, given, target, valid):
    batch = whole(data_of([(IMAGES[0], {task.name: given})], [task]).train)
    check_data(data_of([(IMAGES[0], {task.name: given})], [task], [(IMAGES[0], {task.name: given})]))
    assert batch.valid[task.name][0].tolist() == valid
    counted = batch.targets[task.name][0].tolist()
    if isinstance(target, list) and None in target:
        counted = [value if known else None for value, known in zip(counted, valid, strict=True)]
    if target is not None:
        assert counted == target


@pytest.mark.parametrize("task", [task for task, *_ in LABELS])
def test_labels_of_tasks_that_a_sample_has_not_do_not_count_and_leave_no_nan(task):
    sample = (IMAGES[0], {"kind": 1})
    batch = whole(data_of([sample], [task, KIND] if task is not KIND else [KIND, LARGE]).train)
    name = LARGE.name if task is KIND else task.name
    other = LARGE if task is KIND else task
    assert not batch.valid[name].any()
    prediction = torch.randn(other.head.shape(1, 5, 7)).requires_grad_()
    other.loss(prediction, batch.targets[name], batch.valid[name]).backward()
    assert torch.equal(prediction.grad, torch.zeros_like(prediction))


def test_a_loss_as_in_the_documents_has_no_nan_gradient_at_missing_labels():
    task = regression("pose", 2, loss="squared")
    samples = [(IMAGES[i], {"pose": [float(i), NAN if i % 2 else 1.0]}) for i in range(12)]
    batch = whole(data_of(samples, [task]).train)
    prediction = torch.zeros(12, 2, requires_grad=True)
    loss = task.loss(prediction, batch.targets["pose"], batch.valid["pose"])
    loss.backward()
    assert bool(prediction.grad.isfinite().all()) and math.isfinite(loss.item())
    assert not prediction.grad[1::2, 1].any()


def test_a_sample_may_say_itself_which_labels_count():
    mask = MAP % 2 == 0
    task = segmentation("areas", 256)
    sample = (IMAGES[0], {"areas": MAP.where(mask, 255), "kind": 1}, {"areas": mask})
    batch = whole(data_of([sample], [task, KIND]).train)
    assert torch.equal(batch.valid["areas"][0], mask) and batch.valid["kind"].all()
    assert torch.equal(
        whole(data_of([{"image": IMAGES[0], "areas": MAP, "valid": {"areas": mask}}], [task]).train).valid[
            "areas"
        ][0],
        mask,
    )


def test_of_one_task_a_mask_needs_no_name():
    mask = MAP % 2 == 0
    sample = {"image": IMAGES[0], "areas": MAP, "valid": mask}
    assert torch.equal(whole(data_of([sample], [segmentation("areas", 36)]).train).valid["areas"][0], mask)


# ---- what is wrong --------------------------------------------------------------------------------------


def at_3(sample):
    return Samples(lambda i: sample if i == 3 else (IMAGES[i], i % 3, float(i % 2)))


WRONG = [
    ((IMAGES[0], 1), "it has 1 target for the 2 tasks kind, large: give them in this order, or as {task: target}"),
    ((IMAGES[0], 1, 2, 3), "it has 3 targets for the 2 tasks"),
    (
        IMAGES[0],
        "it is a Tensor: expected (image, {task: target}), (image, target, ...) or a mapping with 'image'",
    ),
    ((IMAGES[0],), "it is a tuple of 1: expected"),
    ({"picture": IMAGES[0], "kind": 1}, "it is a mapping with 'picture', 'kind' and no image: call that 'image'"),
    (("cat.jpg", 1, 0.0), "its image is a str, expected a tensor, an array of numbers or an image of"),
    ((np.array([[None]]), 1, 0.0), "its image is an array of object, expected a tensor"),
    ((IMAGES[0].long(), 1, 0.0), "its image is of torch.int64: give floating-point numbers, or uint8"),
    ((IMAGES[0, 0, 0], 1, 0.0), "its image has shape (7,), expected [channels, H, W] or [H, W]"),
    ((torch.rand(16, 16, 3), 1, 0.0), "its image is a tensor of shape (16, 16, 3), expected is [channels, H, W]"),
    ((np.ones((3, 3, 3)), 1, 0.0), "its image is an array of shape (3, 3, 3), which may be read in two ways"),
    (
        (torch.rand(3, 5, 8), 1, 0.0),
        "its image has shape (3, 5, 8), that of sample 0 has (3, 5, 7): bring",
    ),
    ((IMAGES[0], "cat", 0.0), "target of 'kind' is 'cat', expected the number of a class"),
    ((IMAGES[0], 0.5, 0.0), "target of 'kind' holds 0.5, which is no class number"),
    ((IMAGES[0], [1, 2], 0.0), "target of 'kind' has shape (2,), expected ()"),
    ((IMAGES[0], 1, [[1, 2], [3]]), "target of 'large' is a list, expected a number"),
    ((IMAGES[0], 1, object()), "target of 'large' is a object, expected a number"),
    (
        (IMAGES[0], {"kind": 1}, 0.0),
        "behind the targets by task stands something else: only a mapping of masks",
    ),
]


@pytest.mark.parametrize(("sample", "said"), WRONG)
def test_what_is_wrong_with_a_sample_is_said_with_split_and_number(sample, said):
    with pytest.raises(DataError, match=re.escape(f"split 'train', sample 3: {said}")):
        inspect(data_of(at_3(sample)))


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (
            255,
            r"task 'kind': class numbers 255 to 255 found, expected 0 to 2, first in sample 3 .*-1 in a torch",
        ),
        (-2, r"task 'kind': class numbers -2 to -2 found"),
    ],
)
def test_the_check_of_all_labels_sees_them_too(label, said):
    with pytest.raises(DataError, match=said):
        inspect(data_of(at_3((IMAGES[3], label, 0.0))))
