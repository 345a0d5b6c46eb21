"""Boxes, counts and made-up shapes of masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_data import disk
from stremn.data.shapes import (
    around,
    blob,
    bounding_box,
    half_plane,
    id_counts,
    large_ids,
    middle_of,
    shrunk_to,
    touches_border,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_boxes_middles_and_counts() -> None:
    mask = np.zeros((20, 30), dtype=np.uint8)
    assert bounding_box(mask) is None
    assert middle_of(mask) is None
    wire = np.zeros((20, 30), dtype=np.uint8)
    wire[11, 4:14] = 1  # in rows and columns that sampling passes over
    assert middle_of(wire) == pytest.approx((8.5, 11))
    mask[4:10, 6:26] = 3
    mask[0, 0] = 255
    assert id_counts(mask)[3] == 120
    assert id_counts(mask).sum() == 120
    assert large_ids(mask) == [3]
    assert large_ids(mask, 0.19) == [3]
    assert large_ids(mask, 0.2) == []  # 120 of 600 pixels are no more than a fifth
    mask[0, 0] = 0
    assert bounding_box(mask) == (6, 4, 26, 10)
    assert mask[around((6, 4, 26, 10), 0)].shape == (6, 20)
    assert mask[around((6, 4, 26, 10), 5)].shape == (15, 29)  # as far as the picture goes
    assert middle_of(mask) == pytest.approx((15.5, 6.5), abs=0.6)


def test_objects_cut_by_the_edge_are_told() -> None:
    mask = np.zeros((20, 20), dtype=np.uint8)
    mask[5:15, 5:15] = 1
    assert not touches_border(mask)
    assert touches_border(np.roll(mask, 5, axis=1))
    assert touches_border(np.zeros_like(mask))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_a_half_is_about_half_of_a_round_object(seed: int) -> None:
    mask = disk(41, 51, 14)
    part = half_plane(rng(seed), mask)
    share = np.count_nonzero(part & mask) / np.count_nonzero(mask)
    assert share == pytest.approx(0.5, abs=0.08)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_a_blob_is_a_shape_of_some_size(seed: int) -> None:
    mask = blob(rng(seed), 64)
    assert set(np.unique(mask)) == {0, 1}
    assert 0.05 < mask.mean() < 0.95


def test_shrinking_keeps_the_ratio_and_the_ids() -> None:
    image = rng().integers(0, 256, (100, 200, 3), dtype=np.uint8)
    ids = np.zeros((100, 200), dtype=np.uint8)
    ids[:, 100:] = 7
    small, few = shrunk_to(50, image, ids)
    assert small.shape == (25, 50, 3)
    assert np.array_equal(np.unique(few), [0, 7])
    assert np.count_nonzero(few) == 25 * 25
    assert shrunk_to(200, image, ids)[0] is image
