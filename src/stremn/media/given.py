"""Read the masks that a user gives for a video: files, a box, or points."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from stremn.errors import StremnError
from stremn.media.finding import Click, MaskFinder, check_place, grab_cut
from stremn.media.frames import Frame, FrameSource
from stremn.media.mask_check import diagnose
from stremn.media.mask_sets import MaskSet, open_masks
from stremn.media.masks import LabelMap, Labels, label_map
from stremn.media.object_prompts import (
    ObjectPrompt,
    find_objects,
    nothing_to_correct,
    parse_object,
)
from stremn.media.prompts import parse_box, parse_points
from stremn.media.ranges import frame_of

logger = logging.getLogger(__name__)

Correction = Callable[[Labels], LabelMap | None]
"""From what was segmented in a frame to the masks that its prompts make of it, if any."""

MaskOf = Callable[[Frame], LabelMap | Correction | None]
"""What is given for a frame: a mask, a correction of what is segmented in it, or nothing.

For the first frame that has something, that is a mask.
"""


def first_mask(mask_of: MaskOf, frame: Frame) -> LabelMap:
    """Return the mask given for the first frame that has one."""
    mask = mask_of(frame)
    assert isinstance(mask, LabelMap)  # `masks_for` sees to that
    return mask


@dataclass(frozen=True)
class GivenMasks:
    """The masks given for some frames of a video; calling it with a frame gives that frame's.

    Attributes:
        frames: indices of the frames that have one, ascending; at least one.
        mask_of: what gives the mask of a frame.
        corrections: those of `frames` in which no object is marked, only corrected.
    """

    frames: tuple[int, ...]
    mask_of: MaskOf
    corrections: frozenset[int] = frozenset()

    @property
    def last(self) -> int:
        """The last frame in which an object is marked: a pass backward can begin there."""
        return max(index for index in self.frames if index not in self.corrections)

    def __call__(self, frame: Frame) -> LabelMap | Correction | None:
        """Return what is given for a frame, or None."""
        return self.mask_of(frame)


def masks_for(
    frames: FrameSource,
    mask: Path | None = None,
    box: str | None = None,
    click: str | None = None,
    exclude: str | None = None,
    objects: Sequence[str] = (),
    find: MaskFinder = grab_cut,
    *,
    at: int | str | None = None,
) -> GivenMasks:
    """Return the given masks of `frames`, from a mask file, a box, points or objects.

    Masks of frames that are not read (before `frames.start`, from `frames.stop` on) are left out.
    A mask of the first frame that is read is found at once, and the first mask file is read at
    once: a mistake in it comes out before anything is computed. Points of a later frame correct
    what was segmented there; where they find nothing, that stays, with a warning.

    Args:
        frames: the video, from the first frame that is wanted on, not iterated yet.
        mask: a file for the frame `at`, or a folder (by frame or by object).
        box: "x,y,width,height" around the object in the frame `at`.
        click: "x,y x,y ..." points on the object in the frame `at`.
        exclude: points that are not on it; with `box` or `click`.
        objects: "id=2 box=x,y,w,h on=x,y off=x,y at=120" for each object, at any frame; with
            `mask`, `box` or `click` too.
        find: what finds an object from a box or points.
        at: a frame number or a moment (see `stremn.media.ranges`); None is the first frame.

    Raises:
        StremnError: none of the ways, or more than one; masks that are not there, or for frames
            that are not there; a first mask that cannot be used.
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
    first = frames.start if at is None else frame_of(frames, at, "--at")
    prompts = parse_prompts(box, click, exclude, objects, frames, first)
    files = None if mask is None else _masks_in(frames, mask, first, at)
    check_prompts(frames, prompts, known=files is not None)
    known = {*(files.frames if files is not None else ()), *(prompt.at for prompt in prompts)}
    there = tuple(sorted(index for index in known if _is_read(frames, index)))
    if not there:
        raise StremnError(_NOTHING_READ.format(_listed(known), _span(frames)))
    return _checked(frames, there, files, prompts, find)


_NOTHING_READ = (
    "Objects are given in {0}, but only frames {1} are read. Give a mask, box or click for one of "
    "these (--at says for which), or change --start and --end."
)


def _is_read(frames: FrameSource, index: int) -> bool:
    return frames.start <= index and (frames.stop is None or index < frames.stop)


def _listed(indices: Collection[int]) -> str:
    shown = [str(index) for index in sorted(indices)[:3]]
    more = ", ..." if len(indices) > len(shown) else ""
    return f"frame{'s' if len(indices) > 1 else ''} {', '.join(shown)}{more}"


def _span(frames: FrameSource) -> str:
    end = "and later" if frames.stop is None else f"to {frames.stop - 1}"
    return f"{frames.start} {end}"


def parse_prompts(
    box: str | None,
    click: str | None,
    exclude: str | None,
    objects: Sequence[str],
    frames: FrameSource | None = None,
    first: int = 0,
) -> list[ObjectPrompt]:
    """Read prompts as the command line takes them; see `masks_for`.

    `frames` is as in `parse_object`; `first` is the frame of box and clicks.

    Raises:
        StremnError: a text that is none, or `exclude` alone.
    """
    if exclude is not None and box is None and click is None:
        raise StremnError("--exclude goes with --box or --click.")
    prompts = [parse_object(text, frames) for text in objects]
    if box is not None or click is not None:
        prompts.insert(0, _short_form(box, click, exclude, first))
    return prompts


def _short_form(box: str | None, click: str | None, exclude: str | None, at: int) -> ObjectPrompt:
    """Return object 1 in the frame `at`, as --box or --click and --exclude give it."""
    on = [Click(x, y, True) for x, y in parse_points(click)] if click is not None else []
    off = [Click(x, y, False) for x, y in parse_points(exclude)] if exclude else []
    return ObjectPrompt(1, None if box is None else parse_box(box), (*on, *off), at)


def _checked(
    frames: FrameSource,
    there: tuple[int, ...],
    files: MaskSet | None,
    prompts: Sequence[ObjectPrompt],
    find: MaskFinder,
) -> GivenMasks:
    """Return the masks of the frames `there`; the first one is checked at once."""
    found: dict[int, LabelMap | None] = {}

    def first(frame: Frame) -> LabelMap | None:
        if frame.index not in found:
            begun = files.at(frame.index) if files is not None else None
            here = [prompt for prompt in prompts if prompt.at == frame.index]
            found[frame.index] = find_objects(frame.image, here, begun, find) if here else begun
        return found[frame.index]

    def mask_of(frame: Frame) -> LabelMap | Correction | None:
        if frame.index == there[0]:
            return first(frame)
        given = files.at(frame.index) if files is not None else None
        here = [prompt for prompt in prompts if prompt.at == frame.index]
        return partial(_corrected, frame, here, given, find) if here else given

    if there[0] == frames.start:
        first(frames.peek())
    elif files is not None and there[0] in files.frames:
        files.at(there[0])
    marked = {prompt.at for prompt in prompts if prompt.says_where}
    marked |= {there[0], *(files.frames if files is not None else ())}
    return GivenMasks(there, mask_of, frozenset(there) - marked)


def _corrected(
    frame: Frame,
    prompts: Sequence[ObjectPrompt],
    given: LabelMap | None,
    find: MaskFinder,
    segmented: Labels,
) -> LabelMap | None:
    """Return the masks of a frame's files and prompts; prompts correct the segmented mask.

    A prompt that gives no mask is reported and left out: much of the video may be done by then.
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


def _masks_in(frames: FrameSource, mask: Path, first: int, at: int | str | None) -> MaskSet:
    masks = open_masks(mask, frames.size, frames.names, first=first)
    if at is not None and masks.kind == "frames":
        raise StremnError(
            f"The masks in {mask} are named by their frames, so --at {at} has no effect; leave "
            "it out."
        )
    count = frames.count
    if count is not None and masks.frames[-1] >= count:
        raise StremnError(
            f"{mask} holds a mask for frame {masks.frames[-1]}, but the video has {count} frames "
            "(0 first)."
        )
    earliest = masks.at(masks.frames[0])
    for problem in () if earliest is None else diagnose(earliest.labels).problems:
        if problem.kind in ("full", "inverted"):
            logger.warning("The mask %s: %s", mask, problem.text)
    for index in masks.frames[1:]:  # a mistake is told before anything is computed
        if _is_read(frames, index):
            masks.at(index)
    return masks
