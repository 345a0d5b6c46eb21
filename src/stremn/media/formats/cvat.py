"""CVAT for video 1.1: one track per object, with a polygon in every frame.

CVAT loads the file as annotations of a task with the same video ("Upload annotations", "CVAT 1.1").
A track has one polygon per frame: parts of an object are joined by lines of no width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import XMLGenerator
from xml.sax.xmlreader import AttributesImpl

from stremn.core.atomic_files import replacing
from stremn.media.formats.categories import Categories
from stremn.media.formats.outlines import one_outline
from stremn.media.formats.rows import Rows, RowsFormat
from stremn.media.rle import decode_rle

_FILE = "cvat.xml"


@dataclass(frozen=True)
class Cvat(RowsFormat):
    """CVAT's XML for videos; labels are the categories' names."""

    categories: Categories = field(default_factory=Categories)
    name: str = "cvat"
    soft: bool = False
    files: tuple[str, ...] = (_FILE,)

    def complete(self, rows: Rows, out: Path) -> None:
        """Write the file of all rows, track by track."""
        ids = rows.ids()
        with replacing(out / _FILE) as temporary, temporary.open("w", encoding="utf-8") as file:
            xml = XMLGenerator(file, "utf-8", short_empty_elements=True)
            xml.startDocument()
            _start(xml, "annotations")
            _leaf(xml, "version", "1.1")
            _write_task(xml, rows, list(self.categories.of(ids).values()))
            for number, item in enumerate(ids):
                label = self.categories.name(item)
                _start(xml, "track", {"id": str(number), "label": label, "source": "auto"})
                _write_polygons(xml, rows, item)
                xml.endElement("track")
            xml.endElement("annotations")
            xml.endDocument()


def _start(xml: XMLGenerator, name: str, facts: Mapping[str, str] | None = None) -> None:
    xml.startElement(name, AttributesImpl(facts or {}))


def _leaf(xml: XMLGenerator, name: str, text: str) -> None:
    _start(xml, name)
    xml.characters(text)
    xml.endElement(name)


def _write_task(xml: XMLGenerator, rows: Rows, labels: list[str]) -> None:
    first, last = next(iter(rows)), deque(rows, maxlen=1)[0]
    height, width = first["size"]
    _start(xml, "meta")
    _start(xml, "task")
    count = last["frame"] - first["frame"] + 1
    facts: dict[str, object] = {"size": count, "mode": "interpolation"}
    facts |= {"start_frame": first["frame"], "stop_frame": last["frame"]}
    for name, fact in facts.items():
        _leaf(xml, name, str(fact))
    _start(xml, "labels")
    for label in labels:
        _start(xml, "label")
        _leaf(xml, "name", label)
        _start(xml, "attributes")
        xml.endElement("attributes")
        xml.endElement("label")
    xml.endElement("labels")
    _start(xml, "original_size")
    _leaf(xml, "width", str(width))
    _leaf(xml, "height", str(height))
    for name in ("original_size", "task", "meta"):
        xml.endElement(name)


def _write_polygons(xml: XMLGenerator, rows: Rows, item: int) -> None:
    """Write the object's polygons; where it goes out of sight, say so once, as CVAT does."""
    points = ""
    seen = False
    for row, found in rows.of_object(item):
        if found is None and not seen:
            continue
        seen = found is not None
        if found is not None:
            outline = one_outline(decode_rle(found["counts"], (row["size"][0], row["size"][1])))
            assert outline is not None  # rows hold objects that are seen
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in outline.tolist())
        facts = {"frame": str(row["frame"]), "outside": str(int(not seen)), "occluded": "0"}
        facts |= {"keyframe": "1", "points": points, "z_order": "0"}
        _start(xml, "polygon", facts)
        xml.endElement("polygon")
