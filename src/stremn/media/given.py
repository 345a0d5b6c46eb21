"""The masks a user gives for a video: files, a box, or points on the object."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from stremn.errors import StremnError
from stremn.media.finding import Click, MaskFinder, check_place, grab_cut
from stremn.media.frames import Frame, FrameSource
from stremn.media.mask_check import diagnose
from stremn.media.mask_sets import open_masks
from stremn.media.masks import LabelMap, Labels, label_map
from stremn.media.object_prompts import (
    ObjectPrompt,
    find_objects,
    nothing_to_correct,
    parse_object,
)
from stremn.media.prompts import parse_box, parse_points

logger = logging.getLogger(__name__)

Correction = Callable[[Labels], LabelMap | None]
"""From what was segmented in a frame to the masks that its prompts make of it, if any."""

FileMasks = Callable[[Frame], LabelMap | None]
"""The mask in a file for a frame, or None."""

MaskOf = Callable[[Frame], LabelMap | Correction | None]
"""What is given for a frame: a mask, a correction of what is segmented in it, or nothing.

For the first frame, that is a mask.
"""


def first_mask(mask_of: MaskOf, frame: Frame) -> LabelMap:
    """Return the mask given for the first frame."""
    mask = mask_of(frame)
    assert isinstance(mask, LabelMap)  # `masks_for` sees to that
    return mask


def masks_for(
    frames: FrameSource,
    mask: Path | None = None,
    box: str | None = None,
    click: str | None = None,
    exclude: str | None = None,
    objects: Sequence[str] = (),
    find: MaskFinder = grab_cut,
) -> MaskOf:
    """Return what gives the masks of `frames`, from one of the ways to say them.

    The first mask is read, or found from the box or points, at once: a mistake in it comes out
    before anything is computed. Points of a later frame correct what was segmented there; where
    they find nothing, that stays, with a warning.

    Args:
        frames: the video, from its first frame on, not iterated yet.
        mask: a file for the first frame, or a folder (by frame or by object).
        box: "x,y,width,height" round the object in the first frame.
        click: "x,y x,y ..." points on the object in the first frame.
        exclude: points that are not on it; with `box` or `click`.
        objects: "id=2 box=x,y,w,h on=x,y off=x,y at=120" for each object, at any frame; with
            `mask`, `box` or `click` too.
        find: what finds an object from a box or points.

    Raises:
        StremnError: none of the ways, or more than one; masks that are not there; a first mask
            that cannot be used.
    """
    ways = {"--mask": mask, "--box": box, "--click": click}
    given = [name for name, way in ways.items() if way is not None]
    if not given and not objects:
        raise StremnError(
            "Say which object to follow: --mask FILE (or a folder of masks), --box x,y,w,h, "
            '--click x,y or --object "box=x,y,w,h".'
        )
    if len(given) > 1:
        raise StremnError(
            f"Say which object to follow in one way; got {' and '.join(given)} together."
        )
    prompts = parse_prompts(box, click, exclude, objects)
    files = None if mask is None else _from_files(frames, mask)
    return _with_prompts(frames, files, prompts, find) if prompts else files or _no_mask


def _no_mask(frame: Frame) -> LabelMap | None:
    return None


def parse_prompts(
    box: str | None, click: str | None, exclude: str | None, objects: Sequence[str]
) -> list[ObjectPrompt]:
    """Read prompts as the command line takes them; see `masks_for`.

    Raises:
        StremnError: a text that is none, or `exclude` alone.
    """
    if exclude is not None and box is None and click is None:
        raise StremnError("--exclude goes with --box or --click.")
    prompts = [parse_object(text) for text in objects]
    if box is not None or click is not None:
        prompts.insert(0, _short_form(box, click, exclude))
    return prompts


def _short_form(box: str | None, click: str | None, exclude: str | None) -> ObjectPrompt:
    """Return object 1 in the first frame, as --box or --click and --exclude give it."""
    on = [Click(x, y, True) for x, y in parse_points(click)] if click is not None else []
    off = [Click(x, y, False) for x, y in parse_points(exclude)] if exclude else []
    return ObjectPrompt(1, None if box is None else parse_box(box), (*on, *off), 0)


def _with_prompts(
    frames: FrameSource, files: FileMasks | None, prompts: Sequence[ObjectPrompt], find: MaskFinder
) -> MaskOf:
    """Return masks from files, and over them the objects that prompts find in their frames."""
    check_prompts(frames, prompts, known=files is not None)
    start = frames.peek()
    begun = None if files is None else files(start)
    here = [prompt for prompt in prompts if prompt.at == 0]
    first = find_objects(start.image, here, begun, find) if here else begun
    if first is None:
        raise StremnError(
            "No object is given in the first frame: give one --object without at=, or a --mask."
        )

    def mask_of(frame: Frame) -> LabelMap | Correction | None:
        if frame.index == 0:
            return first
        given = files(frame) if files is not None else None
        here = [prompt for prompt in prompts if prompt.at == frame.index]
        return partial(_corrected, frame, here, given, find) if here else given

    return mask_of


def _corrected(
    frame: Frame,
    prompts: Sequence[ObjectPrompt],
    given: LabelMap | None,
    find: MaskFinder,
    segmented: Labels,
) -> LabelMap | None:
    """Return the masks of a frame's files and prompts, these on top of what was segmented.

    A prompt that leads to nothing is told and left out: much of the video may be done by then.
    """
    labels = segmented.astype(np.int64)
    if given is not None:
        labels[np.isin(labels, given.ids)] = 0
        labels = np.where(given.labels > 0, given.labels, labels)
    said = set() if given is None else set(given.ids)
    for prompt in prompts:
        try:
            labels = find_objects(frame.image, [prompt], label_map(labels), find).labels
        except StremnError as error:
            logger.warning("Object %d stays as it was in frame %d: %s", prompt.id, prompt.at, error)
        else:
            said.add(prompt.id)
    found = label_map(np.where(np.isin(labels, list(said)), labels, 0))
    return found if found.ids else None


def check_prompts(
    frames: FrameSource, prompts: Sequence[ObjectPrompt], *, known: bool = False
) -> None:
    """Refuse prompts that do not fit the video, before anything is computed.

    With `known` objects, say of a mask, those may be corrected.

    Raises:
        StremnError: an object twice in a frame, a frame or a place that the video does not have,
            or a correction of an object that is not there before.
    """
    numbers = [(prompt.id, prompt.at) for prompt in prompts]
    for number, at in numbers:
        if numbers.count((number, at)) > 1:
            raise StremnError(f"Object {number} is given twice in frame {at}; say it once.")
    count = frames.count
    late = max((prompt.at for prompt in prompts), default=0)
    if count is not None and late >= count:
        raise StremnError(
            f"--object names frame {late}, but the video has {count} frames (0 first)."
        )
    for prompt in prompts:
        check_place(frames.size, prompt.box, prompt.clicks)
        before = any(other.id == prompt.id and other.at < prompt.at for other in prompts)
        if not (prompt.says_where or before or known):
            raise nothing_to_correct(prompt)


def _from_files(frames: FrameSource, mask: Path) -> FileMasks:
    masks = open_masks(mask, frames.size, frames.names)
    if not masks.frames or min(masks.frames) > 0:
        raise StremnError(
            f"{mask} holds no mask for the first frame ({frames.name(0)}): objects can enter "
            "later, but one must be there at the start."
        )
    first = masks.at(0)
    for problem in () if first is None else diagnose(first.labels).problems:
        if problem.kind in ("full", "inverted"):
            logger.warning("The mask %s: %s", mask, problem.text)
    return lambda frame: masks.at(frame.index)
