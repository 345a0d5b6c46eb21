"""Solid bodies in perspective, against rays and spheres worked out one by one."""

import numpy as np
import pytest

from stremn.data.clips.solids import Ellipsoid, Light, Scene, rotation, wrapped

EVERYWHERE = Light(np.array([0.0, 0.0, -1.0]), 1.0)
"""Light without shade."""


def plain(*color: int) -> np.ndarray:
    return np.full((8, 8, 3), color, dtype=np.uint8)


def sphere(x: float, y: float, z: float, radius: float) -> Ellipsoid:
    return Ellipsoid(np.array([x, y, z], dtype=float), np.full(3, float(radius)), np.eye(3))


def rays(size: int, focal: float) -> np.ndarray:
    """Return the ray of each pixel, "size size 3", with z = 1."""
    at = (np.arange(size) - (size - 1) / 2) / focal
    return np.stack([*np.meshgrid(at, at), np.ones((size, size))], axis=-1)


@pytest.mark.parametrize("place", [(0, 0, 4), (1.2, -0.7, 5), (-2.5, 1.9, 4), (0, 0, 1.1)])
def test_a_sphere_is_seen_in_the_cone_around_it(place: tuple[float, float, float]) -> None:
    scene = Scene(90, 110.0)
    scene.draw(sphere(*place, 1.0), plain(200, 100, 50), EVERYWHERE, 3)
    ray, center = rays(90, 110.0), np.array(place, dtype=float)
    cosine = ray @ center / np.linalg.norm(ray, axis=-1) / np.linalg.norm(center)
    limit = np.sqrt(1 - 1 / (center @ center))  # cosine of the cone's half angle
    clear = np.abs(cosine - limit) > 1e-5
    assert clear.mean() > 0.98
    assert scene.covered.any()
    assert np.array_equal(scene.covered[clear], (cosine > limit)[clear])
    assert np.array_equal(scene.ids == 3, scene.covered)
    assert (scene.color[scene.covered] == (200, 100, 50)).all()


def test_what_is_drawn_lies_on_the_turned_ellipsoid_on_its_near_side() -> None:
    part = Ellipsoid(
        np.array([0.3, -0.2, 4.0]), np.array([1.2, 0.4, 0.7]), rotation(np.array([0.5, 1.1, -0.8]))
    )
    scene = Scene(120, 150.0)
    scene.draw(part, plain(9, 9, 9), EVERYWHERE, 1)
    seen = scene.covered
    points = (rays(120, 150.0) * scene.depth[..., None])[seen]
    own = (points - part.center) @ part.rotation / part.axes
    assert seen.sum() > 1000
    assert np.allclose((own**2).sum(axis=1), 1, atol=2e-3)
    normal = own / part.axes @ part.rotation.T
    assert ((normal * points).sum(axis=1) < 0.02).all()  # the surface faces the camera


@pytest.mark.parametrize("near_first", [True, False])
def test_what_is_nearer_hides_what_is_farther(near_first: bool) -> None:
    near, far = (
        (sphere(0, 0, 3, 0.5), 1, plain(255, 0, 0)),
        (sphere(0, 0, 5, 1.5), 2, plain(0, 0, 255)),
    )
    scene = Scene(100, 120.0)
    for part, number, texture in (near, far) if near_first else (far, near):
        scene.draw(part, texture, EVERYWHERE, number)
    assert scene.ids[50, 50] == 1
    assert tuple(scene.color[50, 50]) == (255, 0, 0)
    assert scene.depth[50, 50] == pytest.approx(2.5, abs=1e-2)
    assert scene.ids[50, 75] == 2
    assert set(np.unique(scene.ids)) == {0, 1, 2}


def test_bodies_that_cut_each_other_are_split_where_they_meet() -> None:
    scene = Scene(101, 120.0)
    scene.draw(sphere(-0.4, 0, 4, 1), plain(1, 1, 1), EVERYWHERE, 1)
    scene.draw(sphere(0.4, 0, 4, 1), plain(2, 2, 2), EVERYWHERE, 2)
    # The middle column is as near to one as to the other.
    assert (scene.ids[:, :50] != 2).all()
    assert np.array_equal(scene.ids[:, :50] == 1, (scene.ids == 2)[:, :50:-1])
    assert (scene.ids == 1).any()


def test_light_falls_by_the_cosine() -> None:
    light = Light(np.array([0.0, 0.0, -1.0]), 0.25)
    scene = Scene(201, 4000.0)  # far away: rays are nearly parallel
    scene.draw(sphere(0, 0, 80, 1.9), plain(200, 200, 200), light, 1)
    for column in (100, 130, 160, 190):
        off = (column - 100) / 4000 * 80 / 1.9
        expected = 200 * (0.25 + 0.75 * np.sqrt(max(0, 1 - off**2)))
        assert scene.color[100, column, 0] == pytest.approx(expected, abs=4)


def test_a_side_away_from_the_light_has_the_light_from_everywhere() -> None:
    scene = Scene(61, 60.0)
    scene.draw(sphere(0, 0, 4, 1), plain(200, 100, 60), Light(np.array([0.0, 0.0, 1.0]), 0.5), 1)
    assert (scene.color[scene.covered] == (100, 50, 30)).all()


def test_textures_turn_with_their_body() -> None:
    texture = plain(0, 0, 0)
    texture[:4] = 255  # the upper half of latitudes: toward the body's own third axis
    turns = {(0.0, 0.0, 0.0): 0, (np.pi, 0.0, 0.0): 255}  # the camera sees -z
    for turn, expected in turns.items():
        scene = Scene(41, 60.0)
        body = Ellipsoid(np.array([0, 0, 4.0]), np.ones(3), rotation(np.array(turn)))
        scene.draw(body, texture, EVERYWHERE, 1)
        assert scene.color[20, 20, 0] == expected


def test_wrapped_textures_have_no_seam() -> None:
    texture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    height = np.linspace(-0.9, 0.9, 50)
    ring = np.sqrt(1 - height**2)
    tiny = 1e-4
    one, two = (
        wrapped(texture, np.stack([-ring, sign * tiny * ring, height]).astype(np.float32))
        for sign in (1, -1)
    )
    assert np.abs(one - two).max() <= 2


def test_more_points_than_opencv_takes_at_once_are_wrapped() -> None:
    points = np.random.default_rng(1).normal(size=(3, 70_000)).astype(np.float32)
    points /= np.linalg.norm(points, axis=0)
    texture = np.random.default_rng(2).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    whole = wrapped(texture, points)
    assert np.array_equal(whole[40_000:], wrapped(texture, points[:, 40_000:]))


@pytest.mark.parametrize("place", [(0, 0, 0.9), (0, 0, -4), (40, 0, 4), (0, -40, 4)])
def test_what_is_behind_the_camera_or_out_of_view_is_not_drawn(
    place: tuple[float, float, float],
) -> None:
    scene = Scene(40, 50.0)
    scene.draw(sphere(*place, 1.0), plain(9, 9, 9), EVERYWHERE, 1)
    assert not scene.covered.any()
