"""Interface of output formats, and of their writers during a run.

A format lies in files of its own below the output folder. It is written frame by frame, in
constant memory. `checkpoint` makes a killed run resumable with the same result: what
was written since is written again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from stremn.media.files import write_whole
from stremn.media.frame_results import FrameResult
from stremn.media.frames import SQUARE


@dataclass(frozen=True)
class Place:
    """Where a format is written, and what exists there.

    Attributes:
        out: the run's output folder.
        work: folder, of this format alone, for what only resuming needs.
        written: how many frames of the run are complete.
        rate: frames per second of videos.
        pixel_aspect: width of a pixel of videos by its height.
    """

    out: Path
    work: Path
    written: int
    rate: Fraction
    pixel_aspect: Fraction = SQUARE


class FormatWriter(Protocol):
    """Writes one run in one format."""

    def write(self, result: FrameResult) -> None:
        """Write a frame; raises StremnError if it cannot be written."""

    def checkpoint(self) -> Iterable[Path]:
        """Make the run resumable after the last frame; return the files that this needs."""

    def close(self) -> None:
        """Complete the files for the frames so far and close them; safe to call twice."""


class WrittenAtOnce:
    """Base of writers whose files are complete as soon as they are written."""

    def __init__(self) -> None:
        self._new: list[Path] = []

    def put(self, path: Path, content: bytes) -> None:
        """Write a file; raises StremnError if it cannot be written."""
        write_whole(path, content, durable=False)
        self._new.append(path)

    def checkpoint(self) -> list[Path]:
        """Return the files since the last time."""
        new, self._new = self._new, []
        return new

    def close(self) -> None:
        """Do nothing: every file is whole."""


class TakesAnything:
    """Base of formats that can hold any objects."""

    def check(self, ids: Collection[int], size: tuple[int, int]) -> None:
        """Accept everything."""


class Format(Protocol):
    """A format as it was chosen, with its settings."""

    @property
    def name(self) -> str:
        """What it is called on the command line."""

    @property
    def soft(self) -> bool:
        """Whether results should carry probabilities, for soft edges; it then shows frames too."""

    @property
    def files(self) -> tuple[str, ...]:
        """Glob patterns of its files below the output folder, `{name}` in place of a frame's name.

        The first part of the first one is what a run names as its output.
        """

    def check(self, ids: Collection[int], size: tuple[int, int]) -> None:
        """Raise StremnError if objects of these ids, in frames of (height, width), do not fit."""

    def open(self, place: Place) -> FormatWriter:
        """Begin or go on; raises StremnError if nothing can be written there."""
