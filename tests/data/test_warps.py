"""Motion, thin plates and warps against slow definitions."""

import numpy as np
import pytest

from made_data import any_motion
from stremn.data.clips.warps import (
    Bend,
    ThinPlate,
    motion_matrices,
    sampling,
    smooth_path,
    transformed_box,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


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
    moved = any_motion(6, 100, seed=1)
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


def test_a_bent_warp_looks_where_the_definition_says() -> None:
    matrix = motion_matrices((20.0, 15.0), any_motion(1, 40, seed=5), False)[0]
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
    matrix = motion_matrices((25.0, 20.0), any_motion(1, 48, seed=8), True)[0]
    still = Bend(np.zeros((3, 3, 2), dtype=np.float32), (0, 0, 50, 40))
    plain = sampling(matrix, (0, 0, 48, 48), None).take(image, 0).astype(int)
    bent = sampling(matrix, (0, 0, 48, 48), still).take(image, 0).astype(int)
    # Two OpenCV functions, each rounding coordinates to 1/32 pixel.
    assert np.mean(np.abs(plain - bent)) < 2.0


def test_a_transformed_box_holds_the_transformed_points() -> None:
    matrix = motion_matrices((25.0, 20.0), any_motion(1, 60, 4), False)[0]
    x0, y0, x1, y1 = transformed_box((0, 0, 50, 40), matrix)
    for x, y in rng().uniform(0, 1, (50, 2)) * (50, 40):
        u, v, w = matrix @ np.array([x, y, 1])
        assert x0 - 1e-9 <= u / w <= x1 + 1e-9
        assert y0 - 1e-9 <= v / w <= y1 + 1e-9
