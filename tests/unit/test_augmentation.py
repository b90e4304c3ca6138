"""Augmentation: the image and its labels are cut and flipped alike, and labels are never mixed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ms_automl.data.augmentation import Augmentation, View
from ms_automl.errors import ConfigError

views = st.builds(
    View,
    scale=st.sampled_from([1.0, 1.2, 1.5, 2.0, 3.7]),
    top=st.floats(0, 1),
    left=st.floats(0, 1),
    flipped=st.booleans(),
)
sizes = st.tuples(st.integers(2, 40), st.integers(2, 40))


def coordinates(height: int, width: int) -> np.ndarray:
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.stack([rows, columns], 2)


@given(views, sizes)
@settings(max_examples=60, deadline=None)
def test_every_label_of_a_view_is_one_of_the_window(view: View, size: tuple[int, int]) -> None:
    top, left, rows, columns = view.window(*size)
    assert 0 <= top <= size[0] - rows and 0 <= left <= size[1] - columns
    found = view.labels(coordinates(*size))
    assert found.shape == (*size, 2)
    assert found[..., 0].min() == top and found[..., 0].max() == top + rows - 1
    assert found[..., 1].min() == left and found[..., 1].max() == left + columns - 1
    assert (np.diff(found[..., 0], axis=0) >= 0).all()
    assert ((np.diff(found[..., 1], axis=1) <= 0) if view.flipped else (np.diff(found[..., 1], axis=1) >= 0)).all()


@given(views, sizes)
@settings(max_examples=60, deadline=None)
def test_a_picture_and_its_labels_show_the_same_place(view: View, size: tuple[int, int]) -> None:
    place = coordinates(*size)
    image = np.concatenate([4 * place, 4 * place[..., :1]], 2).astype(np.uint8)
    shown, labelled = view.image(image).astype(float) / 4, view.labels(place)
    # Bilinear values lie between pixels, labels on them: at most a pixel apart, and rounding to a byte.
    assert np.abs(shown[..., :2] - labelled).max() <= 1.25


@given(views, sizes, st.sampled_from([np.uint8, np.int16, np.float16, bool]))
@settings(max_examples=40, deadline=None)
def test_labels_keep_their_type_and_mirroring_twice_gives_them_back(view: View, size, kind) -> None:
    labels = (np.random.default_rng(0).random(size) * 200).astype(kind)
    found = view.labels(labels)
    assert found.dtype == kind
    assert set(np.unique(found)) <= set(np.unique(labels))
    flip = View(flipped=True)
    assert np.array_equal(flip.labels(flip.labels(labels)), labels)


def test_the_whole_view_is_the_sample() -> None:
    labels = np.arange(12).reshape(3, 4)
    assert View().labels(labels) is labels


def test_a_seed_fixes_the_views_and_every_zoom_and_side_is_drawn() -> None:
    drawn = Augmentation((1.0, 1.2, 1.5)).draw(300, seed=4)
    assert drawn == Augmentation((1.0, 1.2, 1.5)).draw(300, seed=4)
    assert drawn != Augmentation((1.0, 1.2, 1.5)).draw(300, seed=5)
    for scale in (1.0, 1.2, 1.5):
        assert 70 <= sum(view.scale == scale for view in drawn) <= 130
    assert 120 <= sum(view.flipped for view in drawn) <= 180
    assert not any(view.flipped for view in Augmentation(flip=False).draw(20, seed=0))


@pytest.mark.parametrize("scales", [(), (0.5,), (1.0, 0.99)])
def test_a_zoom_that_shows_more_than_there_is_is_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="`scales` must be numbers of at least 1"):
        Augmentation(scales)


def test_a_mapped_array_that_cannot_be_written_to_is_no_problem(tmp_path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((8, 8, 3), dtype=np.uint8))
    stored = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert torch.from_numpy(View(1.5, 0.5, 0.5, True).image(stored)).sum() == 0
