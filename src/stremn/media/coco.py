"""Objects of every frame in COCO's form: a row with run lengths a frame, one file at the end."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from stremn.core.atomic_files import replacing
from stremn.media.files import iterate_rows
from stremn.media.frames import Frame
from stremn.media.masks import Labels, label_map, objects_of
from stremn.media.rle import encode_rle


def coco_row(frame: Frame, labels: Labels) -> dict[str, Any]:
    """Return what `write_coco` needs of a frame: name, (height, width), objects as run lengths."""
    found = label_map(labels)
    return {
        "name": frame.name,
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


def write_coco(rows: Path, path: Path) -> None:
    """Turn a file of `coco_row` rows into COCO's form, row by row.

    There is an image per frame, an annotation per object and frame, a category per id.

    Raises:
        StremnError: `rows` cannot be read, no permission, disk full.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"images": [')
        _write_list(file, _coco_images(rows))
        file.write('], "annotations": [')
        _write_list(file, _coco_annotations(rows))
        file.write('], "categories": [')
        ids = {item["id"] for row in iterate_rows(rows) for item in row["objects"]}
        _write_list(file, ({"id": item, "name": f"object {item}"} for item in sorted(ids)))
        file.write("]}\n")


def _write_list(file: TextIO, values: Iterable[dict[str, Any]]) -> None:
    for position, value in enumerate(values):
        file.write(",\n" if position else "\n")
        file.write(json.dumps(value))


def _coco_images(rows: Path) -> Iterator[dict[str, Any]]:
    for index, row in enumerate(iterate_rows(rows)):
        height, width = row["size"]
        yield {"id": index, "file_name": row["name"], "height": height, "width": width}


def _coco_annotations(rows: Path) -> Iterator[dict[str, Any]]:
    number = 0
    for index, row in enumerate(iterate_rows(rows)):
        for item in row["objects"]:
            number += 1
            yield {
                "id": number,
                "image_id": index,
                "category_id": item["id"],
                "track_id": item["id"],
                "segmentation": {"size": row["size"], "counts": item["counts"]},
                "area": item["area"],
                "bbox": item["bbox"],
                "iscrowd": 0,
            }
