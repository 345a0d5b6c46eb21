"""Boxes and clicks through a SAM model's own prompt encoder."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from stremn.errors import StremnError
from stremn.media.finding import Click
from stremn.media.prompts import Box
from stremn.sam.finding import SamFinder
from stremn.sam.models import of_network
from stremn.sam.prompts import Prompt
from stremn.sam.sessions import SamSession
from tiny_sam import FAMILIES, noisy_square, square_mask, tiny_sam

PROMPTS: list[tuple[Box | None, Sequence[Click]]] = [
    (Box(10, 12, 20, 16), [Click(60, 40, False)]),
    (None, [Click(15, 20, True)]),  # one click: the best of several masks
]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_finds_what_transformers_segments(family: str) -> None:
    model = tiny_sam(family)
    find = SamFinder(of_network(model), device="cpu", precision="float32")
    for box, clicks in PROMPTS:
        found = find(noisy_square(0), box=box, clicks=clicks)
        on = [click[:2] for click in clicks if click.on]
        off = [click[:2] for click in clicks if not click.on]
        prompt = Prompt(None if box is None else tuple(box), on, off)
        result = SamSession(model, device="cpu").step(noisy_square(0), prompts={4: prompt})
        np.testing.assert_array_equal(found, result.labels == 4)
        assert found.any()


def test_a_frame_is_looked_at_once_and_a_rough_mask_is_refined() -> None:
    source = of_network(tiny_sam())
    looks = []
    source.network.vision_encoder.register_forward_hook(lambda *_: looks.append(1))
    find = SamFinder(source, device="cpu", precision="float32")
    rough = square_mask(0) > 0
    plain = find(noisy_square(0), clicks=[Click(15, 20, True)])
    refined = find(noisy_square(0), clicks=[Click(15, 20, True)], previous=rough)
    assert len(looks) == 1
    assert (plain != refined).any()
    np.testing.assert_array_equal(find(noisy_square(0), previous=rough), rough)
    others = np.zeros_like(rough)
    others[24:] = True
    rest = find(noisy_square(0), clicks=[Click(15, 20, True)], others=others)
    np.testing.assert_array_equal(rest, plain & ~others)
    find(noisy_square(1), clicks=[Click(15, 20, True)])
    assert len(looks) == 2


def test_an_array_may_be_filled_with_the_next_frame() -> None:
    source = of_network(tiny_sam())
    clicks = [Click(15, 20, True)]
    expected = SamFinder(source, device="cpu", precision="float32")(noisy_square(1), clicks=clicks)
    find = SamFinder(source, device="cpu", precision="float32")
    frame = noisy_square(0)
    before = find(frame, clicks=clicks)
    frame[:] = noisy_square(1)
    np.testing.assert_array_equal(find(frame, clicks=clicks), expected)
    assert (before != expected).any()


def test_a_finder_leaves_the_weights_of_others_alone() -> None:
    source = of_network(tiny_sam())
    exact = SamFinder(source, device="cpu", precision="float32")
    clicks = [Click(15, 20, True)]
    expected = exact(noisy_square(0), clicks=clicks)
    SamFinder(source, device="cpu", precision="bfloat16")(noisy_square(1), clicks=clicks)
    # The frame is not looked at again, so that the kept features meet the weights of now.
    np.testing.assert_array_equal(exact(noisy_square(0), clicks=clicks), expected)
    assert {x.dtype for x in source.network.parameters()} == {torch.float32}


def test_a_prompt_that_does_not_fit_is_refused() -> None:
    find = SamFinder(of_network(tiny_sam()), device="cpu")
    with pytest.raises(StremnError, match="outside the frame of 80x48"):
        find(noisy_square(0), clicks=[Click(90, 20, True)])
    with pytest.raises(StremnError, match="Clicks need at least one point on the object"):
        find(noisy_square(0), clicks=[Click(9, 20, False)])
