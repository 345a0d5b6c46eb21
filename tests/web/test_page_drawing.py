"""What gestures on a frame lead to: boxes, clicks, strokes, several objects."""

from typing import Any

import numpy as np
import pytest

from moving_disc import BOX, HEIGHT, WIDTH, disc, overlap, picture
from stremn.errors import StremnError
from stremn.media.finding import grab_cut, without_others
from stremn.media.masks import read_mask
from stremn.web.drawing import Drawing
from stremn.web.marks import SAMPLES, StrokeMark, parse_mark

FRAME = picture(0)


def nothing() -> Drawing:
    return Drawing.on(0, np.zeros((HEIGHT, WIDTH), np.uint8))


def said(drawing: Drawing, item: int, **mark: Any) -> Drawing:
    return drawing.marked(FRAME, item, parse_mark(mark), grab_cut)


def stroke(*points: tuple[float, float], **options: Any) -> dict[str, Any]:
    return {"kind": "stroke", "points": points, "radius": 3, "on": True} | options


def test_a_box_finds_an_object() -> None:
    drawing = said(nothing(), 1, **BOX)
    assert overlap(drawing.labels() == 1, disc(0)) > 0.9
    assert drawing.touched == {1}
    assert overlap(drawing.given[1].labels() > 0, disc(0)) > 0.9


def test_a_box_on_another_object_is_in_front_of_it() -> None:
    def find_disc(frame: np.ndarray, **prompt: Any) -> np.ndarray:
        return without_others(disc(0), prompt.get("others"))

    whole = Drawing.on(0, np.full((HEIGHT, WIDTH), 4, np.uint8))
    drawing = whole.marked(FRAME, 1, parse_mark(BOX), find_disc)
    np.testing.assert_array_equal(drawing.labels() == 1, disc(0))
    np.testing.assert_array_equal(drawing.labels() == 4, ~disc(0))


def test_a_click_finds_an_object_and_a_click_off_it_takes_away() -> None:
    image = picture(0)
    image[5:20, 85:105] = (30, 200, 60)
    box = parse_mark(BOX | {"y": 2, "width": 87, "height": 78})
    drawing = nothing().marked(image, 1, box, grab_cut)
    assert drawing.labels()[7:18, 87:103].all()
    off = parse_mark({"kind": "click", "x": 95, "y": 12, "on": False})
    assert not drawing.marked(image, 1, off, grab_cut).labels()[10:15, 93:98].any()
    found = said(nothing(), 1, kind="click", x=50, y=48, on=True)
    assert overlap(found.labels() == 1, disc(0)) > 0.8


def test_a_stroke_that_finds_the_edge_and_one_that_is_taken_as_it_is() -> None:
    rough = said(nothing(), 1, **stroke((44, 44), (56, 52)))
    assert overlap(rough.labels() == 1, disc(0)) > 0.8
    exact = said(nothing(), 1, **stroke((44, 44), (56, 52), snap=False))
    mark = StrokeMark(kind="stroke", points=((44, 44), (56, 52)), radius=3, on=True)
    np.testing.assert_array_equal(exact.labels() == 1, mark.pixels((HEIGHT, WIDTH)))
    assert 60 < (exact.labels() == 1).sum() < 200


def test_the_eraser_takes_away_what_it_touches_and_no_more() -> None:
    drawing = said(nothing(), 1, **BOX)
    cut = said(drawing, 1, **stroke((35, 48), (65, 48), on=False, snap=False))
    assert not cut.labels()[48, 36:64].any()
    kept = disc(0).copy()
    kept[44:53] = False
    assert cut.labels()[kept].mean() > 0.9
    with pytest.raises(StremnError, match="did not touch the object that is chosen"):
        said(drawing, 1, **stroke((5, 5), (9, 9), on=False))
    with pytest.raises(StremnError, match="Nothing would be left of the object"):
        said(drawing, 1, **stroke((20, 48), (80, 48), on=False, snap=False, radius=60))


def test_a_change_that_the_stroke_does_not_touch_is_not_made() -> None:
    def find_all(frame: np.ndarray, **prompt: Any) -> np.ndarray:
        found = disc(0).copy()
        found[:10, :10] = True  # far from the stroke
        return found

    mark = parse_mark(stroke((44, 44), (56, 52)))
    labels = nothing().marked(FRAME, 1, mark, find_all).labels()
    assert labels[48, 50] == 1
    assert not labels[:10, :10].any()


def test_what_is_an_object_is_not_given_to_the_next_unless_it_is_painted() -> None:
    first = said(nothing(), 1, **BOX)
    told: list[np.ndarray] = []

    def find_half(frame: np.ndarray, *, others: np.ndarray, **prompt: Any) -> np.ndarray:
        told.append(others)
        found = np.zeros((HEIGHT, WIDTH), bool)
        found[:, :64] = True
        return found & ~others

    second = first.marked(FRAME, 2, parse_mark(BOX), find_half)
    np.testing.assert_array_equal(told[0], first.labels() == 1)
    assert (second.labels()[:, :20] == 2).all()
    np.testing.assert_array_equal(second.labels() == 1, first.labels() == 1)
    painted = said(first, 2, **stroke((44, 48), (56, 48), snap=False))
    assert (painted.labels()[48, 44:56] == 2).all()
    assert painted.touched == {1, 2}


def test_clicks_go_on_from_what_a_run_found() -> None:
    wrong = disc(0).astype(np.uint8) * 2
    wrong[5:20, 85:105] = 4
    drawing = Drawing.on(5, wrong)
    assert drawing.given == {}
    boxed = said(drawing, 2, **BOX)
    assert list(boxed.given) == [2], "nothing was said about object 4"
    assert (boxed.labels() == 4).any()


def test_a_mask_file_instead() -> None:
    drawing = said(nothing(), 1, **BOX).with_objects(read_mask(disc(0).astype(np.uint8) * 7))
    assert drawing.touched == {7}


def test_the_prompt_network_is_told_points_along_a_stroke() -> None:
    mark = StrokeMark(
        kind="stroke", points=tuple((x, 10) for x in range(-50, 300)), radius=3, on=True
    )
    clicks = mark.clicks((HEIGHT, WIDTH))
    assert [click.x for click in clicks] == [0, 42, 85, 127]
    assert len(clicks) == SAMPLES
    one = StrokeMark(kind="stroke", points=((5, 5),), radius=3, on=False)
    assert [(c.x, c.y, c.on) for c in one.clicks((HEIGHT, WIDTH))] == [(5, 5, False)]
    assert one.pixels((HEIGHT, WIDTH)).sum() > 20


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        ({"kind": "rectangle"}, "no mark on a frame"),
        ([], "no mark on a frame"),
        ({"kind": "click", "x": float("nan"), "y": 1, "on": True}, "click.x"),
        (BOX | {"width": 0}, "box.width"),
        (BOX | {"more": 1}, "box.more"),
        (stroke(radius=1e9), "stroke.radius"),
        (stroke(*[(1, 1)] * 10_001), "stroke.points"),
        (stroke(), "no point in it"),
    ],
)
def test_what_is_no_mark_is_refused(mark: object, words: str) -> None:
    with pytest.raises(StremnError, match=words):
        parse_mark(mark)


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        ({"kind": "click", "x": 500, "y": 1, "on": True}, "outside the frame"),
        ({"kind": "click", "x": 5, "y": 1, "on": False}, "There is no object yet"),
        (BOX | {"x": 900}, "has no part inside the frame"),
        (stroke((900, 900), (950, 900)), "outside the frame"),
    ],
)
def test_gestures_that_lead_nowhere_change_nothing(mark: dict[str, Any], words: str) -> None:
    with pytest.raises(StremnError, match=words):
        said(nothing(), 1, **mark)
