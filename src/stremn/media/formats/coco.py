"""COCO: one image per frame, one annotation per object and frame, with track ids.

Read by pycocotools, FiftyOne, Label Studio, Roboflow and most trainers of detectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from stremn.media.formats.categories import Categories
from stremn.media.formats.json_lists import write_json
from stremn.media.formats.outlines import outlines
from stremn.media.formats.rows import Row, Rows, RowsFormat
from stremn.media.rle import decode_rle

_DECIMALS = 2  # of a point; outlines lie on quarters of a pixel


class Shape(Protocol):
    """How COCO stores the pixels of an object."""

    @property
    def file(self) -> str:
        """Name of the file with such shapes."""
        ...

    def __call__(self, size: tuple[int, int], counts: str) -> Any:
        """Return what an annotation has as `segmentation`."""


@dataclass(frozen=True)
class RunLengths:
    """Compressed run lengths: exact and short."""

    file: str = "objects.json"

    def __call__(self, size: tuple[int, int], counts: str) -> dict[str, Any]:
        """Return them with the frame's (height, width)."""
        return {"size": list(size), "counts": counts}


@dataclass(frozen=True)
class Polygons:
    """Polygons, one a connected part; holes are cut in, so that pycocotools gets the same mask."""

    file: str = "polygons.json"

    def __call__(self, size: tuple[int, int], counts: str) -> list[list[float]]:
        """Return x, y, x, y, ... of each part, in pixels."""
        parts = outlines(decode_rle(counts, size))
        return [part.round(_DECIMALS).ravel().tolist() for part in parts]


@dataclass(frozen=True)
class Coco(RowsFormat):
    """COCO with categories of the user's names; `shape` says how the pixels are given."""

    categories: Categories = field(default_factory=Categories)
    shape: Shape = field(default_factory=RunLengths)
    name: str = "coco"
    soft: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """One file."""
        return (self.shape.file,)

    def complete(self, rows: Rows, out: Path) -> None:
        """Write the file of all rows."""
        categories = self.categories.of(rows.ids())
        content = {
            "images": _images(rows),
            "annotations": _annotations(rows, self.categories.number, self.shape),
            "categories": ({"id": number, "name": name} for number, name in categories.items()),
        }
        write_json(out / self.shape.file, content)


def _images(rows: Rows) -> Iterator[Row]:
    for index, row in enumerate(rows):
        height, width = row["size"]
        yield {"id": index, "file_name": row["file"], "height": height, "width": width}


def _annotations(rows: Rows, category: Callable[[int], int], shape: Shape) -> Iterator[Row]:
    number = 0
    for index, row in enumerate(rows):
        height, width = row["size"]
        for item in row["objects"]:
            number += 1
            yield {
                "id": number,
                "image_id": index,
                "category_id": category(item["id"]),
                "track_id": item["id"],
                "segmentation": shape((height, width), item["counts"]),
                "area": item["area"],
                "bbox": item["bbox"],
                "iscrowd": 0,
            }
