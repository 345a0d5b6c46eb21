"""The masks a user gives for a video: files, a box, or points on the object."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stremn.errors import StremnError
from stremn.media.frames import Frame, FrameSource
from stremn.media.mask_sets import open_masks
from stremn.media.masks import LabelMap, label_map
from stremn.media.prompts import box_mask, clicks_mask, parse_box, parse_points

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

    Args:
        frames: the video.
        mask: a file for the first frame, or a folder (by frame or by object).
        box: "x,y,width,height" round the object in the first frame.
        click: "x,y x,y ..." points on the object in the first frame.
        exclude: points that are not on it.

    Raises:
        StremnError: none of the ways, or more than one; masks that are not there.
    """
    ways = [way for way in (mask, box, click) if way is not None]
    if len(ways) != 1:
        raise StremnError(
            "Say which object to follow in one way: --mask FILE (or a folder of masks), --box "
            f"x,y,w,h or --click x,y; got {len(ways)} of them."
        )
    if mask is not None:
        masks = open_masks(mask, frames.size, frames.names)
        if not masks.frames or min(masks.frames) > 0:
            raise StremnError(
                f"{mask} holds no mask for the first frame ({frames.name(0)}): objects can enter "
                "later, but one must be there at the start."
            )
        return lambda frame: masks.at(frame.index)
    return lambda frame: _prompted(frame, box, click, exclude) if frame.index == 0 else None


def _prompted(frame: Frame, box: str | None, click: str | None, exclude: str | None) -> LabelMap:
    """Return object 1, found by GrabCut from a box or points."""
    if box is not None:
        return label_map(box_mask(frame.image, parse_box(box)))
    outside = parse_points(exclude) if exclude else []
    return label_map(clicks_mask(frame.image, parse_points(click or ""), outside))
