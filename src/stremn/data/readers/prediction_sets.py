"""Clips for prediction by name, as recipes and the command line ask for them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from stremn.core.config import Config
from stremn.data.readers.digits import hidden_digit, moving_digits, read_digits
from stremn.data.readers.frame_clips import FrameClips, Split, video_folder
from stremn.data.readers.human import HumanWalking
from stremn.data.readers.kth import kth
from stremn.data.readers.natural_clips import natural
from stremn.data.readers.paths import place
from stremn.data.readers.photo_pans import photo_pans
from stremn.errors import StremnError

AWAY = 12
"""Frames for which the hidden digit is away."""

Kind = Literal[
    "moving-digits", "hidden-digit", "kth", "human-walking", "folder", "natural", "photo-pans"
]


class ClipsSection(Config):
    """Which clips. `size`, `side` and `step` as in the sources; videos are resized to `size`."""

    kind: Kind
    path: str
    size: PositiveInt = 64
    side: PositiveInt = 28
    step: float = Field(default=0.1, gt=0, lt=1)
    channels: Literal[1, 3] = 1
    away: PositiveInt = AWAY
    """Of the hidden digit: frames for which it is away."""
    others: NonNegativeInt = 1
    """Of the hidden digit: digits that stay in view."""
    alone: float = Field(default=0.0, ge=0, le=1)
    """Of the hidden digit: share of the training clips in which no other digit is in view."""
    distortion: float = Field(default=0.0, ge=0, le=1)
    """Of the hidden digit: how far training digits are turned, sheared and stretched at random."""
    stride: PositiveInt = 1
    """Of folders of videos: video frames from one clip frame to the next."""
    own_size: bool = False
    """Of natural video that is held out: whole frames at their own size, one clip at a time."""
    persons: tuple[int, ...] | None = None
    """Of KTH: other persons than the split's, for smoke tests."""


def open_clips(
    data: ClipsSection, split: Split, *, observed: int, future: int, length: int, seed: int = 0
) -> FrameClips:
    """Return the clips of a split, `observed + future` frames long.

    Args:
        data: which clips, and where.
        split: which part.
        observed: frames before the first to predict; where the hidden digit returns.
        future: frames to predict.
        length: number of clips, for generated data.
        seed: for generated data; training adds it to a number that no other split uses.
    """
    root, frames = place(data.path), observed + future
    start = {"train": 1_000 + seed, "val": 1, "test": 2}[split]
    if data.kind == "moving-digits":
        digits = read_digits(root, split)
        return moving_digits(digits, length, frames, data.size, data.side, 2, data.step, start)
    if data.kind == "hidden-digit":
        if observed <= data.away:
            raise StremnError(
                f"The hidden digit is away for {data.away} frames, so more must be observed; got "
                f"observed={observed}."
            )
        return hidden_digit(
            read_digits(root, split),
            length,
            observed - data.away,
            data.away,
            future,
            data.size,
            data.side,
            data.step,
            start,
            data.others,
            *((data.alone, data.distortion) if split == "train" else (0.0, 0.0)),
        )
    if data.kind == "kth":
        return kth(root, split, frames, data.size, data.persons)
    if data.kind == "human-walking":
        return HumanWalking(root, split, frames, data.size)
    if data.kind == "photo-pans":
        return photo_pans(root, split, frames, data.size, length=length, seed=start)
    if data.kind == "natural":
        size = None if data.own_size else data.size
        return natural(root, split, frames, size, length=length, seed=start)
    return video_folder(root, split, frames, data.size, data.channels, data.stride)
