"""Frames to the size the network works at, and results back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stremn.backbones import STRIDE
from stremn.working_size import LARGEST_SCALE, WorkingSize


@pytest.mark.parametrize(
    ("height", "width", "short_side", "inner", "padded"),
    [
        (480, 854, 480, (480, 854), (480, 864)),  # DAVIS: only padded
        (2160, 3840, 480, (480, 853), (480, 864)),  # 4K
        (3840, 2160, 480, (853, 480), (864, 480)),  # on its side
        (240, 320, 480, (480, 640), (480, 640)),  # doubled
        (64, 64, 480, (128, 128), (128, 128)),  # at most doubled
        (64, 64, 64, (64, 64), (64, 64)),
        (1, 1, 480, (2, 2), (16, 16)),
    ],
)
def test_sizes(height, width, short_side, inner, padded) -> None:  # type: ignore[no-untyped-def]
    size = WorkingSize.of(height, width, short_side)
    assert (size.inner, size.padded) == (inner, padded)
    assert size.same == (inner == (height, width))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(64, 200))
def test_any_size_goes_in_and_comes_back(height: int, width: int, short_side: int) -> None:
    size = WorkingSize.of(height, width, short_side)
    assert all(side % STRIDE == 0 for side in size.padded)
    assert all(0 <= p - i < STRIDE for p, i in zip(size.padded, size.inner, strict=True))
    assert min(size.inner) <= max(short_side, 1)
    assert max(size.inner) <= LARGEST_SCALE * max(height, width) + 1
    image = np.zeros((height, width, 3), np.uint8)
    assert size.inward_image(image).shape == (*size.padded, 3)
    shares = size.inward_shares(np.ones((2, height, width), np.float32))
    assert shares.shape == (2, *size.padded)
    back = size.outward(shares)
    assert back.shape == (2, height, width)
    np.testing.assert_allclose(back, 1, atol=1e-5)


def test_nothing_is_resized_at_the_same_size() -> None:
    size = WorkingSize.of(70, 90, 70)
    image = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    padded = size.inward_image(image)
    assert np.array_equal(padded[:70, :90], image)
    layers = np.random.default_rng(0).random((2, 70, 90), dtype=np.float32)
    assert np.array_equal(size.outward(size.inward_shares(layers)), layers)


def test_padding_repeats_the_picture_and_holds_no_object() -> None:
    size = WorkingSize.of(70, 90, 70)
    image = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    padded = size.inward_image(image)
    assert (padded[70:, :90] == image[-1]).all()
    assert (padded[:70, 90:] == image[:, -1:]).all()
    shares = size.inward_shares(np.ones((1, 70, 90), np.float32))
    assert not shares[:, 70:].any()
    assert not shares[:, :, 90:].any()


def test_a_place_stays_where_it_is() -> None:
    """Half the width in, half the width back out."""
    size = WorkingSize.of(300, 500, 100)
    mask = np.zeros((1, 300, 500), np.float32)
    mask[:, 60:180, 100:350] = 1
    back = size.outward(size.inward_shares(mask)) > 0.5
    assert (back == (mask > 0.5)).mean() > 0.985
    ys, xs = np.nonzero(back[0])
    assert abs(ys.mean() - 119.5) < 1
    assert abs(xs.mean() - 224.5) < 1
