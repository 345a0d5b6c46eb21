"""MOTS text: one line per object and frame, `frame id class height width run-lengths`.

Read by TrackEval and the tools of KITTI MOTS. Frames count from 0; an object's id is
1000 * class + its own id.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from stremn.core.atomic_files import replacing
from stremn.errors import StremnError
from stremn.media.formats.categories import Categories
from stremn.media.formats.rows import Rows, RowsFormat

_FILE = "mots.txt"
_INSTANCES = 1000  # ids of a class


@dataclass(frozen=True)
class Mots(RowsFormat):
    """MOTS text; classes are the categories' numbers (KITTI: 1 car, 2 pedestrian)."""

    categories: Categories = field(default_factory=Categories)
    name: str = "mots"
    soft: bool = False
    files: tuple[str, ...] = (_FILE,)

    def check(self, ids: Collection[int], size: tuple[int, int]) -> None:
        """Refuse ids that would be read as another class."""
        largest = max(ids, default=0)
        if largest >= _INSTANCES:
            raise StremnError(
                f"The format mots holds object ids up to {_INSTANCES - 1}, and there is an object "
                f"{largest}. Give the object a smaller id, or choose coco or youtube-vis."
            )

    def complete(self, rows: Rows, out: Path) -> None:
        """Write the file of all rows."""
        with replacing(out / _FILE) as temporary, temporary.open("w", encoding="ascii") as file:
            for row in rows:
                height, width = row["size"]
                for item in row["objects"]:
                    category = self.categories.number(item["id"])
                    number = _INSTANCES * category + item["id"]
                    file.write(
                        f"{row['frame']} {number} {category} {height} {width} {item['counts']}\n"
                    )
