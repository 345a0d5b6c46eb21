"""The memory strip keeps pictures of held frames only, and survives a stop."""

import numpy as np
import pytest

from stremn.errors import StremnError
from stremn.networks.working_size import WorkingSize
from stremn.segmentation.reports import MemoryReport, ObjectMemory, StepResult
from stremn.segmentation.strip import MemoryStrip

SIZE = WorkingSize.of(48, 64, 480)


def step(t: int, frames: tuple[int | None, ...], objects: int = 1) -> StepResult:
    entries = tuple(
        ObjectMemory(i + 1, frames, tuple(f == 0 for f in frames), None) for i in range(objects)
    )
    labels = np.zeros((48, 64), np.uint8)
    labels[10:20, 10:20] = 1
    shares = np.zeros((2, 48, 64), np.float32)
    return StepResult(t, labels, (1,), MemoryReport(entries, 10), shares, SIZE)


def filmed(*held: tuple[int | None, ...]) -> MemoryStrip:
    strip = MemoryStrip()
    for t, frames in enumerate(held):
        strip.add(np.full((48, 64, 3), 40 * t, np.uint8), step(t, frames))
    return strip


def test_frames_that_left_the_memory_are_forgotten():
    strip = filmed((0, None, None), (0, 1, None), (0, 1, 2), (0, 3, 2))
    assert sorted(strip._pictures) == [0, 2]  # the latest may leave before it was ever drawn
    strip.draw()
    assert sorted(strip._pictures) == [0, 2, 3]
    strip.add(np.zeros((48, 64, 3), np.uint8), step(4, (0, 4, 2)))
    strip.draw()
    assert sorted(strip._pictures) == [0, 2, 4]


def test_one_row_an_object_and_one_tile_a_slot():
    strip = MemoryStrip()
    strip.add(np.zeros((48, 64, 3), np.uint8), step(0, (0, None), objects=3))
    one = filmed((0, None))
    assert strip.draw().shape[0] == 3 * one.draw().shape[0]
    assert strip.draw().shape[1] == one.draw().shape[1]


@pytest.mark.parametrize("size", [(3, 10_000), (10_000, 3), (1, 1)])
def test_frames_of_odd_shapes_make_no_endless_strip(size):
    """In full height a tile of 3x10000 pixels would be 600,000 pixels wide."""
    height, width = size
    labels = np.ones(size, np.uint8)
    result = StepResult(
        0, labels, (1,), MemoryReport((ObjectMemory(1, (0, None), (True, False), None),), 10),
        np.zeros((2, *size), np.float32), WorkingSize.of(*size, 64),
    )  # fmt: skip
    strip = MemoryStrip()
    strip.add(np.full((height, width, 3), 90, np.uint8), result)
    drawn = strip.draw()
    assert drawn.shape[0] == 212
    assert drawn.shape[1] < 6000
    assert (drawn != 255).any()


def test_restored_strip_draws_the_same(tmp_path):
    (tmp_path / ".resume").mkdir()
    held = [(0, None), (0, 1), (0, 2)]
    whole = filmed(*held)
    part = filmed(*held[:2])
    part.keep(tmp_path)
    again = MemoryStrip.restored(tmp_path)
    again.add(np.full((48, 64, 3), 80, np.uint8), step(2, (0, 2)))
    np.testing.assert_array_equal(whole.draw(), again.draw())
    assert MemoryStrip.restored(tmp_path / "elsewhere")._pictures == {}


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04"])
def test_damaged_pictures_are_told(tmp_path, content):
    (tmp_path / ".resume").mkdir()
    (tmp_path / ".resume" / "strip.npz").write_bytes(content)
    with pytest.raises(StremnError, match=r"strip\.npz is damaged"):
        MemoryStrip.restored(tmp_path)


def test_every_row_colors_its_own_object():
    frame = np.full((48, 64, 3), 90, np.uint8)
    labels = np.zeros((48, 64), np.uint8)
    labels[8:24, 4:24], labels[24:40, 36:56] = 1, 2
    strip = MemoryStrip()
    entries = tuple(ObjectMemory(i, (0,), (True,), None) for i in (1, 2))
    shares = np.zeros((3, 48, 64), np.float32)
    strip.add(frame, StepResult(0, labels, (1, 2), MemoryReport(entries, 10), shares, SIZE))
    rows = np.split(strip.draw(), 2)
    left, right = (slice(80, 90), slice(60, 70)), (slice(150, 160), slice(180, 190))
    for row, own, other in ((rows[0], left, right), (rows[1], right, left)):
        assert (row[own] != 90).any(axis=-1).all()
        assert (row[other] == 90).all()
