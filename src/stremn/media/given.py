"""The masks a user gives for a video: files, a box, or points on the object."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from stremn.errors import StremnError
from stremn.media.frames import Frame, FrameSource
from stremn.media.mask_check import diagnose
from stremn.media.mask_sets import open_masks
from stremn.media.masks import LabelMap, label_map
from stremn.media.prompts import box_mask, clicks_mask, parse_box, parse_points

logger = logging.getLogger(__name__)

MaskOf = Callable[[Frame], LabelMap | None]
"""The mask given for a frame, or None."""


def masks_for(
    frames: FrameSource,
    mask: Path | None = None,
    box: str | None = None,
    click: str | None = None,
    exclude: str | None = None,
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

    Raises:
        StremnError: none of the ways, or more than one; masks that are not there; a first mask
            that cannot be used.
    """
    ways = {"--mask": mask, "--box": box, "--click": click}
    given = [name for name, way in ways.items() if way is not None]
    if not given:
        raise StremnError(
            "Say which object to follow: --mask FILE (or a folder of masks), --box x,y,w,h or "
            "--click x,y."
        )
    if len(given) > 1:
        raise StremnError(
            f"Say which object to follow in one way; got {' and '.join(given)} together."
        )
    if exclude is not None and mask is not None:
        raise StremnError("--exclude goes with --box or --click, not with --mask.")
    if mask is not None:
        return _from_files(frames, mask)
    first = _prompted(frames.peek(), box, click, exclude)
    return lambda frame: first if frame.index == 0 else None


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


def _prompted(frame: Frame, box: str | None, click: str | None, exclude: str | None) -> LabelMap:
    """Return object 1, found by GrabCut from a box or points."""
    outside = parse_points(exclude) if exclude else []
    if box is not None:
        return label_map(box_mask(frame.image, parse_box(box), outside))
    return label_map(clicks_mask(frame.image, parse_points(click or ""), outside))
