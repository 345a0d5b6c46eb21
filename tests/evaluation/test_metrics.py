import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stremn.errors import StremnError
from stremn.evaluation.segmentation.metrics import (
    Scores,
    Statistics,
    contour,
    contour_accuracy,
    contour_radius,
    disk,
    mean_scores,
    object_scores,
    region_similarity,
    score_frame,
    seen_unseen_mean,
    statistics,
    swapped,
)

MASKS = st.integers(1, 12).flatmap(
    lambda height: st.integers(1, 12).flatmap(
        lambda width: st.tuples(
            arrays(np.bool_, (height, width)), arrays(np.bool_, (height, width))
        )
    )
)


def slow_contour(mask):
    height, width = mask.shape
    edge = np.zeros(mask.shape, bool)
    for y in range(height):
        for x in range(width):
            neighbors = []
            if x + 1 < width:
                neighbors.append((y, x + 1))
            if y + 1 < height:
                neighbors.append((y + 1, x))
            if x + 1 < width and y + 1 < height:
                neighbors.append((y + 1, x + 1))
            edge[y, x] = any(mask[y, x] != mask[n] for n in neighbors)
    return edge


def slow_f(predicted, truth, radius):
    found = np.argwhere(slow_contour(predicted))
    true = np.argwhere(slow_contour(truth))
    if len(found) == 0 and len(true) == 0:
        return 1.0
    if len(found) == 0 or len(true) == 0:
        return 0.0
    near = ((found[:, None] - true[None]) ** 2).sum(-1) <= radius**2
    precision, recall = near.any(1).mean(), near.any(0).mean()
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


@given(MASKS)
@settings(max_examples=200, deadline=None)
def test_contour_equals_loops(masks):
    assert np.array_equal(contour(masks[0]).astype(bool), slow_contour(masks[0]))


@given(MASKS, st.integers(0, 4))
@settings(max_examples=200, deadline=None)
def test_f_equals_loops(masks, radius):
    assert contour_accuracy(*masks, radius) == pytest.approx(slow_f(*masks, radius), abs=1e-12)


@given(st.integers(20, 60), st.integers(20, 60), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_cropping_to_the_objects_changes_nothing(height, width, seed):
    rng = np.random.default_rng(seed)
    truth, predicted = (np.zeros((height, width), np.uint8) for _ in range(2))
    for labels in (truth, predicted):
        for i in rng.permutation([1, 2, 7]):
            y, x = rng.integers(0, height), rng.integers(0, width)
            labels[y : y + rng.integers(0, 20), x : x + rng.integers(0, 20)] = i
    scores = score_frame(predicted, truth, [1, 2, 7])
    for row, i in zip(scores, [1, 2, 7], strict=True):
        assert row[0] == region_similarity(predicted == i, truth == i)
        radius = contour_radius(height, width)
        assert row[1] == pytest.approx(slow_f(predicted == i, truth == i, radius), abs=1e-12)


def test_f_is_symmetric_and_j_is_symmetric():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 30, 40)) > 0.6
    assert contour_accuracy(a, b, 1) == pytest.approx(contour_accuracy(b, a, 1), abs=1e-12)
    assert region_similarity(a, b) == region_similarity(b, a)


def test_hand_computed_j_and_f():
    truth = np.zeros((10, 10), bool)
    truth[2:6, 2:6] = True  # 16 pixels
    predicted = np.zeros((10, 10), bool)
    predicted[2:6, 4:8] = True  # 16 pixels, 8 shared
    assert region_similarity(predicted, truth) == 8 / 24
    # The contour of a 4 x 4 square: rows 1 to 5 and columns 1 to 5 without the inner 3 x 3: 16.
    assert contour(truth).sum() == 16
    # Radius 0: found columns 3..7, true columns 1..5. Shared: row 1 and row 5 at x = 3, 4, 5
    # (6 pixels), column 3 of found is true at rows 1 and 5 only, column 5 of true likewise.
    assert contour_accuracy(predicted, truth, 0) == pytest.approx(6 / 16)
    assert contour_accuracy(predicted, truth, 2) == 1.0


def test_tolerance_is_that_of_davis():
    assert contour_radius(480, 854) == 8
    assert contour_radius(1080, 1920) == 18
    assert disk(1).tolist() == [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    assert disk(8).sum() == 197


def test_empty_masks():
    empty, full = np.zeros((8, 8), bool), np.ones((8, 8), bool)
    square = empty.copy()
    square[2:4, 2:4] = True
    assert region_similarity(empty, empty) == 1.0
    assert contour_accuracy(empty, empty) == 1.0
    assert contour_accuracy(square, empty) == 0.0
    assert contour_accuracy(empty, square) == 0.0
    # A full frame has no contour: F is 1 although J is 0.
    assert contour_accuracy(full, empty) == 1.0
    assert region_similarity(full, empty) == 0.0


def test_a_missing_object_is_an_empty_mask_and_void_is_background():
    truth = np.zeros((20, 20), np.uint8)
    truth[2:6, 2:6] = 3
    truth[10:15, 10:15] = 255
    predicted = np.zeros_like(truth)
    assert score_frame(predicted, truth, [3, 9]).tolist() == [[0.0, 0.0], [1.0, 1.0]]
    predicted[2:6, 2:6] = 3
    assert score_frame(predicted, truth, [3]).tolist() == [[1.0, 1.0]]


def test_ids_beyond_eight_bits():
    truth = np.full((6, 6), 300, np.uint16)
    assert score_frame(truth, truth, [300, 44]).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_size_mismatch_is_refused():
    with pytest.raises(StremnError, match="10x8 pixels but the ground truth is 8x10"):
        score_frame(np.zeros((8, 10), np.uint8), np.zeros((10, 8), np.uint8), [1])


def slow_statistics(values):
    n = len(values)
    cuts = [math.floor(1 + (n - 1) * q / 4 + 0.5 + 1e-10) - 1 for q in range(5)]
    first = values[cuts[0] : cuts[1] + 1]
    last = values[cuts[3] : cuts[4] + 1]
    mean = sum(values) / n
    recall = sum(v > 0.5 for v in values) / n
    return mean, recall, sum(first) / len(first) - sum(last) / len(last)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=600))
@settings(max_examples=100, deadline=None)
def test_statistics_equal_loops(values):
    result = statistics(np.array(values))
    expected = slow_statistics(values)
    assert (result.mean, result.recall, result.decay) == pytest.approx(expected, abs=1e-9)


def test_statistics_by_hand():
    result = statistics(np.array([1.0, 0.8, 0.6, 0.5, 0.2, 0.2, 0.1, 0.0]))
    # Cuts of 8 scores: 1, 2.75, 4.5, 6.25, 8 -> 0, 2, 4 (half up), 5, 7.
    assert result.mean == pytest.approx(0.425)
    assert result.recall == 3 / 8
    assert result.decay == pytest.approx(2.4 / 3 - 0.3 / 3)


def test_compat_agrees_up_to_256_frames_and_differs_beyond():
    rng = np.random.default_rng(1)
    for n in (1, 2, 3, 78, 256):
        values = rng.random(n)
        assert statistics(values, compat=True) == statistics(values)
    values = np.linspace(1, 0, 1000)
    assert statistics(values).decay == pytest.approx(0.75, abs=1e-3)
    # 8-bit cuts of 1,000 scores: 0, 250, 244, 237, 231: the last quarter is empty.
    assert math.isnan(statistics(values, compat=True).decay)
    # 400 scores: 0, 100, 200, 43, 143: the "last" quarter is 43..143.
    values = rng.random(400)
    expected = values[:101].mean() - values[43:144].mean()
    assert statistics(values, compat=True).decay == pytest.approx(expected)
    assert statistics(values, compat=True).mean == statistics(values).mean


def test_no_frames_and_no_objects_are_refused():
    with pytest.raises(StremnError, match="no scored frame"):
        statistics(np.array([]))
    with pytest.raises(StremnError, match="no scored object"):
        mean_scores([])


def test_means_are_over_objects():
    good = object_scores(np.array([[1.0, 0.8], [1.0, 0.6]]))
    bad = object_scores(np.array([[0.4, 0.2], [0.2, 0.2]]))
    mean = mean_scores([good, bad])
    assert mean.j.mean == pytest.approx(0.65)
    assert mean.f.mean == pytest.approx(0.45)
    assert mean.j.recall == 0.5
    assert mean.j_and_f == pytest.approx(0.55)


def test_seen_and_unseen_classes_weigh_the_same():
    def flat(j, f):
        return Scores(Statistics(j, 1.0, 0.0), Statistics(f, 1.0, 0.0))

    # The paper's Table 4: 79.6 / 83.8 seen, 76.1 / 84.1 unseen give 80.9.
    overall = seen_unseen_mean({"seen": flat(0.796, 0.838), "unseen": flat(0.761, 0.841)})
    assert overall == pytest.approx(0.809, abs=1e-3)


@given(
    arrays(np.uint8, (5, 6), elements=st.integers(0, 3)),
    arrays(np.uint8, (5, 6), elements=st.integers(0, 3)),
)
def test_swapped_counts_pixels(predicted, truth):
    expected = []
    for i in (1, 2, 3):
        own = sum((p, t) == (i, i) for p, t in zip(predicted.flat, truth.flat, strict=True))
        others = [
            sum((p, t) == (i, k) for p, t in zip(predicted.flat, truth.flat, strict=True))
            for k in (1, 2, 3)
            if k != i
        ]
        expected.append(max(others) > own)
    assert swapped(predicted, truth, [1, 2, 3]).tolist() == expected


def test_swapped_needs_another_object():
    ones = np.ones((2, 2), np.uint8)
    assert swapped(ones, 2 * ones, [1]).tolist() == [False]  # 2 is not asked for
    assert swapped(ones, 2 * ones, [1, 2]).tolist() == [True, False]
    assert swapped(ones, ones, []).tolist() == []
