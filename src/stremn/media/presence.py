"""Write a table of all objects in all frames: `objects.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from stremn.core.atomic_files import replacing, writing
from stremn.media.frames import Frame
from stremn.media.masks import Labels

COLUMNS = (
    "frame", "name", "time", "object", "area", "x", "y", "width", "height", "center_x", "center_y",
    "confidence",
)  # fmt: skip
"""Sizes are in pixels, times in seconds from the video's first frame; x and y are the left and top
of the object's box, the centre is that of its area. What is not known or not there is empty."""


_ERRORS = "surrogateescape"  # names of files may be of other bytes than UTF-8


class PresenceTable:
    """A CSV file that grows by a row for each object of a frame."""

    def __init__(self, path: Path, before: int = 0) -> None:
        """Open the file with the rows that it has of frames before `before`, and no others.

        Raises:
            StremnError: no permission, disk full.
        """
        self._path = path
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(_text([COLUMNS]))
            for row in _rows_before(path, before) if before else ():
                file.write(_text([row]))

    def add(
        self, frame: Frame, labels: Labels, ids: Sequence[int], confidences: Mapping[int, float]
    ) -> None:
        """Add a row for each of `ids` and of the objects in `labels`.

        Args:
            frame: the frame.
            labels: where its objects are.
            ids: objects that are followed, whether they are there or not.
            confidences: of the objects that are there, 0..1, as far as they are known.

        Raises:
            StremnError: disk full.
        """
        there = np.unique(labels[labels > 0]).tolist() if not ids else ()
        rows = [_row(frame, labels, item, confidences) for item in sorted({*ids, *there})]
        with writing(self._path), self._path.open("ab") as file:
            file.write(_text(rows))


def _row(frame: Frame, labels: Labels, item: int, confidences: Mapping[int, float]) -> list[object]:
    own = (labels == item).view(np.uint8)
    moments = cv2.moments(own, binaryImage=True)
    area = round(moments["m00"])
    time = "" if frame.time is None else f"{frame.time:.6f}".rstrip("0").rstrip(".")
    row: list[object] = [frame.index, frame.name, time, item, area]
    if not area:
        return [*row, *[""] * 7]
    centre = [f"{moments[name] / area:.2f}" for name in ("m10", "m01")]
    sure = f"{confidences[item]:.4f}" if item in confidences else ""
    return [*row, *cv2.boundingRect(own), *centre, sure]


def _text(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(errors=_ERRORS)


def _rows_before(path: Path, before: int) -> Iterator[list[str]]:
    """Yield the rows of earlier frames; one that was cut off ends them."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors=_ERRORS, newline="") as file:
        for row in csv.reader(file):
            if row and row[0] == COLUMNS[0]:
                continue
            if len(row) != len(COLUMNS) or not row[0].isdecimal() or int(row[0]) >= before:
                return
            yield row
