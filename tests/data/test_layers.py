"""Layers drawn over one another, and labels that follow the pictures exactly."""

import numpy as np
import pytest

from made_data import any_motion, disk
from stremn.data.clips.layers import Layer, render
from stremn.data.clips.warps import Bend, ThinPlate, motion_matrices
from stremn.data.shapes import feathered
from stremn.media.mask_codes import VOID

SAME = np.eye(3, 4, dtype=np.float32)
"""No change of color."""


def cut_out(frames: int, size: int, seed: int, bent: bool) -> Layer:
    mask = disk(40, 50, 15)
    boxes = (0.0, 0.0, 50.0, 40.0)
    plate = ThinPlate()
    bends = [
        Bend(
            plate.field(np.random.default_rng(seed + t).uniform(-4, 4, (plate.controls, 2))), boxes
        )
        for t in range(frames)
    ]
    return Layer(
        pictures=[np.full((40, 50, 3), 255, dtype=np.uint8)],
        alphas=[feathered(mask)],
        ids=[np.ones_like(mask)],
        color=SAME,
        matrices=motion_matrices((25.0, 20.0), any_motion(frames, size, seed), seed % 2 == 0),
        bends=bends if bent else None,
        drawn=np.ones(frames, dtype=bool),
    )


def black(frames: int, size: int) -> Layer:
    return Layer(
        [np.zeros((size, size, 3), dtype=np.uint8)],
        None,
        None,
        SAME,
        np.tile(np.eye(3), (frames, 1, 1)),
        None,
        np.ones(frames, dtype=bool),
    )


@pytest.mark.parametrize("bent", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_label_of_a_cut_out_is_where_it_is_seen(seed: int, bent: bool) -> None:
    frames, labels = render([black(5, 64), cut_out(5, 64, seed, bent)], 5, 64)
    # A white object over black: what is seen is its opacity.
    seen = frames[..., 0]
    clear = np.abs(seen.astype(float) - 127.5) > 1
    assert np.array_equal((labels == 1)[clear], (seen > 127)[clear])
    assert (labels == 1).any(axis=(1, 2)).all()


@pytest.mark.parametrize("seed", range(4))
def test_the_label_of_a_whole_picture_is_where_its_object_is_seen(seed: int) -> None:
    mask = disk(60, 80, 14)
    matrices = motion_matrices((40.0, 30.0), any_motion(4, 64, seed), False)
    layer = Layer(
        [np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)],
        None,
        [mask],
        SAME,
        matrices,
        None,
        np.ones(4, dtype=bool),
    )
    frames, labels = render([layer], 4, 64)
    seen = frames[..., 0] > 127
    assert np.array_equal(labels > 0, seen)
    assert (labels == 1).any(axis=(1, 2)).all()


def test_a_mirrored_object_outside_its_picture_is_void() -> None:
    mask = np.zeros((32, 32), dtype=np.uint8)
    mask[10:20, 2:8] = 1
    image = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
    shifted = np.array([[[1.0, 0, 16], [0, 1, 0], [0, 0, 1]]])
    layer = Layer([image], None, [mask], SAME, shifted, None, np.ones(1, dtype=bool))
    frames, labels = render([layer], 1, 32)
    assert (labels[0, 10:20, 18:24] == 1).all()
    # Reflected about column 16, which shows column 0.
    assert (labels[0, 10:20, 9:15] == VOID).all()
    assert np.array_equal(labels[0] > 0, frames[0, ..., 0] > 127)
    assert np.count_nonzero(labels[0]) == 120


def test_what_lies_in_front_hides_what_lies_behind() -> None:
    behind, front = cut_out(3, 64, 0, False), cut_out(3, 64, 1, False)
    unlabelled = Layer(front.pictures, front.alphas, None, SAME, front.matrices, None, front.drawn)
    _, alone = render([behind], 3, 64)
    _, cover = render([front], 3, 64)
    _, both = render([behind, unlabelled], 3, 64)
    assert np.array_equal(both == 1, (alone == 1) & (cover == 0))
    hidden = Layer(
        front.pictures, front.alphas, None, SAME, front.matrices, None, np.zeros(3, dtype=bool)
    )
    assert np.array_equal(render([behind, hidden], 3, 64)[1], alone)


def test_a_cut_out_beyond_the_canvas_draws_nothing() -> None:
    layer = cut_out(2, 64, 0, False)
    away = layer.matrices.copy()
    away[:, 0] += 500 * away[:, 2]
    far = Layer(layer.pictures, layer.alphas, layer.ids, SAME, away, None, layer.drawn)
    frames, labels = render([black(2, 64), far], 2, 64)
    assert not frames.any()
    assert not labels.any()


def test_ids_of_several_objects_stay_apart() -> None:
    ids = np.zeros((32, 32), dtype=np.uint8)
    ids[4:12, 4:28], ids[20:28, 4:28], ids[14:18, 4:28] = 1, 2, VOID
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    half = np.array([[[2.0, 0, 0], [0, 2, 0], [0, 0, 1]]])
    layer = Layer([image], None, [ids], SAME, half, None, np.ones(1, dtype=bool))
    _, labels = render([layer], 1, 64)
    assert set(np.unique(labels)) == {0, 1, 2, VOID}
    for number in (1, 2):
        assert np.count_nonzero(labels == number) == pytest.approx(
            4 * np.count_nonzero(ids == number), rel=0.1
        )
