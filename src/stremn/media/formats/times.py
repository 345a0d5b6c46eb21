"""When each frame of a run is shown, kept in a file: a video of any length can be joined."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stremn.media.files import JsonRows, iterate_rows
from stremn.media.formats.base import Place
from stremn.media.frames import Frame

FILE = "times.json"


class FrameTimes:
    """Seconds of each frame, from the video's first frame on, in a format's work folder."""

    def __init__(self, place: Place) -> None:
        """Begin, or go on after the frames that are complete."""
        self._rows = JsonRows(place.work / FILE, keep=place.written)
        self._rate = place.rate
        # A run that was begun by a version without this file knows no times of its first frames.
        self._complete = self._rows.count == place.written

    @property
    def path(self) -> Path:
        """The file."""
        return self._rows.path

    def add(self, frame: Frame) -> None:
        """Note the time of the next frame."""
        time = frame.index / self._rate if frame.time is None else frame.time
        self._rows.append({"time": float(time)})

    def read(self) -> Iterator[float] | None:
        """Return the times in order; None if those of the first frames are not known."""
        if not self._complete:
            return None
        return (row["time"] for row in iterate_rows(self.path))

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._rows.close()
