"""YOLO segmentation labels: one text file per frame, one line per object, and `data.yaml`.

Read by Ultralytics and supervision. A line is `class x y x y ...`, with points in shares of the
frame's width and height and classes from 0. Put the frames into `yolo/images` to train on them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stremn.media.files import make_folder, write_whole
from stremn.media.formats.base import Place, TakesAnything, WrittenAtOnce
from stremn.media.formats.categories import Categories
from stremn.media.formats.outlines import Polygon, one_outline
from stremn.media.formats.rows import Row, Rows, RowsWriter
from stremn.media.frame_results import FrameResult
from stremn.media.masks import label_map

_FOLDER = "yolo"


@dataclass(frozen=True)
class Yolo(TakesAnything):
    """YOLO's labels; classes are the categories, from 0. Object ids are not kept."""

    categories: Categories = field(default_factory=Categories)
    name: str = "yolo"
    soft: bool = False
    files: tuple[str, ...] = (f"{_FOLDER}/labels/{{name}}.txt", f"{_FOLDER}/data.yaml")

    def open(self, place: Place) -> YoloWriter:
        """Begin or go on."""
        return YoloWriter(place, self.categories)


class YoloWriter(RowsWriter):
    """Writes a frame's labels at once; `data.yaml`, with the classes' names, at the end."""

    def __init__(self, place: Place, categories: Categories) -> None:
        self._folder = make_folder(place.out / _FOLDER / "labels")
        self._categories = categories
        self._labels = WrittenAtOnce()
        super().__init__(place, self._complete, self._write_labels)

    def checkpoint(self) -> list[Path]:
        """Return the labels since the last time and the file of rows."""
        return [*self._labels.checkpoint(), *super().checkpoint()]

    def _write_labels(self, result: FrameResult) -> Row:
        found = label_map(result.labels)
        lines = []
        for item in found.ids:
            outline = one_outline(found.labels == item)
            assert outline is not None
            shares = _in_pixels(outline) / found.size[::-1]
            numbers = " ".join(f"{share:.7g}" for share in shares.ravel().tolist())
            lines.append(f"{self._categories.number(item) - 1} {numbers}\n")
        self._labels.put(self._folder / f"{result.frame.name}.txt", "".join(lines).encode())
        return {"objects": [{"id": item} for item in found.ids]}

    def _complete(self, rows: Rows, out: Path) -> None:
        names = self._categories.of(rows.ids())
        lines = ["train: images", "val: images", "names:"]
        for number in range(1, max(names, default=0) + 1):  # readers want every class to have one
            lines.append(f"  {number - 1}: {_quoted(names.get(number, f'unused {number}'))}")
        write_whole(out / _FOLDER / "data.yaml", ("\n".join(lines) + "\n").encode("ascii"))


def _quoted(name: str) -> str:
    """Return a name as YAML has it in quotes, in ASCII: JSON's, but for letters beyond 16 bits."""
    text = json.dumps(name, ensure_ascii=False)
    return text.encode("ascii", "backslashreplace").decode("ascii")


def _in_pixels(outline: Polygon) -> Polygon:
    """Return the outline through the first quarter of its pixels, each point once.

    Readers of this format round points, down or to the nearest, and draw the line too.
    """
    pixels = np.floor(outline)
    moved = np.concatenate([[True], (np.diff(pixels, axis=0) != 0).any(axis=1)])
    return pixels[moved] + 0.25
