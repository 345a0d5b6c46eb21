import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stremn.segmentation.postprocess import (
    DistantRegionFilter,
    distant_regions,
    near_regions,
    remove_distant_regions,
)


def box(y, x, height, width, size=(60, 80)):
    mask = np.zeros(size, bool)
    mask[y : y + height, x : x + width] = True
    return mask


def slow_near(mask, previous, reach):
    """Flood fill and all pairs of pixels."""
    if not previous.any():
        return mask
    left = {tuple(p) for p in np.argwhere(mask)}
    before = np.argwhere(previous)
    limit = reach**2 * len(before)
    kept = np.zeros_like(mask)
    while left:
        region, open_set = set(), {left.pop()}
        while open_set:
            y, x = open_set.pop()
            region.add((y, x))
            around = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= around
            open_set |= around
        distance = min(((before - p) ** 2).sum(1).min() for p in np.array(list(region)))
        if distance <= limit:
            kept[tuple(np.array(list(region)).T)] = True
    return kept if kept.any() else mask


@given(st.integers(0, 2**31), st.floats(0.1, 3))
@settings(max_examples=80, deadline=None)
def test_equals_flood_fill(seed, reach):
    rng = np.random.default_rng(seed)
    mask = rng.random((14, 17)) > 0.85
    previous = rng.random((14, 17)) > rng.uniform(0.7, 1.0)
    assert np.array_equal(near_regions(mask, previous, reach), slow_near(mask, previous, reach))


def test_far_region_goes_near_region_stays():
    previous = box(10, 10, 9, 9)  # size 9: regions up to 9 pixels away stay
    near, far = box(12, 27, 3, 3), box(12, 28, 3, 3)
    moved = box(11, 12, 9, 9)
    assert np.array_equal(near_regions(moved | near, previous), moved | near)
    assert np.array_equal(near_regions(moved | far, previous), moved)


def test_an_object_that_was_absent_may_appear_anywhere():
    mask = box(1, 1, 5, 5) | box(40, 60, 5, 5)
    assert np.array_equal(near_regions(mask, np.zeros_like(mask)), mask)


def test_an_object_is_never_removed_altogether():
    previous, jumped = box(0, 0, 3, 3), box(50, 70, 3, 3) | box(30, 70, 3, 3)
    assert np.array_equal(near_regions(jumped, previous), jumped)
    assert np.array_equal(near_regions(box(50, 70, 3, 3), previous), box(50, 70, 3, 3))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_objects_are_filtered_apart(dtype):
    previous = np.zeros((60, 80), dtype)
    previous[box(5, 5, 6, 6)] = 1
    previous[box(45, 65, 6, 6)] = 200
    labels = previous.copy()
    labels[box(50, 5, 4, 4)] = 1  # far from object 1
    labels[box(5, 70, 4, 4)] = 200  # far from object 200
    result = remove_distant_regions(labels, previous)
    assert result.dtype == dtype
    assert np.array_equal(result, previous)
    assert np.array_equal(remove_distant_regions(labels, None), labels)


def test_stream_compares_with_the_filtered_frame():
    object_filter = DistantRegionFilter()
    first = box(5, 5, 8, 8).astype(np.uint8)
    ghost = first | box(40, 60, 8, 8).astype(np.uint8)
    assert np.array_equal(object_filter(first), first)
    # The ghost stays in the raw stream; compared with raw frames it would be near itself.
    assert np.array_equal(object_filter(ghost), first)
    assert np.array_equal(object_filter(ghost), first)


def test_a_label_map_that_the_caller_uses_again_stays_the_filters_past():
    object_filter, labels = DistantRegionFilter(), box(5, 5, 8, 8).astype(np.uint8)
    first = labels.copy()
    object_filter(labels)
    labels |= box(40, 60, 8, 8).astype(np.uint8)
    assert np.array_equal(object_filter(labels), first)


def test_far_pixels_are_those_that_the_filter_removes():
    rng = np.random.default_rng(0)
    some = 0
    for _ in range(20):
        previous, labels = (np.zeros((40, 50), np.uint16) for _ in range(2))
        for target in (previous, labels, labels):
            for i in (1, 700):
                y, x = rng.integers(0, 35), rng.integers(0, 45)
                target[y : y + 6, x : x + 6] = i
        far = distant_regions(labels, previous)
        assert np.array_equal(far, remove_distant_regions(labels, previous) != labels)
        some += far.any()
    assert 0 < some < 20
