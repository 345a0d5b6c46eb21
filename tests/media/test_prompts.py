"""Prompts: synthetic scenes where the answer is known, real frames, and every refusal."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from stremn.errors import StremnError
from stremn.media.prompts import (
    Box,
    box_mask,
    clicks_mask,
    parse_box,
    parse_points,
    refined_mask,
    scribble_mask,
)

HEIGHT, WIDTH = 120, 160


def scene() -> tuple[np.ndarray, np.ndarray]:
    """An orange ellipse on a textured blue ground, and where it is."""
    rng = np.random.default_rng(0)
    ground = np.array([40, 70, 130]) + rng.integers(-25, 25, (HEIGHT, WIDTH, 3))
    inside = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    cv2.ellipse(inside, (90, 60), (30, 20), 20, 0, 360, 1, cv2.FILLED)
    thing = np.array([220, 140, 40]) + rng.integers(-25, 25, (HEIGHT, WIDTH, 3))
    frame = np.where(inside[..., None] > 0, thing, ground).astype(np.uint8)
    return frame, inside > 0


def overlap(found: np.ndarray, expected: np.ndarray) -> float:
    return float((found & expected).sum() / (found | expected).sum())


# ---------------------------------------------------------------- text


def test_boxes_and_points_in_words() -> None:
    assert parse_box("12,8, 30.5,40") == Box(12, 8, 30.5, 40)
    assert parse_points("1,2 3,4.5;5,6") == [(1, 2), (3, 4.5), (5, 6)]


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,3,nan"])
def test_text_that_is_no_box(text: str) -> None:
    with pytest.raises(StremnError, match="A box is four numbers x,y,width,height"):
        parse_box(text)


@pytest.mark.parametrize("text", ["", "1", "1,2,3", "1,x"])
def test_text_that_is_no_points(text: str) -> None:
    with pytest.raises(StremnError, match="Points are written x,y"):
        parse_points(text)


# ---------------------------------------------------------------- finding an object


def test_box_around_an_object() -> None:
    frame, inside = scene()
    assert overlap(box_mask(frame, Box(52, 30, 76, 60)), inside) > 0.95


def test_box_that_hangs_out_of_the_frame_is_cut() -> None:
    frame, inside = scene()
    frame, inside = frame[:, 70:], inside[:, 70:]  # the object touches the left side
    assert overlap(box_mask(frame, Box(-30, 30, 88, 60)), inside) > 0.9


def test_same_frame_and_box_give_the_same_mask() -> None:
    frame, _ = scene()
    first = box_mask(frame, Box(52, 30, 76, 60))
    np.random.default_rng(1).random()
    cv2.setRNGSeed(99)
    np.testing.assert_array_equal(box_mask(frame, Box(52, 30, 76, 60)), first)


def test_large_frames_are_reduced_and_the_mask_has_full_size() -> None:
    frame, inside = scene()
    frame = cv2.resize(frame, (WIDTH * 8, HEIGHT * 8), interpolation=cv2.INTER_CUBIC)
    inside = cv2.resize(inside.astype(np.uint8), (WIDTH * 8, HEIGHT * 8)) > 0
    found = box_mask(frame, Box(52 * 8, 30 * 8, 76 * 8, 60 * 8))
    assert found.shape == inside.shape
    assert overlap(found, inside) > 0.95


def test_one_click_finds_the_object_whatever_its_size() -> None:
    frame, inside = scene()
    assert overlap(clicks_mask(frame, [(90, 60)]), inside) > 0.9
    half = cv2.resize(frame, (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA)
    small = np.concatenate([half, half[:, :1].repeat(WIDTH, axis=1)], axis=1)
    target = cv2.resize(inside.astype(np.uint8), (WIDTH // 2, HEIGHT // 2)) > 0
    found = clicks_mask(small, [(45, 30)])
    assert overlap(found[:, : WIDTH // 2], target) > 0.85


def test_negative_clicks_exclude_a_look_alike_that_touches() -> None:
    frame, inside = scene()
    twin = np.zeros_like(inside, dtype=np.uint8)
    cv2.ellipse(twin, (45, 60), (22, 16), 0, 0, 360, 1, cv2.FILLED)
    orange = frame[60, 90] * np.ones_like(frame)
    frame = np.where((twin > 0)[..., None] & ~inside[..., None], orange, frame).astype(np.uint8)
    found = clicks_mask(frame, [(95, 60), (80, 55)], [(40, 60), (48, 66), (50, 52)])
    assert not found[60, 40]
    assert found[60, 95]


def test_a_negative_click_takes_a_part_out_of_a_box() -> None:
    frame, inside = scene()
    frame[10:30, 100:125] = (30, 200, 60)  # another thing in the box
    box = Box(50, 5, 85, 90)
    assert box_mask(frame, box)[12:28, 102:123].mean() > 0.9
    found = box_mask(frame, box, [(112, 20)])
    assert found[18:23, 110:115].mean() == 0
    assert overlap(found, inside) > 0.8


def test_clicks_mend_a_mask_and_leave_the_rest() -> None:
    frame, inside = scene()
    more, less = inside.copy(), inside.copy()
    more[90:110, 10:40] = True
    frame[90:110, 10:40] = (30, 200, 60)
    mended = refined_mask(frame, more, negative=[(25, 100)])
    np.testing.assert_array_equal(mended[:, 60:], inside[:, 60:])
    assert mended[90:110, 10:40].mean() < 0.1
    less[50:70, 80:100] = False
    assert refined_mask(frame, less, positive=[(90, 60)])[52:68, 82:98].mean() > 0.95
    assert overlap(refined_mask(frame, inside, negative=[(5, 5)]), inside) == 1


def test_mending_that_cannot_work() -> None:
    frame, inside = scene()
    with pytest.raises(StremnError, match="The click 500,2 is outside the frame of 160x120"):
        refined_mask(frame, inside, negative=[(500, 2)])
    speck = np.zeros_like(inside)
    speck[59:61, 89:91] = True
    with pytest.raises(StremnError, match="Nothing is left of the object"):
        refined_mask(frame, speck, negative=[(90, 60)])


def test_scribble_keeps_only_what_it_touches() -> None:
    frame, inside = scene()
    frame[5:20, 5:20] = frame[60, 90]  # another patch of the same color
    line = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    cv2.line(line, (75, 55), (105, 65), 1, 3)
    found = scribble_mask(frame, line)
    assert overlap(found, inside) > 0.9
    assert not found[5:20, 5:20].any()


def test_real_objects_are_found_better_than_their_box(real_data: Path) -> None:
    root = real_data / "davis"
    found, boxes = [], []
    for name in ("bear", "bus", "soccerball", "surf"):
        folder = next(iter(root.glob(f"JPEGImages/*/{name}")))
        frame = np.array(Image.open(folder / "00000.jpg").convert("RGB"))
        truth = next(iter(root.glob(f"Annotations/*/{name}/00000.png")))
        inside = np.array(Image.open(truth)) > 0
        x, y, w, h = cv2.boundingRect(inside.astype(np.uint8))
        found.append(overlap(box_mask(frame, Box(x - 5, y - 5, w + 10, h + 10)), inside))
        whole = np.zeros_like(inside)
        whole[y : y + h, x : x + w] = True
        boxes.append(overlap(whole, inside))
    assert np.mean(found) > 0.8 > np.mean(boxes)


# ---------------------------------------------------------------- refusals


def test_boxes_that_cannot_work() -> None:
    frame, _ = scene()
    with pytest.raises(StremnError, match=r"200,10,20,20 .* no part inside the frame of 160x120"):
        box_mask(frame, Box(200, 10, 20, 20))
    with pytest.raises(StremnError, match="too small: 5x4 pixels inside the frame, expected 8x8"):
        box_mask(frame, Box(10, 10, 5, 4))
    with pytest.raises(StremnError, match="is the whole frame of 160x120"):
        box_mask(frame, Box(0, 0, 160, 120))


def test_clicks_that_cannot_work() -> None:
    frame, _ = scene()
    with pytest.raises(StremnError, match="at least one point on the object"):
        clicks_mask(frame, [], [(3, 3)])
    with pytest.raises(StremnError, match="click 160,5 is outside the frame of 160x120"):
        clicks_mask(frame, [(160, 5)])


def test_scribbles_that_cannot_work() -> None:
    frame, _ = scene()
    with pytest.raises(StremnError, match="expected 160x120, got 20x10"):
        scribble_mask(frame, np.ones((10, 20), bool))
    with pytest.raises(StremnError, match="marks nothing on the object"):
        scribble_mask(frame, np.zeros((HEIGHT, WIDTH), bool))


def test_flat_frames_do_not_crash() -> None:
    flat = np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)
    found = box_mask(flat, Box(30, 30, 60, 40))  # any answer inside the box will do
    assert not found[:29].any()
    assert clicks_mask(flat, [(50, 50)])[50, 50]
