"""Still images with instances that are not mask files: SBD and COCO, in their official layouts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from stremn.data.readers.stills import Still, make_still, recent_stills
from stremn.data.shapes import Mask
from stremn.errors import MissingExtraError, StremnError
from stremn.media.mask_codes import VOID
from stremn.media.rle import decode_rle
from stremn.media.video import read_image


class SbdStills:
    """The Semantic Boundaries Dataset: `img/*.jpg` and instance ids in `inst/*.mat`.

    root: the `dataset` folder. split: its list of names, such as `train` or `val`.
    """

    def __init__(self, root: Path, split: str = "train") -> None:
        listing = root / f"{split}.txt"
        if not listing.is_file():
            raise StremnError(f"{root} has no {split}.txt; expected SBD's `dataset` folder.")
        self._root = root
        self._names = listing.read_text(encoding="utf-8").split()
        self._recent = recent_stills()

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """Path of the image file."""
        return str(self._root / "img" / f"{self._names[index]}.jpg")

    def load(self, index: int) -> Still:
        """Read a picture and its instances."""
        return self._recent.get(index, lambda: self._read(index))

    def _read(self, index: int) -> Still:
        try:
            from scipy.io import loadmat
        except ImportError as error:
            raise MissingExtraError("scipy", "study") from error
        path = self._root / "inst" / f"{self._names[index]}.mat"
        try:
            ids = loadmat(str(path))["GTinst"]["Segmentation"][0, 0]
        except (OSError, ValueError, KeyError) as error:
            raise StremnError(f"{path} cannot be read as SBD instances.") from error
        image = read_image(Path(self.name(index)))
        return make_still(self.name(index), image, ids.astype(np.uint8), "instances")


class CocoStills:
    """COCO instances: a folder of images and an annotation file (polygons or run lengths).

    Crowds are void. Larger instances lie below smaller ones.
    """

    def __init__(self, images: Path, annotations: Path) -> None:
        try:
            content = json.loads(annotations.read_text(encoding="utf-8"))
            shapes: dict[int, list[Mapping[str, Any]]] = {}
            for item in content["annotations"]:
                shapes.setdefault(item["image_id"], []).append(item)
            files = {item["id"]: item["file_name"] for item in content["images"]}
        except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise StremnError(
                f"{annotations} cannot be read as COCO instances: {type(error).__name__} {error}."
            ) from error
        self._images = images
        # Kept as text: small, and not copied into every worker that touches it.
        self._items = [
            (files[key], json.dumps(shapes[key])) for key in sorted(shapes) if key in files
        ]
        if not self._items:
            raise StremnError(f"{annotations} annotates no image.")
        self._recent = recent_stills()

    def __len__(self) -> int:
        return len(self._items)

    def name(self, index: int) -> str:
        """Path of the image file."""
        return str(self._images / self._items[index][0])

    def load(self, index: int) -> Still:
        """Read a picture and draw its instances."""
        return self._recent.get(index, lambda: self._read(index))

    def _read(self, index: int) -> Still:
        image = read_image(Path(self.name(index)))
        shapes = json.loads(self._items[index][1])
        shapes.sort(key=lambda item: -float(item.get("area", 0.0)))
        height, width = image.shape[:2]
        ids = np.zeros((height, width), dtype=np.uint8)
        for number, shape in enumerate(shapes[: VOID - 1], start=1):
            mask = coco_mask(shape["segmentation"], height, width)
            ids[mask > 0] = VOID if shape.get("iscrowd") else number
        return make_still(self.name(index), image, ids, "instances")


def open_coco(root: Path) -> CocoStills:
    """Open the training part of COCO 2017 or 2014 in its official layout.

    Raises StremnError if neither is there.
    """
    for year in ("2017", "2014"):
        annotations = root / "annotations" / f"instances_train{year}.json"
        if annotations.is_file():
            return CocoStills(root / f"train{year}", annotations)
    raise StremnError(
        f"{root} has no annotations/instances_train2017.json (nor that of 2014); "
        "expected COCO's official layout."
    )


def coco_mask(segmentation: Any, height: int, width: int) -> Mask:
    """Draw a COCO segmentation: a list of polygons, or run lengths (plain or as a string).

    Raises StremnError if run lengths do not fit the size.
    """
    if isinstance(segmentation, list):
        mask = np.zeros((height, width), dtype=np.uint8)
        polygons = [np.round(np.array(flat).reshape(-1, 2)) for flat in segmentation]
        cv2.fillPoly(mask, [polygon.astype(np.int32) for polygon in polygons], 1)
        return mask
    counts, size = segmentation["counts"], segmentation["size"]
    if list(size) != [height, width]:
        raise StremnError(f"A mask of {size} does not fit an image of {height}x{width}.")
    if isinstance(counts, str):
        return decode_rle(counts, (height, width)).astype(np.uint8)
    if sum(counts) != height * width:
        raise StremnError(
            f"The run lengths of a mask cover {sum(counts)} pixels, expected {height}x{width} = "
            f"{height * width}."
        )
    flat = np.repeat(np.arange(len(counts)) % 2, counts).astype(np.uint8)
    return np.ascontiguousarray(flat.reshape(width, height).T)
