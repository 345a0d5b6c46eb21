"""Still images with instances that are not mask files: SBD and COCO, in their official layouts."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import cv2
import numpy as np
from pydantic import BaseModel, Field, field_validator

from stremn.core.config import build, read_json
from stremn.data.readers.stills import Still, make_still, recent_stills
from stremn.data.shapes import Mask
from stremn.errors import MissingExtraError, StremnError
from stremn.media.mask_codes import VOID
from stremn.media.rle import decode_rle, mask_of_runs
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
        """Return the path of the image file."""
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


Coordinate = Annotated[float, Field(ge=-1e6, le=1e6)]
Polygon = Annotated[list[Coordinate], Field(min_length=2)]


class RunLengths(BaseModel):
    """A mask as run lengths, plain or as a string, and its (height, width)."""

    counts: str | list[int]
    size: tuple[int, int]


class CocoShape(BaseModel):
    """An object of an image."""

    image_id: int
    segmentation: list[Polygon] | RunLengths
    area: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    iscrowd: bool = False

    @field_validator("segmentation")
    @classmethod
    def _has_points(cls, value: list[Polygon] | RunLengths) -> list[Polygon] | RunLengths:
        if isinstance(value, list) and any(len(polygon) % 2 for polygon in value):
            raise ValueError("a polygon must have an even count of numbers: x, y, x, y, ...")
        return value


class CocoImage(BaseModel):
    """An image and the name of its file, in the folder of images."""

    id: int
    file_name: str

    @field_validator("file_name")
    @classmethod
    def _stays_in_its_folder(cls, value: str) -> str:
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or "\0" in value or not path.parts:
            raise ValueError(f"file_name must be a path inside the folder of images, got {value!r}")
        return value


class CocoFile(BaseModel):
    """What is read of an annotation file; the rest is passed over."""

    images: list[CocoImage]
    annotations: list[CocoShape]


class CocoStills:
    """COCO instances: a folder of images and an annotation file (polygons or run lengths).

    Crowds are void. Larger instances lie below smaller ones.
    """

    def __init__(self, images: Path, annotations: Path) -> None:
        try:
            content = build(CocoFile, read_json(annotations.read_bytes(), "it"), "it")
        except (OSError, StremnError) as error:
            reason = str(error)[:300]
            raise StremnError(
                f"{annotations} cannot be read as COCO instances: {reason}"
            ) from error
        shapes: dict[int, list[Mapping[str, Any]]] = {}
        for item in content.annotations:
            shapes.setdefault(item.image_id, []).append(item.model_dump())
        files = {item.id: item.file_name for item in content.images}
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
        """Return the path of the image file."""
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
        for flat in segmentation:  # one by one: together, where two overlap would be a hole
            polygon = np.round(np.array(flat).reshape(-1, 2)).astype(np.int32)
            cv2.fillPoly(mask, [polygon], 1)
        return mask
    counts, size = segmentation["counts"], segmentation["size"]
    if list(size) != [height, width]:
        raise StremnError(f"A mask of {size} does not fit an image of {height}x{width}.")
    read = decode_rle if isinstance(counts, str) else mask_of_runs
    return read(counts, (height, width)).astype(np.uint8)
