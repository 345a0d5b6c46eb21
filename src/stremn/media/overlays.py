"""Write the overlay of a run: its frames, their times, and the sound."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from stremn.media.files import iterate_rows
from stremn.media.frames import SQUARE
from stremn.media.overlay_parts import OverlayParts
from stremn.media.pace import Pace
from stremn.media.sound import Sound


class Overlay(OverlayParts):
    """A video of a run, written in parts and joined with times and sound."""

    def __init__(
        self, folder: Path, pace: Pace, pixel_aspect: Fraction = SQUARE, sound: Path | None = None
    ) -> None:
        """Continue in a folder.

        Args:
            folder: where the parts are.
            pace: which frames are shown, and when.
            pixel_aspect: width of a pixel by its height.
            sound: the video whose sound is heard; None is silence.
        """
        super().__init__(folder, pace.encoded, pixel_aspect=pixel_aspect)
        self._pace = pace
        self._sound = sound

    def shows(self, index: int) -> bool:
        """Return whether the overlay has a frame of the video."""
        return self._pace.shows(index)

    def join_run(self, path: Path, rows: Path, end: int) -> None:
        """Join the parts that begin before frame `end`; without any, write nothing.

        Args:
            path: the video to write.
            rows: a file with a row for every frame of the run, which has its time if it has one.
            end: index of the first frame that is not written yet.

        Raises:
            StremnError: a part is not whole, no permission, disk full.
        """
        sound = None
        if self._sound is not None and end > self._pace.first:
            start, last = self._span(rows)
            sound = Sound(self._sound, start, last + 1 / self._pace.rate)
        shown = (row for row in iterate_rows(rows) if self.shows(row["frame"]))
        self.join(path, end, times=map(self._time, shown), sound=sound)

    def _span(self, rows: Path) -> tuple[float, float]:
        """Return the times of the first frame and of the last."""
        all_rows = iterate_rows(rows)
        first = next(all_rows)
        last = deque(all_rows, maxlen=1) or [first]
        return self._time(first), self._time(last[0])

    def _time(self, row: Mapping[str, Any]) -> float:
        return float(row["time"]) if "time" in row else self._pace.time(row["frame"])
