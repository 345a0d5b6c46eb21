#!/usr/bin/env python
"""Lay out public data sets as training folders, from clones of the repositories that hold them.

    scripts/training_data.py CLONES OUT

CLONES holds clones of the repositories in `STILLS` and `VIDEOS`, each in a folder with the
repository's name. Sets whose clone is missing are left out, with a message. OUT then holds
`still/NAME/{images,masks}` and `video/NAME/{JPEGImages,Annotations}`. Licenses are listed in
docs/training.md.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image
from scipy.io import loadmat

VOID = 255
LONGEST_STILL = 640
LARGEST_ID = 254


class Example(NamedTuple):
    """A picture (BGR) and its ids: 0 background, 255 void."""

    image: np.ndarray
    ids: np.ndarray


def polygons(shape: tuple[int, int], objects: Iterable[Iterable[np.ndarray]]) -> np.ndarray:
    """Draw one id per object, large objects first; an object is one or more polygons."""
    masks = []
    for pieces in objects:
        mask = np.zeros(shape, np.uint8)
        for points in pieces:
            cv2.fillPoly(mask, [points.round().astype(np.int32)], 1)
        masks.append(mask > 0)
    ids = np.zeros(shape, np.uint8)
    order = sorted(range(len(masks)), key=lambda i: -int(masks[i].sum()))
    for number, i in enumerate(order[:LARGEST_ID], start=1):
        ids[masks[i]] = number
    return ids


def cats(root: Path) -> Iterator[Example]:
    """Read YOLO polygons; of several augmented copies of a picture only the first is taken."""
    seen: set[str] = set()
    for label in sorted(root.rglob("labels*/*.txt")):
        stem = label.stem.split(".rf.")[0]
        folder = label.parent.with_name(label.parent.name.replace("labels", "images"))
        image = cv2.imread(str(folder / f"{label.stem}.jpg"))
        if stem in seen or image is None:
            continue
        seen.add(stem)
        height, width = image.shape[:2]
        lines = [np.array(line.split()[1:], float) for line in label.read_text().splitlines()]
        found = [[line.reshape(-1, 2) * (width, height)] for line in lines if line.size >= 6]
        yield Example(image, polygons((height, width), found))


def coco(root: Path) -> Iterator[Example]:
    """Read COCO polygons."""
    for path in sorted(root.rglob("_annotations.coco.json")):
        read = json.loads(path.read_text())
        for entry in read["images"]:
            image = cv2.imread(str(path.parent / entry["file_name"]))
            mine = [a for a in read["annotations"] if a["image_id"] == entry["id"]]
            if image is None or not all(isinstance(a["segmentation"], list) for a in mine):
                continue
            found = [[np.reshape(piece, (-1, 2)) for piece in a["segmentation"]] for a in mine]
            yield Example(image, polygons(image.shape[:2], found))


def portraits(root: Path) -> Iterator[Example]:
    """Read portraits whose masks are MATLAB files."""
    for path in sorted(root.glob("data/images_data_crop/*.jpg")):
        mask = root / f"data/images_mask/{path.stem}_mask.mat"
        image = cv2.imread(str(path))
        if image is None or not mask.exists():
            continue
        ids = (loadmat(mask)["mask"] > 0).astype(np.uint8)
        if ids.shape == image.shape[:2]:
            yield Example(image, ids)


def pairs(
    images: str, mask_of: Callable[[Path], Path], *, ids: bool = False
) -> Callable[[Path], Iterator[Example]]:
    """Return what reads pictures and mask files; masks of another size are resized."""

    def read(root: Path) -> Iterator[Example]:
        for path in sorted(root.glob(images)):
            image = cv2.imread(str(path))
            mask = cv2.imread(str(mask_of(path)), cv2.IMREAD_GRAYSCALE)
            if image is None or mask is None:
                continue
            if not ids:
                mask = (mask > 127).astype(np.uint8)
            size = (image.shape[1], image.shape[0])
            yield Example(image, cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST))

    return read


class Frame(NamedTuple):
    """A frame of a sequence."""

    sequence: str
    image: np.ndarray
    ids: np.ndarray


def motion(root: Path) -> Iterator[Frame]:
    """Read the annotated frames of the Berkeley motion segmentation set, one id per gray level."""
    for folder in sorted((root / "moseg_dataset").iterdir()):
        masks = sorted(folder.glob("*.pgm"), key=last_number)
        read = [
            (cv2.imread(str(m.with_suffix(".jpg"))), cv2.imread(str(m), cv2.IMREAD_GRAYSCALE))
            for m in masks
        ]
        read = [
            (image, mask)
            for image, mask in read
            if image is not None and mask is not None and image.shape[:2] == mask.shape
        ]
        if len(read) < 3:
            continue
        levels = sorted(
            {
                int(level)
                for _, mask in read
                for level, count in zip(*np.unique(mask, return_counts=True), strict=True)
                if level and count > 100
            }
        )
        for image, mask in read:
            ids = np.zeros_like(mask)
            for region, level in enumerate(levels, start=1):
                ids[mask == level] = region
            yield Frame(folder.name, image, ids)


ONE_OBJECT = [
    "Board",
    "CaVignal",
    "boats",
    "bottle",
    "chopper",
    "hockey",
    "jump",
    "landing",
    "skiing",
    "surf",
]
"""The other sequences give many objects one label together, or show tiny ones."""

BOUNDARY = 170
"""Value of pixels that may be object or background."""


def subtraction(root: Path) -> Iterator[Frame]:
    """Read sequences of one moving object, made for background subtraction."""
    for truth in sorted(
        [*root.glob("SBI2015_dataset/*/groundtruth"), *root.glob("UCSD_dataset/*_/*/groundtruth")]
    ):
        name = truth.parent.name
        if name not in ONE_OBJECT:
            continue
        folder = truth.parent / ("in" if (truth.parent / "in").exists() else "input")
        images = {last_number(path): path for path in folder.iterdir()}
        step = max(1, len(images) // 100)
        for path in sorted(truth.iterdir(), key=last_number)[::step]:
            source = images.get(last_number(path))
            if source is None:
                continue
            image, mask = cv2.imread(str(source)), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            if image is not None and mask is not None and image.shape[:2] == mask.shape:
                ids = np.where(mask > 200, 1, np.where(mask == BOUNDARY, VOID, 0))
                yield Frame(name, image, ids.astype(np.uint8))


def last_number(path: Path) -> int:
    """Return the last number in a file's name, -1 without one."""
    found = re.findall(r"\d+", path.stem)
    return int(found[-1]) if found else -1


STILLS: dict[str, tuple[str, Callable[[Path], Iterator[Example]]]] = {
    "cats": ("feral-cat-segmentation-dataset-and-model", cats),
    "animals": ("Applying-Mask-RCNN-in-endangered-animals-detection", coco),
    "portraits": ("AutoPortraitMatting", portraits),
    "horses": (
        "image_segmentation",
        pairs("weizmann_horse_db/rgb/*", lambda p: p.parent.parent / "figure_ground" / p.name),
    ),
    "zoo": (
        "computer-vision-animal-segmentation",
        pairs(
            "data/images/*/*.jpg",
            lambda p: (
                p.parents[2] / "masks" / p.parent.name / f"{p.stem.replace('image_', 'mask_')}.png"
            ),
        ),
    ),
    "pedestrians": (
        "PennFudan",
        pairs(
            "data/PennFudanPed/PNGImages/*.png",
            lambda p: p.parent.parent / "PedMasks" / f"{p.stem}_mask.png",
            ids=True,
        ),
    ),
}
VIDEOS: dict[str, tuple[str, Callable[[Path], Iterator[Frame]]]] = {
    "motion": ("BackgroundSubtractionForMovingCamera", motion),
    "subtraction": ("FgSegNet", subtraction),
}
"""Name of the set -> the repository's name, and what reads it."""


def write_stills(examples: Iterable[Example], out: Path) -> int:
    """Write pictures and masks; return how many had an object."""
    count = 0
    (out / "images").mkdir(parents=True, exist_ok=True)
    (out / "masks").mkdir(exist_ok=True)
    for example in examples:
        share = LONGEST_STILL / max(example.image.shape[:2])
        image, ids = example.image, example.ids
        if share < 1:
            image = cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
            ids = cv2.resize(ids, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_NEAREST)
        if not 0.003 < ((ids > 0) & (ids < VOID)).mean() < 0.9:
            continue
        cv2.imwrite(str(out / "images" / f"{count:05d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
        Image.fromarray(ids).save(out / "masks" / f"{count:05d}.png")
        count += 1
    return count


def write_videos(frames: Iterable[Frame], out: Path) -> int:
    """Write sequences as folders of frames and label maps; return how many frames."""
    counts: dict[str, int] = {}
    for frame in frames:
        index = counts.setdefault(frame.sequence, 0)
        for kind in ("JPEGImages", "Annotations"):
            (out / kind / frame.sequence).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(
            str(out / "JPEGImages" / frame.sequence / f"{index:05d}.jpg"),
            frame.image,
            [cv2.IMWRITE_JPEG_QUALITY, 92],
        )
        Image.fromarray(frame.ids).save(out / "Annotations" / frame.sequence / f"{index:05d}.png")
        counts[frame.sequence] += 1
    return sum(counts.values())


def main() -> None:
    """Lay out every set whose clone is there."""
    if len(sys.argv) != 3:
        sys.exit(f"{__doc__}\nexpected two folders, got {sys.argv[1:]}")
    clones, out = Path(sys.argv[1]), Path(sys.argv[2])
    for sets, write, kind in ((STILLS, write_stills, "still"), (VIDEOS, write_videos, "video")):
        for name, (repository, read) in sets.items():
            if not (clones / repository).is_dir():
                print(f"{kind}/{name}: left out, no clone {clones / repository}")
                continue
            print(f"{kind}/{name}: {write(read(clones / repository), out / kind / name)} pictures")


if __name__ == "__main__":
    main()
