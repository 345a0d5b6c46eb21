"""How an overlay looks: fill, outline, ids."""

import cv2
import numpy as np
import pytest

from stremn.errors import StremnError
from stremn.media.drawing import OverlayStyle

FRAME = np.full((120, 160, 3), 100, np.uint8)
LABELS = np.zeros((120, 160), np.uint8)
LABELS[20:100, 30:130] = 3
INSIDE = cv2.erode((LABELS > 0).astype(np.uint8), np.ones((9, 9))) > 0


def test_the_fill_has_the_share_of_color_that_was_asked_for():
    colors = [
        OverlayStyle(opacity, outline=False, labels=False).draw(FRAME, LABELS)[INSIDE][0]
        for opacity in (0, 0.3, 1)
    ]
    np.testing.assert_array_equal(colors[0], 100)
    np.testing.assert_allclose(colors[1], 100 + 0.3 * (colors[2].astype(float) - 100), atol=1)


def test_outline_and_ids_are_drawn_where_they_are_asked_for():
    plain = OverlayStyle(0, outline=False, labels=False).draw(FRAME, LABELS)
    outlined = OverlayStyle(0, labels=False).draw(FRAME, LABELS)
    named = OverlayStyle(0, outline=False).draw(FRAME, LABELS)
    np.testing.assert_array_equal(plain, FRAME)
    assert (outlined[INSIDE] == 100).all()
    assert (outlined != FRAME).any()
    assert (named[INSIDE] != 100).any()
    np.testing.assert_array_equal(named[LABELS == 0], 100)


def test_an_id_stays_inside_the_picture():
    labels = np.zeros((120, 160), np.uint16)
    labels[:, 158:] = 65535
    drawn = OverlayStyle(0, outline=False).draw(FRAME, labels)
    assert (drawn != 100).any()


def test_an_opacity_that_is_none_is_refused():
    with pytest.raises(StremnError, match=r"0 .nothing filled. to 1, got nan"):
        OverlayStyle(float("nan"))


def test_only_what_is_unusual_binds_a_later_run():
    assert OverlayStyle().settings() == {}
    assert OverlayStyle(0.5, labels=False).settings() == {"opacity": 0.5, "labels": False}
