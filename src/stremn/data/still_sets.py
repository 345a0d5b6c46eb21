"""Readers of still images with masks, in their official layouts, and a check of what is broken.

A set gives pictures with id maps when asked; nothing is read before. `check_stills` reads all of
a set once and lists everything that a training would stumble over.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from stremn.data.augment import Mask, shrunk_to
from stremn.data.clips import VOID
from stremn.errors import MissingExtraError, StremnError
from stremn.media.frames import Picture

Kind = Literal["binary", "instances", "parts"]
"""What a mask's values mean: one object (anything that is not 0); an id for each object; or
a label for each part of one object."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

LONGEST_SIDE = 512
"""Pictures are reduced to this many pixels when read; clips are rarely larger."""


@dataclass(frozen=True)
class Still:
    """A picture and its id map: 0 background, 255 void, other values as its `kind` says."""

    image: Picture
    ids: Mask
    kind: Kind


class StillImages(Protocol):
    """A set of still images with masks."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Where the picture comes from, for messages."""
        ...

    def load(self, index: int) -> Still:
        """Read picture `index`. Raises StremnError if it cannot be used."""
        ...


class StillCache:
    """Keeps the stills read last, up to a number of bytes; the one used longest ago goes first."""

    def __init__(self, limit: int = 256 * 2**20) -> None:
        self._limit = limit
        self._used = 0
        self._kept: OrderedDict[str, Still] = OrderedDict()

    def get(self, name: str, load: Callable[[], Still]) -> Still:
        """The still called `name`, read by `load` if it is not here."""
        found = self._kept.get(name)
        if found is not None:
            self._kept.move_to_end(name)
            return found
        still = load()
        self._kept[name] = still
        self._used += still.image.nbytes + still.ids.nbytes
        while self._used > self._limit and self._kept:
            _, old = self._kept.popitem(last=False)
            self._used -= old.image.nbytes + old.ids.nbytes
        return still


def read_picture(path: Path) -> Picture:
    """Read an image file as RGB. Raises StremnError if it cannot be decoded."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise StremnError(f"{path} cannot be read as an image.")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_ids(path: Path, kind: Kind) -> Mask:
    """Read a mask file. Binary masks become 0 and 1 at half of their largest value."""
    try:
        with Image.open(path) as file:
            plain = file.mode in ("P", "L", "1", "I", "I;16")
            if not plain and kind != "binary":
                raise StremnError(
                    f"{path} is a color picture ({file.mode}); masks with several ids must be "
                    "palette or gray images."
                )
            ids = np.asarray(file if plain else file.convert("L"))
    except (OSError, UnidentifiedImageError) as error:
        raise StremnError(f"{path} cannot be read as a mask.") from error
    if kind == "binary":
        return (ids.astype(np.int64) * 2 > int(ids.max())).astype(np.uint8)
    if ids.max() > VOID:
        raise StremnError(f"{path} holds ids up to {int(ids.max())}; the largest possible is 254.")
    return ids.astype(np.uint8)


@dataclass(frozen=True)
class Pair:
    """Files of one picture."""

    image: Path
    mask: Path


class PairedStills:
    """Pictures with mask files, read when asked for."""

    def __init__(self, pairs: Sequence[Pair], kind: Kind, cache: StillCache | None = None) -> None:
        self._pairs = list(pairs)
        self._kind: Kind = kind
        self._cache = StillCache() if cache is None else cache

    def __len__(self) -> int:
        return len(self._pairs)

    def name(self, index: int) -> str:
        """Path of the image file."""
        return str(self._pairs[index].image)

    def load(self, index: int) -> Still:
        """Read a picture. Raises StremnError when files are broken or of unequal size."""
        return self._cache.get(self.name(index), lambda: self._read(index))

    def _read(self, index: int) -> Still:
        pair = self._pairs[index]
        ids = read_ids(pair.mask, self._kind)
        return _still(self.name(index), read_picture(pair.image), ids, self._kind)


def _still(name: str, image: Picture, ids: UInt8[np.ndarray, "h w"], kind: Kind) -> Still:
    """Check that picture and ids belong together, and reduce them to a handy size."""
    if image.shape[:2] != ids.shape:
        raise StremnError(
            f"{name} has {image.shape[1]}x{image.shape[0]} pixels, "
            f"its mask {ids.shape[1]}x{ids.shape[0]}; they must be equal."
        )
    image, ids = shrunk_to(LONGEST_SIDE, image, ids)
    return Still(image, ids, kind)


@dataclass(frozen=True)
class StillLayout:
    """Folders of a data set below its root."""

    images: str
    masks: str


LAYOUTS: dict[str, StillLayout] = {
    "folder": StillLayout("images", "masks"),
    "duts": StillLayout("DUTS-TR-Image", "DUTS-TR-Mask"),
    "ecssd": StillLayout("images", "ground_truth_mask"),
    "hku-is": StillLayout("imgs", "gt"),
    "msra10k": StillLayout("MSRA10K_Imgs_GT/Imgs", "MSRA10K_Imgs_GT/Imgs"),
}
"""Official layouts of the saliency sets, and the plain one: `images/` and `masks/`."""


UNPAIRED = ("coco", "sbd")
"""Layouts whose masks are not image files beside the images."""


def find_pairs(root: Path, layout: StillLayout) -> tuple[list[Pair], list[Path], list[Path]]:
    """Match images and masks by name. Returns pairs, images without mask, masks without image."""
    folders = (root / layout.images, root / layout.masks)
    for folder in folders:
        if not folder.is_dir():
            raise StremnError(
                f"{root} has no folder {folder.relative_to(root)}; "
                f"expected images in {layout.images}/ and masks in {layout.masks}/."
            )
    images, masks = ({path.stem: path for path in _pictures(folder)} for folder in folders)
    if folders[0] == folders[1]:
        # Images are JPEG files, masks PNG files of the same name.
        files = _pictures(folders[0])
        images = {path.stem: path for path in files if path.suffix.lower() != ".png"}
        masks = {path.stem: path for path in files if path.suffix.lower() == ".png"}
    both = sorted(set(images) & set(masks))
    return (
        [Pair(images[stem], masks[stem]) for stem in both],
        [images[stem] for stem in sorted(set(images) - set(masks))],
        [masks[stem] for stem in sorted(set(masks) - set(images))],
    )


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def open_stills(
    root: Path, kind: Kind = "binary", layout: str = "folder", cache: StillCache | None = None
) -> StillImages:
    """Open a set of still images in one of the known layouts; files without partner are left out.

    layout: one of `LAYOUTS`, or `coco` or `sbd`, whose masks are instances whatever `kind` says.
    Raises StremnError for an unknown layout, missing folders, or a set without a single pair.
    """
    if layout == "coco":
        return open_coco(root, cache)
    if layout == "sbd":
        return SbdStills(root, cache=cache)
    pairs, _, _ = find_pairs(root, _layout(layout))
    if not pairs:
        raise StremnError(f"{root} holds no image with a mask of the same name.")
    return PairedStills(pairs, kind, cache)


def open_coco(root: Path, cache: StillCache | None = None) -> "CocoStills":
    """Open the training part of COCO 2017 or 2014 in its official layout.

    Raises StremnError if neither is there.
    """
    for year in ("2017", "2014"):
        annotations = root / "annotations" / f"instances_train{year}.json"
        if annotations.is_file():
            return CocoStills(root / f"train{year}", annotations, cache)
    raise StremnError(
        f"{root} has no annotations/instances_train2017.json (nor that of 2014); "
        "expected COCO's official layout."
    )


def _layout(name: str) -> StillLayout:
    if name not in LAYOUTS:
        raise StremnError(f"Unknown layout {name!r}; known: {', '.join([*LAYOUTS, *UNPAIRED])}.")
    return LAYOUTS[name]


class SbdStills:
    """The Semantic Boundaries Dataset: `img/*.jpg` and instance ids in `inst/*.mat`.

    root: the `dataset` folder. split: its list of names, such as `train` or `val`.
    """

    def __init__(self, root: Path, split: str = "train", cache: StillCache | None = None) -> None:
        listing = root / f"{split}.txt"
        if not listing.is_file():
            raise StremnError(f"{root} has no {split}.txt; expected SBD's `dataset` folder.")
        self._root = root
        self._names = listing.read_text().split()
        self._cache = StillCache() if cache is None else cache

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """Path of the image file."""
        return str(self._root / "img" / f"{self._names[index]}.jpg")

    def load(self, index: int) -> Still:
        """Read a picture and its instances."""
        return self._cache.get(self.name(index), lambda: self._read(index))

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
        image = read_picture(Path(self.name(index)))
        return _still(self.name(index), image, ids.astype(np.uint8), "instances")


class CocoStills:
    """COCO instances: a folder of images and an annotation file (polygons or run lengths).

    Crowds are void. Larger instances lie below smaller ones.
    """

    def __init__(self, images: Path, annotations: Path, cache: StillCache | None = None) -> None:
        try:
            content = json.loads(annotations.read_text())
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
        self._cache = StillCache() if cache is None else cache

    def __len__(self) -> int:
        return len(self._items)

    def name(self, index: int) -> str:
        """Path of the image file."""
        return str(self._images / self._items[index][0])

    def load(self, index: int) -> Still:
        """Read a picture and draw its instances."""
        return self._cache.get(self.name(index), lambda: self._read(index))

    def _read(self, index: int) -> Still:
        image = read_picture(Path(self.name(index)))
        shapes = json.loads(self._items[index][1])
        shapes.sort(key=lambda item: -float(item.get("area", 0.0)))
        height, width = image.shape[:2]
        ids = np.zeros((height, width), dtype=np.uint8)
        for number, shape in enumerate(shapes[: VOID - 1], start=1):
            mask = coco_mask(shape["segmentation"], height, width)
            ids[mask > 0] = VOID if shape.get("iscrowd") else number
        return _still(self.name(index), image, ids, "instances")


def coco_mask(segmentation: Any, height: int, width: int) -> Mask:
    """Draw a COCO segmentation: a list of polygons, or run lengths (plain or as a string)."""
    if isinstance(segmentation, list):
        mask = np.zeros((height, width), dtype=np.uint8)
        polygons = [np.round(np.array(flat).reshape(-1, 2)) for flat in segmentation]
        cv2.fillPoly(mask, [polygon.astype(np.int32) for polygon in polygons], 1)
        return mask
    counts = segmentation["counts"]
    runs = list(_run_lengths(counts)) if isinstance(counts, str) else list(counts)
    values = np.arange(len(runs)) % 2
    flat = np.repeat(values, runs).astype(np.uint8)
    if [height, width] != list(segmentation["size"]) or flat.size != height * width:
        raise StremnError(
            f"Run lengths of a {segmentation['size']} mask with {flat.size} pixels do not fit "
            f"an image of {height}x{width}."
        )
    return np.ascontiguousarray(flat.reshape(width, height).T)


def _run_lengths(text: str) -> Iterator[int]:
    """Decode COCO's string of run lengths.

    Each number is spelled in characters of five bits, lowest first, bit 5 saying that more
    follow, sign-extended; from the fourth on, it is the difference to the run two before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        yield runs[-1]
        value = shift = 0


class SelectedStills:
    """Some of the stills of a set."""

    def __init__(self, stills: StillImages, keep: Sequence[int]) -> None:
        self._stills = stills
        self._keep = list(keep)

    def __len__(self) -> int:
        return len(self._keep)

    def name(self, index: int) -> str:
        """Where the picture comes from."""
        return self._stills.name(self._keep[index])

    def load(self, index: int) -> Still:
        """Read a picture."""
        return self._stills.load(self._keep[index])


@dataclass(frozen=True)
class Problem:
    """Something in a data set that cannot be trained on: where, and what is wrong with it."""

    where: str
    reason: str


def check_stills(stills: StillImages) -> list[Problem]:
    """Read every still of a set and list those that cannot be used.

    Found are unreadable files, unequal sizes, and masks without any object.
    """
    problems = []
    for index in range(len(stills)):
        try:
            still = stills.load(index)
        except StremnError as error:
            problems.append(Problem(stills.name(index), str(error)))
            continue
        if not ((still.ids > 0) & (still.ids != VOID)).any():
            problems.append(Problem(stills.name(index), "The mask is empty."))
    return problems


def check_pairing(root: Path, layout: str = "folder") -> list[Problem]:
    """List images without mask and masks without image.

    Layouts that list their images (COCO, SBD) have none; `check_stills` finds missing files.
    """
    if layout in UNPAIRED:
        return []
    _, images, masks = find_pairs(root, _layout(layout))
    return [
        *(Problem(str(path), "This image has no mask of the same name.") for path in images),
        *(Problem(str(path), "This mask has no image of the same name.") for path in masks),
    ]


def without(stills: StillImages, problems: Sequence[Problem]) -> SelectedStills:
    """The stills that no problem names. Raises StremnError if none is left."""
    bad = {problem.where for problem in problems}
    keep = [index for index in range(len(stills)) if stills.name(index) not in bad]
    if not keep:
        raise StremnError("Every still of this set has a problem; none is left to train on.")
    return SelectedStills(stills, keep)


MOST_LISTED = 30
"""Problems named one by one in an error; the rest is counted."""


def refuse(problems: Sequence[Problem]) -> None:
    """Raise one StremnError that lists all problems; do nothing if there are none."""
    if not problems:
        return
    lines = [f"  {problem.where}: {problem.reason}" for problem in problems[:MOST_LISTED]]
    if len(problems) > MOST_LISTED:
        lines.append(f"  and {len(problems) - MOST_LISTED} more")
    raise StremnError(
        f"{len(problems)} problem(s) in the training data:\n"
        + "\n".join(lines)
        + "\nMend them, or skip what is named here."
    )
