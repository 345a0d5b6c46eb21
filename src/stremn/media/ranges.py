"""Parse moments of a video (frames, seconds, timecodes), and find the frames between two.

A moment is

- a frame number, from 0: `300`
- seconds from the first frame: `12.5s`
- a timecode: `01:02.5` (minutes), `00:01:02.5` (hours), or `00:01:02:12`, whose last number counts
  frames after the second.

A time means the first frame that is shown then or later. In files whose frames follow one another
unevenly, it is looked up in the file.
"""

import math
import re
from dataclasses import dataclass
from typing import NamedTuple

from stremn.errors import StremnError
from stremn.media.frames import FrameSource

LARGEST_FRAME = 2**31

_SECONDS = re.compile(r"(\d+(?:\.\d*)?|\.\d+)s")
_TIMECODE = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d*)?)(?::(\d+))?")


@dataclass(frozen=True)
class Moment:
    """A frame, or a time and frames after it.

    Attributes:
        text: as it was written.
        seconds: from the first frame; None: only `frames` counts.
        frames: index of the frame, or frames after `seconds`.
    """

    text: str
    seconds: float | None
    frames: int

    def frame_of(self, source: FrameSource) -> int:
        """Return the index of its frame; the number of frames, or more, if it lies after the end.

        Raises:
            StremnError: it is a time, and the input has no frame rate.
        """
        if self.seconds is None:
            return self.frames
        if source.recording is not None:
            return source.recording.frame_at(self.seconds) + self.frames
        if source.fps is None:
            raise StremnError(
                f"{source.label} has no frame rate, so {self.text} is at no frame of it. Give a "
                "frame number."
            )
        return frames_until(self.seconds, source.fps) + self.frames


def frames_until(seconds: float, rate: float) -> int:
    """Return how many frames begin before that time, at `rate` frames per second from 0 on."""
    return max(0, math.ceil(seconds * rate - _ROUNDING))


_ROUNDING = 1e-6
"""Frames by which a time may be late without missing its frame: a third of a second has no end."""


class Range(NamedTuple):
    """Frames from `start` up to, but without, `end`; None: to the last."""

    start: int
    end: int | None


def parse_moment(text: str, name: str = "A moment") -> Moment:
    """Read a moment; `name` says in messages what it is for.

    Raises:
        StremnError: it is none.
    """
    given = text.strip()
    if given.isdecimal() and int(given) <= LARGEST_FRAME:
        return Moment(text, None, int(given))
    if found := _SECONDS.fullmatch(given):
        return Moment(text, float(found[1]), 0)
    if (found := _TIMECODE.fullmatch(given)) and (found[1] is not None or found[4] is None):
        hours, minutes, seconds, frames = found.groups()
        whole = int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds)
        if int(minutes) < 60 and float(seconds) < 60 and not (frames and "." in seconds):
            return Moment(text, whole, int(frames or 0))
    raise StremnError(
        f"{name} cannot be understood: {text!r}. Write a frame number (300), seconds (12.5s), or "
        "a timecode (00:01:02.5, or with frames 00:01:02:12)."
    )


def frames_within(source: FrameSource, start: int | str | None, end: int | str | None) -> Range:
    """Return the frames of a video from one moment up to, but without, another.

    Args:
        source: the video; it is not iterated.
        start: first frame, as a number or a moment; None is the video's first.
        end: the first frame that does not belong to it any more; None: there is none.

    Raises:
        StremnError: a moment that is none, or a range that is not in the video or empty. An end
            that lies after a live source's is not noticed.
    """
    first = 0 if start is None else frame_of(source, start, "--start")
    last = None if end is None else frame_of(source, end, "--end", at_end=True)
    if last is not None and last <= first:
        raise StremnError(
            f"--end {end} is frame {last}, and --start is frame {first}: no frame is between them. "
            "The frame of --end itself is left out, so it must be a later one."
        )
    return Range(first, last)


def frame_of(
    source: FrameSource, moment: int | str, name: str = "A moment", *, at_end: bool = False
) -> int:
    """Return the index of a moment's frame, which is in the video; with `at_end`, or just after it.

    Raises:
        StremnError: it is no moment, or lies outside the video.
    """
    found = moment if isinstance(moment, int) else parse_moment(moment, name).frame_of(source)
    if found < 0:
        raise StremnError(f"{name} is frame 0 or later, got {found}.")
    recording = source.recording
    if recording is None or (found == 0 and not at_end):
        return found
    count = recording.count()
    if found > count or (found == count and not at_end):
        raise StremnError(
            f"{name} {moment} is after the end of {source.label}: its {count} frames are 0 to "
            f"{count - 1}{_seconds(source, count)}."
        )
    return found


def _seconds(source: FrameSource, count: int) -> str:
    return f", {count / source.fps:.2f} seconds" if source.fps else ""
