"""Frames to the size the network works at, and results back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stremn.networks.backbones import STRIDE
from stremn.networks.working_size import IMAGENET_MEAN, LARGEST_SCALE, Margins, WorkingSize


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


@pytest.mark.parametrize("margins", ["black", "mean"])
def test_painted_margins_lie_on_all_sides(margins: Margins) -> None:
    size = WorkingSize.of(70, 91, 70, margins)
    assert (size.padded, size.start) == ((80, 96), (5, 2))
    image = np.random.default_rng(0).integers(1, 255, (70, 91, 3), dtype=np.uint8)
    pixels = torch.from_numpy(size.inward_image(image)).permute(2, 0, 1)[None].float() / 255
    painted = size.paint_margins(pixels)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(painted[5:75, 2:93] * 255, image, atol=1e-4)
    outside = np.ones((80, 96), bool)
    outside[5:75, 2:93] = False
    color = IMAGENET_MEAN if margins == "mean" else (0, 0, 0)
    np.testing.assert_allclose(painted[outside], np.tile(color, (outside.sum(), 1)), atol=1e-6)
    layers = np.random.default_rng(0).random((2, 70, 91), dtype=np.float32)
    inward = size.inward_shares(layers)
    assert not inward[:, outside].any()
    assert np.array_equal(size.outward(inward), layers)


def test_no_object_is_in_black_margins() -> None:
    """STM fills them with background before a frame is memorized; STCN leaves what it found."""
    shares = torch.rand(1, 3, 80, 96)
    for margins in ("black", "mean", "edge"):
        size = WorkingSize.of(70, 91, 70, margins)
        found = size.empty_margins(shares.clone())
        outside = torch.ones(80, 96, dtype=torch.bool)
        outside[size.start[0] : size.start[0] + 70, size.start[1] : size.start[1] + 91] = False
        assert torch.equal(found[..., ~outside], shares[..., ~outside])
        emptied = torch.tensor([1.0, 0, 0])[None, :, None].expand(1, 3, int(outside.sum()))
        expected = emptied if margins == "black" else shares[..., outside]
        assert torch.equal(found[..., outside], expected)
