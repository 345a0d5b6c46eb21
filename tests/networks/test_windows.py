"""Where an object is looked for."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stremn.networks.windows import (
    CONTEXT,
    EDGE,
    MEMORY_CONTEXT,
    STEP,
    Window,
    whole,
    window_round,
    windows_round,
    windows_that_pay,
)

GRID = (10, 13)
SIZE = (160, 208)


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top : top + height, left : left + width] = True
    return mask


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 159), st.integers(0, 207), st.integers(1, 60), st.integers(1, 60),
    st.floats(0, 2),
)  # fmt: skip
def test_everything_within_reach_is_in_the_window(
    top: int, left: int, height: int, width: int, reach: float
) -> None:
    mask = box(top, left, height, width)
    window = window_round(mask, reach, GRID, CONTEXT)
    rows, columns = np.nonzero(mask)
    margin = reach * np.sqrt(len(rows)) + 16 * CONTEXT
    inside_rows, inside_columns = window.at(1)
    for low, high, span, side in (
        (rows.min(), rows.max(), inside_rows, SIZE[0]),
        (columns.min(), columns.max(), inside_columns, SIZE[1]),
    ):
        assert span.start <= max(0, low - margin)
        assert span.stop >= min(side, high + 1 + margin)
        # and no more than the margin asks for, up to the next step
        assert span.start > low - margin - 16 * STEP
        assert span.stop < high + 1 + margin + 16 * STEP
        assert span.start % (16 * STEP) == 0
        assert 0 <= span.start < span.stop <= side


def test_an_object_that_was_absent_may_be_anywhere() -> None:
    assert window_round(np.zeros(SIZE, bool), 0.5, GRID, CONTEXT) == whole(GRID)
    assert whole(GRID) == Window(0, 10, 0, 13)


@pytest.mark.parametrize("stride", [1, 4, 8, 16])
def test_cutting_is_the_same_place_at_every_stride(stride: int) -> None:
    rows = torch.arange(160.0).reshape(1, 1, 160, 1).expand(1, 1, *SIZE)
    full = rows[:, :, ::stride, ::stride]
    part = Window(2, 5, 1, 4).cut(full, stride)
    assert part.shape == (1, 1, 48 // stride, 48 // stride)
    assert part[0, 0, 0, 0] == 32
    assert part[0, 0, -1, 0] == 80 - stride
    assert part.data_ptr() == full[:, :, 32 // stride :, 16 // stride :].data_ptr()  # a view


def test_the_inside_leaves_out_what_is_not_at_the_border_of_the_frame() -> None:
    assert whole(GRID).inside(GRID) == whole(GRID)
    inside = Window(2, 10, 0, 6).inside(GRID)
    assert inside == Window(2 + EDGE, 10, 0, 6 - EDGE)
    assert inside.seen_from(Window(2, 10, 0, 6)) == Window(EDGE, 8, 0, 6 - EDGE)
    assert inside.positions == (8 - EDGE) * (6 - EDGE)


def test_every_layer_has_its_window() -> None:
    where = np.zeros(SIZE, np.int32)
    where[:10, :10], where[100:120, 150:160] = 1, 3
    found = windows_round(where, 3, 0.5, GRID, CONTEXT)
    assert found == [
        window_round(where == 1, 0.5, GRID, CONTEXT),
        whole(GRID),  # absent
        window_round(where == 3, 0.5, GRID, CONTEXT),
    ]


def test_windows_are_taken_where_they_save_work() -> None:
    grid, where = (30, 54), np.zeros((480, 864), np.int32)
    for layer in range(1, 6):
        where[200:210, 100 * layer : 100 * layer + 10] = layer
    found = windows_that_pay(where, 5, grid)
    assert found == windows_round(where, 5, 0.0, grid, MEMORY_CONTEXT)
    assert windows_that_pay(where, 1, grid) is None  # the frame is encoded once anyway
    where[where > 2] = 0  # absent objects take a whole frame each
    assert windows_that_pay(where, 5, grid) is None
