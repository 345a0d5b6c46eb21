"""Objects marked by box and points, in any frame: `id=2 box=x,y,w,h on=x,y off=x,y at=120`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

from stremn.errors import StremnError
from stremn.media.finding import (
    Click,
    MaskFinder,
    NothingFoundError,
    check_place,
    find_in_box,
)
from stremn.media.frames import FrameSource, Picture
from stremn.media.masks import LabelMap, label_map
from stremn.media.prompts import Box, parse_box, parse_points
from stremn.media.ranges import frame_of

KEYS = ("id", "box", "on", "off", "at")
LARGEST_ID = 65535


@dataclass(frozen=True)
class ObjectPrompt:
    """A prompt for one object.

    Attributes:
        id: of the object, from 1.
        box: around it, or None.
        clicks: points on and off it.
        at: index of the frame.
    """

    id: int
    box: Box | None
    clicks: tuple[Click, ...]
    at: int

    @property
    def says_where(self) -> bool:
        """Whether it marks an object, and not only corrects its mask."""
        return self.box is not None or any(click.on for click in self.clicks)


def parse_object(text: str, frames: FrameSource | None = None) -> ObjectPrompt:
    """Read "id=2 box=x,y,w,h on=x,y off=x,y at=120".

    `on` and `off` may be repeated; "on=x,y;x,y;x,y" is a stroke.

    Args:
        text: what to read.
        frames: the video: without `at` its first frame that is read is meant, and `at` may be any
            moment (see `stremn.media.ranges`). None: frame 0, and numbers only.

    Raises:
        StremnError: an unknown key, a value that is none, or neither box nor points.
    """
    number, at = 1, 0 if frames is None else frames.start
    box: Box | None = None
    clicks: list[Click] = []
    for part in text.split():
        key, equals, value = part.partition("=")
        if not equals or key not in KEYS:
            raise StremnError(
                f"--object cannot understand {part!r}: write key=value with the keys "
                f'{", ".join(KEYS)}, as in "id=2 box=120,80,200,150 on=200,140 at=0".'
            )
        if key == "id":
            number = _whole(key, value, 1, LARGEST_ID)
        elif key == "at":
            at = _frame(value, frames)
        elif key == "box":
            box = parse_box(value)
        else:
            clicks += [Click(x, y, key == "on") for x, y in parse_points(value)]
    if box is None and not clicks:
        raise StremnError(
            f"--object {text!r} needs a box= or an on= that says where it is, or an off= that "
            "corrects it."
        )
    return ObjectPrompt(number, box, tuple(clicks), at)


def _frame(value: str, frames: FrameSource | None) -> int:
    if frames is not None and ("s" in value or ":" in value):
        return frame_of(frames, value, "--object: at")
    return _whole("at", value, 0, 2**31)


def _whole(key: str, value: str, least: int, most: int) -> int:
    if not value.isdecimal() or not least <= int(value) <= most:
        raise StremnError(
            f"--object: {key} is a whole number from {least} to {most}, got {value!r}."
        )
    return int(value)


def find_objects(
    frame: Picture, prompts: Sequence[ObjectPrompt], begun: LabelMap | None, find: MaskFinder
) -> LabelMap:
    """Return the label map of a frame's prompts, segmented one after the other.

    Points correct an object that is known already; a box gives it again. A pixel that belongs to an
    object is not given to the next, except to an object in a box that lies wholly on others. Of the
    boxes small ones come first, so that a ball in front of a man is not lost in the man's mask.

    Args:
        frame: RGB.
        prompts: of this frame.
        begun: objects that are known, or None.
        find: what finds an object.

    Raises:
        StremnError: a prompt does not fit the frame, corrects what is not there, lies on another
            object, or finds nothing.
    """
    shape = frame.shape[:2]
    labels = np.zeros(shape, np.int64) if begun is None else begun.labels.astype(np.int64)
    for prompt in _small_boxes_first(prompts):
        known, others = labels == prompt.id, (labels > 0) & (labels != prompt.id)
        previous = known if known.any() and prompt.box is None else None
        if previous is None and not prompt.says_where:
            raise nothing_to_correct(prompt)
        check_place((shape[0], shape[1]), prompt.box, prompt.clicks)
        _check_free(prompt, labels)
        try:
            if prompt.box is None:
                found = find(frame, clicks=prompt.clicks, previous=previous, others=others)
            else:
                found = find_in_box(find, frame, prompt.box, others, prompt.clicks)
        except NothingFoundError as error:
            if len(prompts) == 1:
                raise
            raise NothingFoundError(f"Object {prompt.id}: {error}") from error
        labels[known] = 0
        labels[found] = prompt.id
    return label_map(labels)


def _small_boxes_first(prompts: Sequence[ObjectPrompt]) -> list[ObjectPrompt]:
    """Sort the prompts with boxes among themselves; those without keep their turn."""

    def area(prompt: ObjectPrompt) -> float:
        return prompt.box.width * prompt.box.height if prompt.box is not None else 0.0

    boxes = iter(sorted((prompt for prompt in prompts if prompt.box is not None), key=area))
    return [prompt if prompt.box is None else next(boxes) for prompt in prompts]


def refine_objects(frame: Picture, begun: LabelMap, find: MaskFinder) -> LabelMap:
    """Align the objects of a rough label map with their outlines in the frame.

    An object that is lost in this stays as it was.
    """
    labels = begun.labels.astype(np.int64)
    for number in begun.ids:
        known, others = labels == number, (labels > 0) & (labels != number)
        labels[known] = 0
        labels[find(frame, previous=known, others=others)] = number
    return label_map(labels)


def nothing_to_correct(prompt: ObjectPrompt) -> StremnError:
    """Return the error of a prompt that removes pixels of an object that does not exist."""
    return StremnError(
        f"Object {prompt.id} is not in frame {prompt.at} yet, so that off= has nothing to correct: "
        "say where it is with box= or on=."
    )


def _check_free(prompt: ObjectPrompt, labels: Integer[np.ndarray, "height width"]) -> None:
    """Refuse a point on an object that lies on another one."""
    for x, y, on in prompt.clicks:
        other = int(labels[int(y), int(x)])
        if on and other not in (0, prompt.id):
            raise StremnError(
                f"The point {x:g},{y:g} of object {prompt.id} lies on object {other} already. "
                f'Remove it from that object first: --object "id={other} ... off={x:g},{y:g}".'
            )
