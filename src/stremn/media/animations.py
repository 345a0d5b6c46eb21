"""Read animated WebP and PNG images as videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stremn.errors import StremnError
from stremn.media.frames import FrameSource, Shot
from stremn.media.pictures import opened_picture
from stremn.media.ranges import frames_until

_ANIMATED = frozenset({"WEBP", "PNG"})
_MILLISECONDS = 1000.0
_USUAL_DURATION = 100.0  # milliseconds, where an image gives none: what browsers take


def open_animation(path: Path, start: int) -> FrameSource | None:
    """Open an animated image from its frame `start` on; None if it is a still one.

    Raises:
        StremnError: it is damaged.
    """
    try:
        with opened_picture(path) as image:
            count = getattr(image, "n_frames", 1)
            if image.format not in _ANIMATED or count < 2:
                return None
            still = int(bool(image.info.get("default_image")))  # shown where there is no animation
    except OSError:
        return None  # whoever reads it as a still image tells
    stored = StoredAnimation(path, still)
    length = stored.seconds()
    return FrameSource(
        stored.forward(start),
        label=str(path),
        fps=stored.count() / length if length else None,
        count=stored.count(),
        start=start,
        recording=stored,
    )


class StoredAnimation:
    """A recording (see `Recording`) in an animated image; its times are read once, at first."""

    def __init__(self, path: Path, still: int = 0) -> None:
        """Take a file of which the first `still` pictures are no part of the animation."""
        self._path = path
        self._still = still
        self._times = [0.0]
        for _, duration in self._pictures():
            self._times.append(self._times[-1] + duration)

    def count(self) -> int:
        """Return how many frames there are."""
        return len(self._times) - 1

    def seconds(self) -> float:
        """Return how long it lasts."""
        return self._times[-1]

    def frame_at(self, seconds: float) -> int:
        """Return the first frame that is shown at that time or later (see `Recording`)."""
        end = self.seconds()
        if seconds > end:
            return self.count() + frames_until(seconds - end, self.count() / end)
        return int(np.searchsorted(self._times, seconds - 1e-6))

    def forward(self, start: int) -> Iterator[Shot]:
        """Yield the frames from `start` on."""
        for index, (picture, _) in enumerate(self._pictures(start)):
            yield Shot(picture, self._times[start + index])

    def backward(self, first: int, last: int) -> Iterator[Shot]:
        """Yield the frames from `last` down to `first`; each is built up again from the first."""
        for index in range(last, first - 1, -1):
            yield next(self.forward(index))

    def _pictures(self, start: int = 0) -> Iterator[tuple[np.ndarray, float]]:
        """Yield RGB and seconds of the frames from `start` on."""
        index = start
        try:
            with opened_picture(self._path) as image:
                for index in range(start, getattr(image, "n_frames", 1) - self._still):
                    image.seek(index + self._still)
                    image.load()
                    duration = float(image.info.get("duration") or _USUAL_DURATION)
                    yield np.array(image.convert("RGB")), duration / _MILLISECONDS
        except (OSError, EOFError, SyntaxError, ValueError) as error:
            raise StremnError(
                f"The animation {self._path} is damaged at frame {index}: {error}. Encode it again."
            ) from error
