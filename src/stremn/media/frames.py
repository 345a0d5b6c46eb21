"""Frames of one video, one at a time: what every kind of input is read as."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import UInt8

from stremn.errors import StremnError

Picture = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a video: its index from 0, its name (file stem or five digits), its RGB.

    file_name: of the image that it was read from; None if it is of a video.
    """

    index: int
    name: str
    image: Picture
    file_name: str | None = None

    @property
    def file(self) -> str:
        """The image's file name; for a frame of a video that of its mask."""
        return self.file_name or f"{self.name}.png"


def frame_name(index: int) -> str:
    """Name of a frame that has none of its own: the index in (at least) five digits."""
    return f"{index:05d}"


class FrameSource:
    """Frames of one video, read one at a time; iterate once, then close.

    Attributes:
        label: what is read, in words for messages.
        fps: frames per second, or None where the input has no rate (images, arrays).
        size: (height, width) in pixels after rotation; (0, 0) if no frame is left after `start`.
        count: frames from the very first one, as far as the input says; None if unknown.
        names: the name of each frame where they are known beforehand (images), else None.
        files: the file name of each, where they are images.
        start: index of the first frame that is given out.
    """

    def __init__(
        self,
        images: Iterator[Picture],
        *,
        label: str,
        fps: float | int | None = None,
        count: int | None = None,
        names: tuple[str, ...] | None = None,
        files: tuple[str, ...] | None = None,
        start: int = 0,
        live: bool = False,
    ) -> None:
        self.label = label
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
        self.size = (0, 0) if self._first is None else self._first.shape[:2]

    def peek(self) -> Frame:
        """Return the first frame before iteration begins.

        Raises:
            StremnError: there is none after `start`, or iteration has begun.
        """
        if self._first is None:
            raise StremnError(f"{self.label} holds no frame at {self.start}, or it was read.")
        return self._frame(self.start, self._first)

    def name(self, index: int) -> str:
        """Name of the frame at `index`."""
        return frame_name(index) if self.names is None else self.names[index]

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order; a damaged input ends in a StremnError after the good ones."""
        if self._first is None:
            return
        image: Picture | None = self._first
        self._first = None
        index = self.start
        while image is not None:
            if image.shape[:2] != self.size:
                raise StremnError(
                    f"{self.label} changes size at frame {self.name(index)}: expected "
                    f"{_size_text(self.size)} like the frames before, got "
                    f"{_size_text(image.shape[:2])}. Give the two parts one by one, or resize "
                    "the frames first."
                )
            yield self._frame(index, image)
            index += 1
            image = next(self._images, None)

    def _frame(self, index: int, image: Picture) -> Frame:
        file = None if self.files is None else self.files[index]
        return Frame(index, self.name(index), image, file)

    def close(self) -> None:
        """Release the file, camera or connection."""
        close = getattr(self._images, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _size_text(size: tuple[int, ...]) -> str:
    """Return a size as text, width first."""
    return f"{size[1]}x{size[0]}"
