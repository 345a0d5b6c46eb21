"""The overlay of a run that may be interrupted: encoded in parts, joined without encoding again."""

from collections import deque
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from stremn.media.encoding import VideoPart, join_videos
from stremn.media.files import iterate_rows
from stremn.media.frames import SQUARE, Picture
from stremn.media.pace import Pace
from stremn.media.sound import Sound

PATTERN = "overlay-*.mp4"


class OverlayParts:
    """A video in numbered parts, `overlay-INDEX.mp4`, in one folder.

    A part begins with the first picture after the part before was closed. Runs that close their
    parts after the same frames give the same video, however often they were interrupted.
    """

    def __init__(
        self, folder: Path, pace: Pace, pixel_aspect: Fraction = SQUARE, sound: Path | None = None
    ) -> None:
        """Go on in a folder.

        Args:
            folder: where the parts are.
            pace: which frames are shown, and when.
            pixel_aspect: width of a pixel by its height.
            sound: the video whose sound is heard; None is silence.
        """
        self._folder = folder
        self._pace = pace
        self._pixel_aspect = pixel_aspect
        self._sound = sound
        self._part: VideoPart | None = None

    def shows(self, index: int) -> bool:
        """Whether the overlay has a frame of the video."""
        return self._pace.shows(index)

    def add(self, index: int, picture: Picture) -> None:
        """Add the picture of a frame; raises StremnError if it cannot be written."""
        if self._part is None:
            path = self._folder / f"overlay-{index:09d}.mp4"
            height, width = picture.shape[:2]
            size = height, width
            self._part = VideoPart(path, self._pace.encoded, size, self._pixel_aspect)
        self._part.add(picture)

    def close_part(self) -> None:
        """End the part that is being written; safe to call when there is none."""
        if self._part is not None:
            part, self._part = self._part, None
            part.close()

    def remove_from(self, index: int) -> None:
        """Remove the parts that begin at frame `index` or later."""
        for part in self.paths():
            if _first_frame(part) >= index:
                part.unlink()

    def join(self, path: Path, rows: Path, end: int) -> None:
        """Join the parts that begin before frame `end`; without any, write nothing.

        Args:
            path: the video to write.
            rows: a file with a row for every frame of the run, which has its time if it has one.
            end: index of the first frame that is not written yet.

        Raises:
            StremnError: a part is not whole, no permission, disk full.
        """
        parts = [part for part in self.paths() if _first_frame(part) < end]
        if not parts:
            return
        sound = None
        if self._sound is not None:
            start, last = self._span(rows)
            sound = Sound(self._sound, start, last + 1 / self._pace.rate)
        shown = (row for row in iterate_rows(rows) if self.shows(row["frame"]))
        join_videos(parts, path, map(self._time, shown), sound)

    def _span(self, rows: Path) -> tuple[float, float]:
        """Return the times of the first frame and of the last."""
        all_rows = iterate_rows(rows)
        first = next(all_rows)
        last = deque(all_rows, maxlen=1) or [first]
        return self._time(first), self._time(last[0])

    def _time(self, row: Mapping[str, Any]) -> float:
        return float(row["time"]) if "time" in row else self._pace.time(row["frame"])

    def paths(self) -> list[Path]:
        """Return the parts in order."""
        return sorted(self._folder.glob(PATTERN))


def _first_frame(part: Path) -> int:
    return int(part.stem.split("-")[1])
