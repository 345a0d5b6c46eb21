"""Choose the frames of an overlay with a lower frame rate than its video."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from stremn.errors import StremnError

RATE_IF_UNKNOWN = 25.0
"""Frames per second of inputs that have no rate, such as images."""


@dataclass(frozen=True)
class Pace:
    """Frames per second of a video and of its overlay, and the first frame of both.

    Attributes:
        rate: of the video.
        shown: of the overlay, at most `rate`.
        first: index of the run's first frame.
    """

    rate: float
    shown: float
    first: int = 0

    @classmethod
    def of(cls, rate: float | None, wanted: float | None, first: int = 0) -> Pace:
        """Return the pace of an overlay with `wanted` frames per second; None is the video's own.

        Images have no rate of their own: all are shown, `wanted` a second.

        Raises:
            StremnError: no such rate, or more frames than there are.
        """
        if wanted is not None and not 0.01 <= wanted <= 1000:
            raise StremnError(f"--fps of the overlay is from 0.01 to 1000, got {wanted:g}.")
        if rate is None:
            rate = wanted or RATE_IF_UNKNOWN
        if wanted is not None and wanted > rate * (1 + 1e-3):
            raise StremnError(
                f"--fps {wanted:g} is more than the {rate:g} frames/s of the video: an overlay can "
                "leave frames out, and adds none."
            )
        return cls(rate, min(wanted or rate, rate), first)

    @property
    def encoded(self) -> Fraction:
        """The overlay's rate as files have it."""
        return Fraction(self.shown).limit_denominator(1001)

    @property
    def video_rate(self) -> Fraction:
        """The rate of the video as files have it."""
        return Fraction(self.rate).limit_denominator(1001)

    def shows(self, index: int) -> bool:
        """Return whether the overlay has the frame `index` of the video."""
        place, share = index - self.first, self.shown / self.rate
        return math.floor(place * share) > math.floor((place - 1) * share)

    def time(self, index: int) -> float:
        """Return the seconds from the first frame to another, where the video does not say."""
        return (index - self.first) / self.rate
