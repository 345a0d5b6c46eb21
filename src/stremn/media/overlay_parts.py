"""A video of a run that may be interrupted: encoded in parts, joined without encoding again."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

from stremn.media.codecs import H264, Pixels, VideoCodec
from stremn.media.encoding import VideoPart, join_videos
from stremn.media.frames import SQUARE
from stremn.media.sound import Sound

PATTERN = "overlay-*.mp4"


class OverlayParts:
    """A video in numbered parts, `STEM-INDEX.mp4`, in one folder.

    A part begins with the first picture after the part before was closed. Runs that close their
    parts after the same frames give the same video, however often they were interrupted.
    """

    def __init__(
        self,
        folder: Path,
        rate: Fraction,
        *,
        stem: str = "overlay",
        codec: VideoCodec | None = None,
        pixel_aspect: Fraction = SQUARE,
    ) -> None:
        """Continue in a folder.

        Args:
            folder: of the parts.
            rate: frames per second.
            stem: how the parts' names begin.
            codec: of the parts; None is H.264.
            pixel_aspect: width of a pixel by its height.
        """
        self._folder = folder
        self._rate = rate
        self._stem = stem
        self._codec = codec or H264()
        self._pixel_aspect = pixel_aspect
        self._part: VideoPart | None = None
        self._new: list[Path] = []

    def add(self, index: int, picture: Pixels) -> None:
        """Add the picture of a frame; raises StremnError if it cannot be written."""
        if self._part is None:
            path = self._folder / f"{self._stem}-{index:09d}{self._codec.suffix}"
            height, width = picture.shape[:2]
            size = height, width
            self._part = VideoPart(path, self._rate, size, self._codec, self._pixel_aspect)
        self._part.add(picture)

    def close_part(self) -> None:
        """End the part that is being written; safe to call when there is none."""
        if self._part is not None:
            part, self._part = self._part, None
            part.close()
            self._new.append(part.path)

    def take_new(self) -> list[Path]:
        """Return the parts that ended since the last call."""
        new, self._new = self._new, []
        return new

    def remove_from(self, index: int) -> None:
        """Remove the parts that begin at frame `index` or later."""
        for part in self.paths():
            if _first_frame(part) >= index:
                part.unlink()

    def join(
        self,
        path: Path,
        end: int,
        *,
        times: Iterable[float] | None = None,
        sound: Sound | None = None,
    ) -> None:
        """Join the parts that begin before frame `end`; without any, write nothing.

        `times` and `sound` are those of `join_videos`.

        Raises:
            StremnError: a part is not whole, no permission, disk full.
        """
        parts = [part for part in self.paths() if _first_frame(part) < end]
        if parts:
            join_videos(parts, path, self._codec, times=times, sound=sound)

    def paths(self) -> list[Path]:
        """Return the parts in order."""
        return sorted(self._folder.glob(f"{self._stem}-*{self._codec.suffix}"))


def _first_frame(part: Path) -> int:
    return int(part.stem.rpartition("-")[2])
