"""Open sets of still images by the name of their layout, and find broken files.

A set gives pictures with id maps when asked; nothing is read before. `check_stills` reads all of
a set once and lists everything that a training would stumble over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stremn.data.readers.checking import Told, look_at_each
from stremn.data.readers.folders import images_in
from stremn.data.readers.instance_sets import SbdStills, open_coco
from stremn.data.readers.problems import DataProblem
from stremn.data.readers.stills import (
    Kind,
    Pair,
    PairedStills,
    SelectedStills,
    Still,
    StillImages,
)
from stremn.data.shapes import id_counts
from stremn.errors import StremnError
from stremn.media.mask_codes import VOID


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
    image_files, mask_files = (images_in(folder) for folder in folders)
    if folders[0] == folders[1]:
        # Images are JPEG files, masks PNG files of the same name.
        image_files = [path for path in image_files if path.suffix.lower() != ".png"]
        mask_files = [path for path in mask_files if path.suffix.lower() == ".png"]
    images, masks = ({path.stem: path for path in files} for files in (image_files, mask_files))
    both = sorted(set(images) & set(masks))
    return (
        [Pair(images[stem], masks[stem]) for stem in both],
        [images[stem] for stem in sorted(set(images) - set(masks))],
        [masks[stem] for stem in sorted(set(masks) - set(images))],
    )


def open_stills(root: Path, kind: Kind = "binary", layout: str = "folder") -> StillImages:
    """Open a set of still images in one of the known layouts; files without partner are left out.

    layout: one of `LAYOUTS`, or `coco` or `sbd`, whose masks are instances whatever `kind` says.
    Raises StremnError for an unknown layout, missing folders, or a set without a single pair.
    """
    if layout == "coco":
        return open_coco(root)
    if layout == "sbd":
        return SbdStills(root)
    pairs, _, _ = find_pairs(root, _layout(layout))
    if not pairs:
        raise StremnError(f"{root} holds no image with a mask of the same name.")
    return PairedStills(pairs, kind)


def _layout(name: str) -> StillLayout:
    if name not in LAYOUTS:
        raise StremnError(f"Unknown layout {name!r}; known: {', '.join([*LAYOUTS, *UNPAIRED])}.")
    return LAYOUTS[name]


def check_stills(stills: StillImages, told: Told | None = None) -> list[DataProblem]:
    """Read every still of a set and list those that cannot be used.

    Found are unreadable files, unequal sizes, and masks without any object.
    """

    def look(index: int) -> DataProblem | None:
        try:
            still = stills.load(index)
        except StremnError as error:
            return DataProblem(stills.name(index), str(error))
        if id_counts(still.ids).any():
            return None
        return DataProblem(stills.name(index), _why_empty(still))

    return [found for found in look_at_each(look, len(stills), told) if found is not None]


def _why_empty(still: Still) -> str:
    """Say why a mask shows no object."""
    if still.kind == "binary" or not (still.ids == VOID).any():
        return "The mask is empty."
    return (
        f"The mask holds no object: its only value beside 0 is {VOID}, which is void. If {VOID} "
        'marks the object of each mask, the kind is "binary" (in a recipe: '
        "data.stills.<name>.kind)."
    )


def check_pairing(root: Path, layout: str = "folder") -> list[DataProblem]:
    """List images without mask and masks without image.

    Layouts that list their images (COCO, SBD) have none; `check_stills` finds missing files.
    """
    if layout in UNPAIRED:
        return []
    _, images, masks = find_pairs(root, _layout(layout))
    return [
        *(DataProblem(str(path), "This image has no mask of the same name.") for path in images),
        *(DataProblem(str(path), "This mask has no image of the same name.") for path in masks),
    ]


def without(stills: StillImages, problems: Sequence[DataProblem]) -> SelectedStills:
    """Return the stills that no problem names. Raises StremnError if none is left."""
    bad = {problem.where for problem in problems}
    keep = [index for index in range(len(stills)) if stills.name(index) not in bad]
    if not keep:
        raise StremnError("Every still of this set has a problem; none is left to train on.")
    return SelectedStills(stills, keep)
