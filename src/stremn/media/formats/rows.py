"""Formats of one file for the whole video: one row per frame, then the file at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stremn.media.files import JsonRows, iterate_rows, make_folder
from stremn.media.formats.base import Place, TakesAnything
from stremn.media.frame_results import FrameResult
from stremn.media.masks import label_map, objects_of
from stremn.media.rle import encode_rle

Row = dict[str, Any]


def object_row(result: FrameResult) -> Row:
    """Return a frame's file name, index, size (height, width) and objects as run lengths."""
    found = label_map(result.labels)
    return {
        "file": result.frame.file,
        "frame": result.frame.index,
        "size": list(found.size),
        "objects": [
            {
                "id": item.id,
                "area": item.pixels,
                "bbox": list(item.box),
                "counts": encode_rle(found.labels == item.id),
            }
            for item in objects_of(found)
        ],
    }


class Rows:
    """The rows of a run, read one at a time; can be read repeatedly."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Row]:
        for index, row in enumerate(iterate_rows(self._path)):
            yield {"frame": index, **row}  # runs of earlier versions kept no number

    def ids(self) -> list[int]:
        """Return the ids of all objects, ascending."""
        return sorted({item["id"] for row in self for item in row["objects"]})

    def of_object(self, number: int) -> Iterator[tuple[Row, Row | None]]:
        """Yield every frame's row, and of it the object of this id; None where it is not seen."""
        for row in self:
            yield row, next((item for item in row["objects"] if item["id"] == number), None)


class RowsWriter:
    """Keeps a row of each frame and makes the format's file of them when it is closed."""

    def __init__(
        self,
        place: Place,
        complete: Callable[[Rows, Path], None],
        row_of: Callable[[FrameResult], Row] = object_row,
    ) -> None:
        """Begin or go on.

        Args:
            place: where.
            complete: makes the format's files of the rows, below a folder.
            row_of: a frame's row.
        """
        make_folder(place.work)
        self._rows = JsonRows(place.work / "rows.json", keep=place.written)
        self._out = place.out
        self._complete = complete
        self._row_of = row_of
        self._closed = False

    def write(self, result: FrameResult) -> None:
        """Keep a frame's row."""
        self._rows.append(self._row_of(result))

    def checkpoint(self) -> list[Path]:
        """Return the file of rows."""
        return [self._rows.path]

    def close(self) -> None:
        """Make the format's files."""
        if self._closed:
            return
        self._closed = True
        self._rows.close()
        if self._rows.count:
            self._complete(Rows(self._rows.path), self._out)


class RowsFormat(TakesAnything, ABC):
    """Base of formats with one file for the whole video."""

    def open(self, place: Place) -> RowsWriter:
        """Begin or go on."""
        return RowsWriter(place, self.complete)

    @abstractmethod
    def complete(self, rows: Rows, out: Path) -> None:
        """Write the format's file of all rows, below a folder."""
