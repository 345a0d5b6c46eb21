"""Keep the frames of a visitor's video as pictures on disk, for fast random access."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from stremn.errors import StremnError
from stremn.media.files import make_folder, write_whole
from stremn.media.frames import Frame, FrameSource, Picture
from stremn.media.video import open_frames

_QUALITY = 92
"""Of the JPEG pictures; what a browser is shown, and what marks are made on."""


class FrameShelf:
    """Frames of one video, decoded once, in order, up to the last one that was asked for.

    Attributes:
        count: frames that are shown; exact once the end of the video was reached.
        size: (height, width) in pixels.
        fps: frames per second, or None.
    """

    def __init__(self, video: Path, folder: Path, most: int) -> None:
        """Open a video.

        Args:
            video: its file.
            folder: for the pictures.
            most: frames that are kept, at most.

        Raises:
            StremnError: it cannot be read as a video.
        """
        self._video = video
        self._folder = make_folder(folder)
        self._lock = threading.Lock()
        self._source: FrameSource = open_frames(video)
        self.size = (self._source.size[0], self._source.size[1])
        self.fps = self._source.fps
        self.count = most
        self._frames: Iterator[Frame] = iter(self._source)
        self._next = 0
        self._closed = False
        self._most = most
        self._declared = self._source.count
        self._goes_on = False  # after the frames that are kept, as far as is known
        if self._declared is not None:
            self.count = min(self._declared, most)
            self._goes_on = self._declared > most
        else:  # the header does not say, so the frames are counted
            self._advance(most - 1)
            self._goes_on = self.count == most and self._has_another()

    @property
    def notice(self) -> str:
        """What a visitor should know of a video that is cut; "" if it is not."""
        if not self._goes_on or self.count < self._most:  # it may end before it says
            return ""
        if self._declared is None:
            return (
                f"The video is cut after {self.count} frames. To open more of it, start the page "
                "with a larger --max-frames."
            )
        return (
            f"The video is cut after {self.count} of its {self._declared} frames. To open all of "
            f"it, start the page with --max-frames {self._declared}."
        )

    def path(self, index: int) -> Path:
        """Return the JPEG picture of a frame.

        Raises:
            StremnError: there is no such frame, or it cannot be decoded.
        """
        path = self._folder / f"{index}.jpg"
        if not path.is_file():
            with self._lock:
                self._advance(index)
        if not path.is_file():
            raise StremnError(f"The video has no frame {index}; it has {self.count}, 0 is first.")
        return path

    def picture(self, index: int) -> Picture:
        """Return a frame as RGB; raises as `path`."""
        pixels = cv2.imdecode(np.fromfile(self.path(index), np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None  # written by `put`
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)

    def put(self, frame: Frame) -> None:
        """Store a frame that was decoded elsewhere."""
        path = self._folder / f"{frame.index}.jpg"
        if not path.is_file() and not self._closed:
            _write(path, frame.image)

    def _advance(self, index: int) -> None:
        """Decode up to a frame."""
        while self._next <= min(index, self.count - 1) and not self._closed:
            try:
                frame = next(self._frames, None)
            except StremnError:
                if self._next == 0:
                    raise
                frame = None  # a damaged video ends here
            if frame is None:
                self.count = self._next
                return
            self._next += 1
            self.put(frame)

    def _has_another(self) -> bool:
        """Return whether a frame follows the last one that was decoded; it is not stored."""
        try:
            return next(self._frames, None) is not None
        except StremnError:  # a damaged video ends here
            return False

    def close(self) -> None:
        """Close the video; the pictures are removed with their folder."""
        self._closed = True
        with self._lock:
            self._source.close()


def _write(path: Path, image: Picture) -> None:
    quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)[1]
    write_whole(path, content.tobytes(), durable=False)
