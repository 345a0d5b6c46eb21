"""Frames of one video, one at a time: the common form of all inputs."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np
from jaxtyping import UInt8

from stremn.errors import StremnError

SQUARE = Fraction(1)
"""Pixel aspect of most videos."""

Picture = UInt8[np.ndarray, "height width 3"]


class Shot(NamedTuple):
    """A picture of a video, and the seconds from the first one to it; None if it has no time."""

    image: Picture
    time: float | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a video: its index from 0, its name (file stem or five digits), its RGB.

    time: seconds from the video's first frame, as the file says; None where it says nothing.
    file_name: of the image that it was read from; None if it is of a video.
    """

    index: int
    name: str
    image: Picture
    time: float | None = None
    file_name: str | None = None

    @property
    def file(self) -> str:
        """The image's file name; for a frame of a video that of its mask."""
        return self.file_name or f"{self.name}.png"


class Recording(Protocol):
    """A complete input, which can be read in any order."""

    def count(self) -> int:
        """Return how many frames there are; it may read the whole file, but decodes nothing."""
        ...

    def frame_at(self, seconds: float) -> int:
        """Return the first frame that is shown at that time or later.

        After the end the count goes on at the average rate, so that it tells how much too late a
        time is.

        Raises:
            StremnError: its frames have no times.
        """
        ...

    def backward(self, first: int, last: int) -> Iterator[Shot]:
        """Yield the frames from `last` down to `first`; a few are held at a time.

        Raises:
            StremnError: it cannot be read so.
        """
        ...


def frame_name(index: int) -> str:
    """Name of a frame that has none of its own: the index in (at least) five digits."""
    return f"{index:05d}"


class FrameSource:
    """Frames of one video, read one at a time; iterate once, then close.

    Attributes:
        label: what is read, for messages.
        fps: frames per second, or None where the input has no rate (images, arrays).
        size: (height, width) in pixels after rotation; (0, 0) if no frame is left after `start`.
        count: frames from the very first one, as far as the input says; None if unknown.
        names: the name of each frame where they are known beforehand (images), else None.
        files: the file name of each, where they are images.
        start: index of the first frame that is given out.
        stop: index of the first frame that is no longer given out; None: all are.
        live: it goes on by itself, as cameras and addresses do.
        pixel_aspect: width of a pixel by its height, as it is to be shown.
        sound: the file that holds its sound, if it is a file that may.
        recording: what more can be asked of it; None if it can only be read on.
    """

    def __init__(
        self,
        images: Iterator[Shot],
        *,
        label: str,
        fps: float | int | None = None,
        count: int | None = None,
        names: tuple[str, ...] | None = None,
        files: tuple[str, ...] | None = None,
        start: int = 0,
        live: bool = False,
        recording: Recording | None = None,
        pixel_aspect: Fraction = SQUARE,
        sound: Path | None = None,
    ) -> None:
        self.label = label
        self.stop: int | None = None
        self.recording = recording
        self.pixel_aspect = pixel_aspect
        self.sound = sound
        self.live = live
        self.fps = fps
        self.count = count
        self.names = names
        self.files = files
        self.start = start
        self._images = images
        self._first = next(images, None)
        if self._first is None and start == 0:
            self.close()
            raise StremnError(f"{label} holds no frame. Check that it plays, or give another one.")
        self.size = (0, 0) if self._first is None else self._first.image.shape[:2]

    def peek(self) -> Frame:
        """Return the first frame before iteration begins.

        Raises:
            StremnError: there is none after `start`, or iteration has begun.
        """
        if self._first is None:
            raise StremnError(f"{self.label} holds no frame at {self.start}, or it was read.")
        return self._frame(self.start, self._first)

    def _frame(self, index: int, shot: Shot) -> Frame:
        file = None if self.files is None else self.files[index]
        return Frame(index, self.name(index), shot.image, shot.time, file)

    def name(self, index: int) -> str:
        """Name of the frame at `index`."""
        return frame_name(index) if self.names is None else self.names[index]

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order; a damaged input ends in a StremnError after the good ones."""
        if self._first is None:
            return
        shot: Shot | None = self._first
        self._first = None
        index = self.start
        while shot is not None and (self.stop is None or index < self.stop):
            self._check_size(index, shot.image)
            yield self._frame(index, shot)
            index += 1
            shot = next(self._images, None)

    def backward(self, first: int, last: int) -> Generator[Frame]:
        """Yield the frames from `last` down to `first`, whatever was iterated before.

        Raises:
            StremnError: this input cannot be read backward, or it is damaged there.
        """
        if self.recording is None:
            raise StremnError(
                f"{self.label} cannot be read backward, only as it comes. Record it first, and "
                "give the file."
            )
        shots = self.recording.backward(first, last)
        for index, shot in zip(range(last, first - 1, -1), shots, strict=True):
            self._check_size(index, shot.image)
            yield self._frame(index, shot)

    def _check_size(self, index: int, image: Picture) -> None:
        if image.shape[:2] != self.size:
            raise StremnError(
                f"{self.label} changes size at frame {self.name(index)}: expected "
                f"{size_text(self.size)} like the frames before, got "
                f"{size_text(image.shape[:2])}. Give the two parts one by one, or resize "
                "the frames first."
            )

    def close(self) -> None:
        """Release the file, camera or connection."""
        close = getattr(self._images, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def size_text(size: tuple[int, ...]) -> str:
    """Return a size as text, width first."""
    return f"{size[1]}x{size[0]}"
