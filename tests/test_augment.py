"""Warps, colors and layers against slow definitions, and masks that follow pictures exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stremn.data.augment import (
    Bend,
    ColorRange,
    Layer,
    Motion,
    ThinPlate,
    blob,
    bounding_box,
    color_matrix,
    feathered,
    half_plane,
    id_counts,
    middle_of,
    motion_matrices,
    recolor,
    render,
    sampling,
    shrunk_to,
    smooth_path,
    touches_border,
    transformed_box,
)

SAME = np.eye(3, 4, dtype=np.float32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def disk(height: int, width: int, radius: float) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    inside = (x - width / 2) ** 2 + (y - height / 2) ** 2 < radius**2
    return inside.astype(np.uint8)


def motion(frames: int, size: int, seed: int) -> Motion:
    r = rng(seed)
    return Motion(
        position=size / 2 + r.uniform(-0.2, 0.2, (frames, 2)) * size,
        scale=r.uniform(0.6, 1.6, frames),
        angle=r.uniform(-1, 1, frames),
        shear=r.uniform(-0.2, 0.2, frames),
        tilt=r.uniform(-0.002, 0.002, (frames, 2)),
    )


# --- color ----------------------------------------------------------------------------------------


def test_no_change_of_color_is_the_identity() -> None:
    matrix = color_matrix(rng(), ColorRange(0, 0, 0, 0))
    assert matrix == pytest.approx(SAME, abs=1e-6)


def test_gray_has_no_color_and_keeps_brightness() -> None:
    matrix = color_matrix(rng(), ColorRange(0, 0, 0, 0, gray=1.0))
    image = rng().integers(0, 256, (8, 8, 3), dtype=np.uint8)
    gray = recolor(image, matrix)
    luma = image @ np.array([0.299, 0.587, 0.114])
    assert np.abs(gray - luma[..., None]).max() <= 1


def test_contrast_turns_about_middle_gray_and_hue_keeps_gray() -> None:
    middle = np.full((1, 1, 3), 127.5)
    for seed in range(5):
        matrix = color_matrix(rng(seed), ColorRange(0, 0.5, 0.5, 0.5))
        assert matrix[:, :3] @ middle[0, 0] + matrix[:, 3] == pytest.approx(127.5, abs=0.01)


# --- motion ---------------------------------------------------------------------------------------


def test_a_path_through_as_many_keyframes_as_frames_is_those_keyframes() -> None:
    values = rng(3).uniform(-1, 1, (7, 2))
    assert smooth_path(rng(3), 5, 2, 5) == pytest.approx(values[1:6])


def test_a_path_is_smooth() -> None:
    path = smooth_path(rng(), 400, 3, 4)
    steps = np.diff(path, axis=0)
    assert np.abs(np.diff(steps, axis=0)).max() < 0.05 * np.abs(steps).max()
    assert smooth_path(rng(), 1, 2, 2).shape == (1, 2)


@pytest.mark.parametrize("flip", [False, True])
def test_motion_puts_the_center_in_place_and_scales_area(flip: bool) -> None:
    moved = motion(6, 100, seed=1)
    center = np.array([13.0, 21.0, 1.0])
    matrices = motion_matrices((13.0, 21.0), moved, flip)
    for frame in range(6):
        point = matrices[frame] @ center
        assert point[:2] / point[2] == pytest.approx(moved.position[frame])
        # Area near the center, by finite differences.
        h = 1e-4
        ends = [matrices[frame] @ (center + np.array(d)) for d in ((h, 0, 0), (0, h, 0))]
        across, down = (e[:2] / e[2] - moved.position[frame] for e in ends)
        area = (across[0] * down[1] - across[1] * down[0]) / h**2
        assert area == pytest.approx(moved.scale[frame] ** 2 * (-1 if flip else 1), rel=1e-2)


# --- thin plates ----------------------------------------------------------------------------------


def test_a_thin_plate_goes_through_its_controls() -> None:
    plate = ThinPlate(side=3, grid=9)
    moves = rng().normal(size=(plate.controls, 2))
    field = plate.field(moves)
    assert field[::4, ::4].reshape(-1, 2) == pytest.approx(moves, abs=1e-5)


def test_a_thin_plate_repeats_affine_motion() -> None:
    plate = ThinPlate(side=3, grid=5)
    line = np.linspace(0, 1, 3)
    controls = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    change = np.array([[0.2, -0.4], [0.7, 0.1]])
    fine = np.linspace(0, 1, 5)
    points = np.stack(np.meshgrid(fine, fine), axis=-1)
    assert plate.field(controls @ change + 0.3) == pytest.approx(points @ change + 0.3, abs=1e-5)


# --- warps ----------------------------------------------------------------------------------------


def test_a_bent_warp_looks_where_the_definition_says() -> None:
    matrix = motion_matrices((20.0, 15.0), motion(1, 40, seed=5), False)[0]
    field = rng(2).uniform(-3, 3, (5, 5, 2)).astype(np.float32)
    bend = Bend(field, (4.0, 2.0, 36.0, 30.0))
    warp = sampling(matrix, (3, 6, 33, 36), bend)
    assert warp.maps is not None
    inverse = np.linalg.inv(matrix)
    for row, column in ((0, 0), (7, 22), (15, 15), (29, 3)):
        point = inverse @ np.array([column + 3.0, row + 6.0, 1.0])
        u, v = point[:2] / point[2]
        gx = np.clip((u - 4) / 32 * 4, 0, 4)
        gy = np.clip((v - 2) / 28 * 4, 0, 4)
        x0, y0 = min(int(gx), 3), min(int(gy), 3)
        fx, fy = gx - x0, gy - y0
        moved = (1 - fy) * ((1 - fx) * field[y0, x0] + fx * field[y0, x0 + 1]) + fy * (
            (1 - fx) * field[y0 + 1, x0] + fx * field[y0 + 1, x0 + 1]
        )
        # OpenCV interpolates at steps of 1/32 of a cell: 6 pixels of slope over 32.
        assert warp.maps[0][row, column] == pytest.approx(u + moved[0], abs=0.25)
        assert warp.maps[1][row, column] == pytest.approx(v + moved[1], abs=0.25)


def test_bent_and_plain_warps_agree_when_nothing_bends() -> None:
    image = rng().integers(0, 256, (40, 50, 3), dtype=np.uint8)
    matrix = motion_matrices((25.0, 20.0), motion(1, 48, seed=8), True)[0]
    still = Bend(np.zeros((3, 3, 2), dtype=np.float32), (0, 0, 50, 40))
    plain = sampling(matrix, (0, 0, 48, 48), None).take(image, 0).astype(int)
    bent = sampling(matrix, (0, 0, 48, 48), still).take(image, 0).astype(int)
    # Two OpenCV functions, each rounding coordinates to 1/32 pixel.
    assert np.mean(np.abs(plain - bent)) < 2.0


def cut_out(frames: int, size: int, seed: int, bent: bool) -> Layer:
    mask = disk(40, 50, 15)
    boxes = (0.0, 0.0, 50.0, 40.0)
    plate = ThinPlate()
    bends = [
        Bend(plate.field(rng(seed + t).uniform(-4, 4, (plate.controls, 2))), boxes)
        for t in range(frames)
    ]
    return Layer(
        pictures=[np.full((40, 50, 3), 255, dtype=np.uint8)],
        alphas=[feathered(mask)],
        ids=[np.ones_like(mask)],
        color=SAME,
        matrices=motion_matrices((25.0, 20.0), motion(frames, size, seed), seed % 2 == 0),
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
    matrices = motion_matrices((40.0, 30.0), motion(4, 64, seed), False)
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
    assert (labels[0, 10:20, 9:15] == 255).all()
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
    ids[4:12, 4:28], ids[20:28, 4:28], ids[14:18, 4:28] = 1, 2, 255
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    half = np.array([[[2.0, 0, 0], [0, 2, 0], [0, 0, 1]]])
    layer = Layer([image], None, [ids], SAME, half, None, np.ones(1, dtype=bool))
    _, labels = render([layer], 1, 64)
    assert set(np.unique(labels)) == {0, 1, 2, 255}
    for number in (1, 2):
        assert np.count_nonzero(labels == number) == pytest.approx(
            4 * np.count_nonzero(ids == number), rel=0.1
        )


# --- shapes ---------------------------------------------------------------------------------------


def test_boxes_middles_and_counts() -> None:
    mask = np.zeros((20, 30), dtype=np.uint8)
    assert bounding_box(mask) is None
    assert middle_of(mask) is None
    mask[4:10, 6:26] = 3
    mask[0, 0] = 255
    assert id_counts(mask)[3] == 120
    assert id_counts(mask).sum() == 120
    mask[0, 0] = 0
    assert bounding_box(mask) == (6, 4, 26, 10)
    assert middle_of(mask) == pytest.approx((15.5, 6.5), abs=0.6)


def test_a_transformed_box_holds_the_transformed_points() -> None:
    matrix = motion_matrices((25.0, 20.0), motion(1, 60, 4), False)[0]
    x0, y0, x1, y1 = transformed_box((0, 0, 50, 40), matrix)
    for x, y in rng().uniform(0, 1, (50, 2)) * (50, 40):
        u, v, w = matrix @ np.array([x, y, 1])
        assert x0 - 1e-9 <= u / w <= x1 + 1e-9
        assert y0 - 1e-9 <= v / w <= y1 + 1e-9


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
