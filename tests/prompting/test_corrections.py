"""What one more click may change in a mask."""

import numpy as np
import pytest

from stremn.media.finding import Click
from stremn.prompting.corrections import corrected, follows, refined, taken_at_its_word

SIZE = (60, 80)
ON, OFF = Click(45, 30, True), Click(15, 30, False)


def plane(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """1 in boxes (left, top, right, bottom)."""
    mask = np.zeros(SIZE, np.float32)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = 1
    return mask


LEFT, MIDDLE, RIGHT = (5, 20, 25, 40), (40, 20, 50, 40), (60, 20, 70, 40)


def test_a_click_on_the_object_only_adds_and_one_off_it_only_takes_away() -> None:
    added = corrected(plane(MIDDLE), plane(LEFT), [ON], local=False)
    np.testing.assert_array_equal(added, plane(LEFT, MIDDLE))
    before, found = plane(LEFT, MIDDLE, (25, 20, 40, 40)), plane(MIDDLE, RIGHT, (20, 20, 40, 40))
    less = corrected(found, before, [ON, OFF], local=False)
    np.testing.assert_array_equal(less, plane(MIDDLE, (20, 20, 40, 40)))


def test_a_first_click_on_the_object_may_add_any_amount_to_an_empty_mask() -> None:
    added = corrected(plane(MIDDLE), plane(), [ON], local=False)
    np.testing.assert_array_equal(added, plane(MIDDLE))


def test_a_local_change_is_the_part_that_the_click_lies_on() -> None:
    found, before = plane(LEFT, MIDDLE, RIGHT), plane(LEFT)
    np.testing.assert_array_equal(corrected(found, before, [ON], local=False), found)
    near = corrected(found, before, [ON], local=True)
    np.testing.assert_array_equal(near, plane(LEFT, MIDDLE))


def test_a_change_does_not_run_over_an_earlier_click_of_the_other_kind() -> None:
    barrier = [Click(55, row, False) for row in range(20, 40, 2)]
    found = plane((40, 20, 70, 40))
    kept = corrected(found, plane(LEFT), [*barrier, ON], local=False)
    assert kept is not None
    assert kept[30, 45] == 1
    assert kept[30, 65] == 0, "what lies behind the earlier clicks is not reached"
    assert all(follows(kept, click) for click in [*barrier, ON])


@pytest.mark.parametrize(
    ("found", "before", "click"),
    [
        (plane(RIGHT), plane(LEFT), ON),  # the answer ignores the click
        (plane(), plane(LEFT), OFF),  # nothing would be left
        (plane((5, 20, 10, 40)), plane(LEFT), OFF),  # less than half would be left
        (plane((30, 20, 50, 40)), plane(LEFT), ON),  # the object would be twice as large
    ],
)
def test_an_answer_that_is_not_taken(found: np.ndarray, before: np.ndarray, click: Click) -> None:
    assert corrected(found, before, [click], local=True) is None


def test_a_click_taken_at_its_word_leaves_earlier_ones_theirs() -> None:
    earlier = Click(46, 30, False)
    mask = taken_at_its_word(plane(LEFT), plane(LEFT), [earlier, ON])
    assert mask[30, 45] == 1
    assert mask[30, 44] == 1
    assert mask[30, 46] == 0
    np.testing.assert_array_equal(mask[:, :40], plane(LEFT)[:, :40])


def test_what_is_doubted_like_the_click_shares_its_side_nearby() -> None:
    before, click = plane((0, 0, 80, 60)), Click(40, 30, False)
    found = np.full(SIZE, 0.99, np.float32)
    found[:, 39:42] = 0.7
    mask = taken_at_its_word(found, before, [click]) > 0.5
    assert not mask[28:33, 39:42].any()
    assert mask[:, :39].all()
    assert mask[:, 42:].all()
    assert mask[:20].all(), "far from the click nothing changes"


def test_a_rough_mask_stays_where_the_answer_is_another_object() -> None:
    rough, better, other = plane((5, 20, 25, 36)), plane(LEFT), plane(RIGHT)
    np.testing.assert_array_equal(refined(better, rough), better)
    np.testing.assert_array_equal(refined(other, rough), rough)
