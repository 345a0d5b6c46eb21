"""The masks a user gives for a video: files, a box, or points on the object."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from stremn.errors import StremnError
from stremn.media.finding import Click, MaskFinder, grab_cut
from stremn.media.frames import Frame, FrameSource
from stremn.media.mask_check import diagnose
from stremn.media.mask_sets import open_masks
from stremn.media.masks import LabelMap
from stremn.media.object_prompts import ObjectPrompt, find_objects, parse_object
from stremn.media.prompts import parse_box, parse_points

logger = logging.getLogger(__name__)

MaskOf = Callable[[Frame], LabelMap | None]
"""The mask given for a frame, or None."""


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
    before anything is computed.

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
    if exclude is not None and (mask is not None or not given):
        raise StremnError("--exclude goes with --box or --click.")
    files = None if mask is None else _from_files(frames, mask)
    prompts = [parse_object(text) for text in objects]
    if box is not None or click is not None:
        prompts.insert(0, _short_form(box, click, exclude))
    return _with_prompts(frames, files, prompts, find) if prompts else files or _no_mask


def _no_mask(frame: Frame) -> LabelMap | None:
    return None


def _short_form(box: str | None, click: str | None, exclude: str | None) -> ObjectPrompt:
    """Return object 1 in the first frame, as --box or --click and --exclude give it."""
    on = [Click(x, y, True) for x, y in parse_points(click)] if click is not None else []
    off = [Click(x, y, False) for x, y in parse_points(exclude)] if exclude else []
    return ObjectPrompt(1, None if box is None else parse_box(box), (*on, *off), 0)


def _with_prompts(
    frames: FrameSource, files: MaskOf | None, prompts: Sequence[ObjectPrompt], find: MaskFinder
) -> MaskOf:
    """Return masks from files, and over them the objects that prompts find in their frames."""

    def mask_of(frame: Frame) -> LabelMap | None:
        begun = files(frame) if files is not None else None
        here = [prompt for prompt in prompts if prompt.at == frame.index]
        return find_objects(frame.image, here, begun, find) if here else begun

    numbers = [(prompt.id, prompt.at) for prompt in prompts]
    for number, at in numbers:
        if numbers.count((number, at)) > 1:
            raise StremnError(f"Object {number} is given twice in frame {at}; say it once.")
    count = frames.count
    late = max(prompt.at for prompt in prompts)
    if count is not None and late >= count:
        raise StremnError(
            f"--object names frame {late}, but the video has {count} frames (0 first)."
        )
    first = mask_of(frames.peek())  # a mistake comes out before anything is computed
    if first is None:
        raise StremnError(
            "No object is given in the first frame: give one --object without at=, or a --mask."
        )
    return lambda frame: first if frame.index == 0 else mask_of(frame)


def _from_files(frames: FrameSource, mask: Path) -> MaskOf:
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
