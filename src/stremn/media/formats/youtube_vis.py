"""YouTube-VIS: a video, and for each object a list with its mask in every frame.

Read by mmtracking, Mask2Former, DVIS and other trainers of video instance segmentation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from stremn.media.formats.categories import Categories
from stremn.media.formats.json_lists import write_json
from stremn.media.formats.rows import Row, Rows, RowsFormat

_FILE = "youtube-vis.json"


@dataclass(frozen=True)
class YouTubeVis(RowsFormat):
    """YouTube-VIS with categories of the user's names."""

    categories: Categories = field(default_factory=Categories)
    name: str = "youtube-vis"
    soft: bool = False
    files: tuple[str, ...] = (_FILE,)

    def complete(self, rows: Rows, out: Path) -> None:
        """Write the file of all rows, object by object."""
        ids = rows.ids()
        height, width = next(iter(rows))["size"]
        size = {"height": height, "width": width, "length": sum(1 for _ in rows)}
        video = {"id": 1, **size, "file_names": (row["file"] for row in rows)}
        categories = self.categories.of(ids).items()
        content = {
            "videos": iter([video]),
            "annotations": (self._annotation(rows, item, size) for item in ids),
            "categories": [{"id": number, "name": name} for number, name in categories],
        }
        write_json(out / _FILE, content)

    def _annotation(self, rows: Rows, item: int, size: Row) -> Row:
        return {
            "id": item,
            "video_id": 1,
            "category_id": self.categories.number(item),
            "iscrowd": 0,
            **size,
            "segmentations": (
                found and {"size": row["size"], "counts": found["counts"]}
                for row, found in rows.of_object(item)
            ),
            "bboxes": (found and found["bbox"] for _, found in rows.of_object(item)),
            "areas": (found and found["area"] for _, found in rows.of_object(item)),
        }
