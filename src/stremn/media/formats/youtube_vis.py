"""YouTube-VIS: a video, and for each object a list with its mask in every frame.

Read by mmtracking, Mask2Former, DVIS and other trainers of video instance segmentation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stremn.media.formats.base import Place
from stremn.media.formats.categories import Categories
from stremn.media.formats.json_lists import write_lists
from stremn.media.formats.rows import Row, Rows, RowsWriter

_FILE = "youtube-vis.json"


@dataclass(frozen=True)
class YouTubeVis:
    """YouTube-VIS with categories of the user's names."""

    categories: Categories = field(default_factory=Categories)
    name: str = "youtube-vis"
    soft: bool = False
    files: tuple[str, ...] = (_FILE,)

    def check(self, ids: Collection[int], size: tuple[int, int]) -> None:
        """Take everything."""

    def open(self, place: Place) -> RowsWriter:
        """Begin or go on."""
        return RowsWriter(place, self.complete)

    def complete(self, rows: Rows, out: Path) -> None:
        """Write the file of all rows, object by object."""
        ids = rows.ids()
        height, width = next(iter(rows))["size"]
        names = [row["file"] for row in rows]
        video = {"id": 1, "width": width, "height": height}
        video |= {"length": len(names), "file_names": names}
        lists = {
            "videos": [video],
            "annotations": self._annotations(rows, ids),
            "categories": (
                {"id": number, "name": name} for number, name in self.categories.of(ids).items()
            ),
        }
        write_lists(out / _FILE, lists)

    def _annotations(self, rows: Rows, ids: list[int]) -> Iterator[Row]:
        for item in ids:
            size = next(iter(rows))["size"]
            seen = [found for _, found in rows.of_object(item)]
            yield {
                "id": item,
                "video_id": 1,
                "category_id": self.categories.number(item),
                "iscrowd": 0,
                "height": size[0],
                "width": size[1],
                "length": len(seen),
                "segmentations": [f and {"size": size, "counts": f["counts"]} for f in seen],
                "bboxes": [f and f["bbox"] for f in seen],
                "areas": [f and f["area"] for f in seen],
            }
