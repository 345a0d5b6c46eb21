"""Masks from boxes, clicks and rough masks with the prompt network."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from stremn.media.finding import (
    Click,
    MaskFinder,
    ObjectMask,
    check_prompt,
    grab_cut,
    without_others,
)
from stremn.media.frames import Picture
from stremn.media.prompts import Box, Point
from stremn.prompting.planes import MaskPrompt
from stremn.prompting.prompter import PromptedFrame, Prompter
from stremn.prompting.weights import SHIPPED, load_prompt_network

GRAB_CUT = "grabcut"
"""Name of the finder that needs no network."""

Probability = Float[np.ndarray, "height width"]


def mask_finder(model: str | Path = SHIPPED, *, device: str = "auto") -> MaskFinder:
    """Return a finder of objects: the shipped network, a weights file, or "grabcut".

    Raises:
        StremnError: no such weights, or an unknown device.
    """
    if str(model) == GRAB_CUT:
        return grab_cut
    return LearnedFinder(Prompter(load_prompt_network(model), device=device))


class LearnedFinder:
    """A `MaskFinder` with the prompt network.

    Clicks are answered one after the other, each with the mask found before it: it changes that
    mask on its own side, and every click keeps its pixel. What was computed for the latest frame is
    kept, so that one more click costs one more step. Several threads may share a finder: they are
    answered one at a time.
    """

    def __init__(self, prompter: Prompter) -> None:
        self._prompter = prompter
        self._marked: PromptedFrame | None = None
        self._answers: dict[tuple[object, ...], Probability] = {}
        self._lock = threading.Lock()  # an answer is kept with the frame that it belongs to

    def __call__(
        self,
        frame: Picture,
        *,
        box: Box | None = None,
        clicks: Sequence[Click] = (),
        previous: ObjectMask | None = None,
        others: ObjectMask | None = None,
    ) -> ObjectMask:
        """Return the mask of one object; see `MaskFinder`."""
        check_prompt(frame, box, clicks, previous)
        corners = None if box is None else (box.x, box.y, box.x + box.width, box.y + box.height)
        known = None if others is None else others.tobytes()
        begun = None if previous is None else previous.tobytes()
        found = None if previous is None else previous.astype(np.float32)
        first = 0 if corners is not None or not clicks else 1
        settled = previous is not None
        with self._lock:
            marked = self._open(frame)
            for count in range(first, len(clicks) + 1):
                given = tuple(clicks[:count])
                key = (corners, given, known, begun)
                if key not in self._answers:
                    self._answers[key] = marked.find(
                        MaskPrompt(given, corners, found, others, settled=settled)
                    )
                found = self._answers[key]
        assert found is not None  # there is a box, a click or a mask
        return without_others(found > 0.5, others)

    def _open(self, frame: Picture) -> PromptedFrame:
        if self._marked is None or not self._marked.shows(frame):
            self._marked = self._prompter.open(frame)
            self._answers.clear()
        return self._marked


_finders: dict[tuple[str, str], MaskFinder] = {}


def mask_from(
    frame: Picture,
    *,
    box: Sequence[float] | None = None,
    on: Sequence[Point] = (),
    off: Sequence[Point] = (),
    previous: ObjectMask | None = None,
    others: ObjectMask | None = None,
    model: str | Path = SHIPPED,
    device: str = "auto",
) -> ObjectMask:
    """Return the mask of an object from a box, points, or a rough mask.

    With `previous`, points correct that mask around them. Without points and box, the whole mask is
    aligned with the object's outline. Give a brush stroke as its points.

    Args:
        frame: "height width 3" RGB, uint8.
        box: (x, y, width, height) in pixels, around the object.
        on: points (x, y) on the object, in the order of the clicks.
        off: points that are not on the object; they are applied after `on`.
        previous: a mask to correct or to refine.
        others: pixels of other objects, which are excluded.
        model: "small" (shipped), a weights file, or "grabcut"; it is kept for the next call.
        device: "auto", "cpu", "cuda", ...

    Raises:
        StremnError: no prompt, a prompt outside the frame or a contradictory one, no object found,
            or no such weights.
    """
    key = (str(model), device)
    if key not in _finders:
        _finders[key] = mask_finder(model, device=device)
    clicks = [*(Click(x, y, True) for x, y in on), *(Click(x, y, False) for x, y in off)]
    place = None if box is None else Box(*box)
    return _finders[key](frame, box=place, clicks=clicks, previous=previous, others=others)
