"""The formats of a run, open together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

from stremn.media.formats.base import Format, Place
from stremn.media.frame_results import FrameResult
from stremn.media.frames import SQUARE


class OpenFormats:
    """Writes every frame in all chosen formats."""

    def __init__(
        self,
        formats: Sequence[Format],
        out: Path,
        work: Path,
        written: int,
        rate: Fraction,
        pixel_aspect: Fraction = SQUARE,
    ) -> None:
        """Begin or go on.

        Args:
            formats: what was chosen.
            out: the run's output folder.
            work: folder for what only resuming needs; each format has its own in it.
            written: how many frames of the run are complete.
            rate: frames per second of videos.
            pixel_aspect: width of a pixel of videos by its height.
        """
        self._formats = tuple(formats)
        self._writers = [
            chosen.open(Place(out, work / chosen.name, written, rate, pixel_aspect))
            for chosen in formats
        ]
        self._checked: frozenset[int] | None = None

    def write(self, result: FrameResult) -> None:
        """Write a frame.

        Raises:
            StremnError: its objects do not fit into a format, or it cannot be written.
        """
        self._check(result)
        for writer in self._writers:
            writer.write(result)

    def _check(self, result: FrameResult) -> None:
        ids = frozenset(result.followed())
        if ids != self._checked:
            height, width = result.labels.shape
            check_formats(self._formats, ids, (height, width))
            self._checked = ids

    def checkpoint(self) -> list[Path]:
        """Make the run resumable after the last frame; return the files that this needs."""
        return [path for writer in self._writers for path in writer.checkpoint()]

    def close(self) -> None:
        """Complete all formats for the frames so far, even if one of them fails."""
        with ExitStack() as stack:
            for writer in self._writers:
                stack.callback(writer.close)


def check_formats(formats: Sequence[Format], ids: frozenset[int], size: tuple[int, int]) -> None:
    """Raise StremnError if a format cannot hold these ids in frames of (height, width)."""
    for chosen in formats:
        chosen.check(ids, size)


def folders_of(chosen: Format, out: Path) -> list[Path]:
    """Return the folders below `out` that a format writes into, those of single objects apart."""
    folders = []
    for pattern in chosen.files:
        folder = out
        for part in pattern.split("/")[:-1]:
            if "*" in part:
                break
            folder = folder / part
            folders.append(folder)
    return folders


def output_of(chosen: Format, out: Path) -> Path:
    """Return the file or folder below `out` that a format's files are in."""
    return out / chosen.files[0].partition("/")[0]
