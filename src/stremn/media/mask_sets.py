"""The masks given for a whole video: one file, a folder by frame, or a folder by object."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from stremn.errors import StremnError
from stremn.media.mask_codes import MAX_ID
from stremn.media.masks import ColorTable, LabelMap, label_map, read_mask
from stremn.media.video import IMAGE_SUFFIXES, is_there, listed, natural_order


class MaskSet:
    """The masks given for a video, looked up frame by frame and read when they are needed.

    Attributes:
        kind: "first" (one file for one frame), "frames" (files named by frame) or "objects" (one
            file per object, all for one frame).
        object_names: for "objects", the file stem behind each id.
    """

    def __init__(
        self,
        kind: str,
        files: dict[int, tuple[Path, ...]],
        size: tuple[int, int],
        object_names: dict[int, str],
    ) -> None:
        self.kind = kind
        self.object_names = object_names
        self._files = files
        self._size = size
        self._colors = ColorTable()

    @property
    def frames(self) -> tuple[int, ...]:
        """Indices of the frames that have a mask, ascending."""
        return tuple(sorted(self._files))

    def at(self, index: int) -> LabelMap | None:
        """Return the mask of one frame, or None if none was given.

        Raises:
            StremnError: as `read_mask`; a file that should hold one object holds several.
        """
        files = self._files.get(index)
        if files is None:
            return None
        if self.kind != "objects":
            return read_mask(files[0], self._size, self._colors)
        return _merge_objects(files, tuple(self.object_names), self._size)


def open_masks(
    source: Path,
    size: tuple[int, int],
    names: Sequence[str] | None = None,
    by: str = "auto",
    *,
    first: int = 0,
) -> MaskSet:
    """Find the masks for a video.

    Args:
        source: a mask file for the frame `first`, or a folder of masks: named like the frames
            (several moments), or one per object ("2.png", "dog.png"; a number in the name is the
            id).
        size: (height, width) of the frames.
        names: the frames' names if they have any; videos are matched by frame number.
        by: "frame" or "object" says what a folder's names mean; "auto" decides: names that are
            frame names are frames, others objects.
        first: index of the frame that a single file, or files by object, are for.

    Raises:
        StremnError: nothing there, or names that fit neither meaning.
    """
    if not is_there(source):
        raise StremnError(f"There is no mask file or folder {source}.")
    if not source.is_dir():
        return MaskSet("first", {first: (source,)}, size, {})
    files = sorted(
        (path for path in listed(source) if path.suffix.lower() in IMAGE_SUFFIXES),
        key=lambda path: natural_order(path.stem),
    )
    if not files:
        raise StremnError(f"The folder {source} holds no mask images (PNG expected).")
    index_of = _frame_lookup(names, files)
    matched = {index_of(path.stem): path for path in files}
    if by == "frame" or (by == "auto" and None not in matched):
        return _masks_by_frame(files, index_of, size, names)
    if by == "auto" and len(matched) > 1:
        strange = next(path.name for path in files if index_of(path.stem) is None)
        raise StremnError(
            f"In the folder {source} some masks are named like frames, but {strange} is not. "
            "Name all of them by frame, or all by object."
        )
    ids = _object_ids(files)
    names_of = dict(zip(ids, _stems(files), strict=True))
    return MaskSet("objects", {first: tuple(files)}, size, names_of)


def _stems(files: Sequence[Path]) -> list[str]:
    return [path.stem for path in files]


def _frame_lookup(
    names: Sequence[str] | None, files: Sequence[Path]
) -> Callable[[str], int | None]:
    """Map a mask's stem to the index of its frame.

    Masks of a video are named by frame if they have five digits or more, or if several have as
    many digits, with zeros before the number: objects are not numbered like that.
    """
    if names is not None:
        known = {name: index for index, name in enumerate(names)}
        return known.get
    stems = _stems(files)
    padded = all(stem.isdecimal() for stem in stems) and any(stem[0] == "0" for stem in stems)
    same = len(stems) > 1 and len({len(stem) for stem in stems}) == 1 and len(stems[0]) > 2
    fewest = len(stems[0]) if padded and same else len("00000")
    return lambda stem: int(stem) if stem.isdecimal() and len(stem) >= fewest else None


def _masks_by_frame(
    files: Sequence[Path],
    index_of: Callable[[str], int | None],
    size: tuple[int, int],
    names: Sequence[str] | None,
) -> MaskSet:
    found: dict[int, tuple[Path, ...]] = {}
    for path in files:
        index = index_of(path.stem)
        if index is None and names is None and path.stem.isdecimal():
            index = int(path.stem)
        if index is None:
            expected = "00000" if names is None else names[0]
            raise StremnError(
                f"The mask {path} is not named after a frame. Expected frame names such as "
                f"{expected}.png."
            )
        found[index] = (path,)
    return MaskSet("frames", found, size, {})


def _object_ids(files: Sequence[Path]) -> list[int]:
    """Return the number in each name if all have one and they differ, else 1, 2, ... in natural
    order."""
    numbers = [re.findall(r"\d+", path.stem) for path in files]
    ids = [int(found[-1]) if found else 0 for found in numbers]
    if 0 in ids or len(set(ids)) < len(ids) or max(ids) > MAX_ID:
        return list(range(1, len(files) + 1))
    return ids


def _merge_objects(files: Sequence[Path], ids: Sequence[int], size: tuple[int, int]) -> LabelMap:
    merged = np.zeros(size, dtype=np.uint16)
    for path, item in zip(files, ids, strict=True):
        mask = read_mask(path, size)
        if len(mask.ids) > 1:
            raise StremnError(
                f"The mask {path} holds {len(mask.ids)} objects, but a folder with one file per "
                "object was expected. For masks of several frames, name the files by frame "
                "(00000.png)."
            )
        merged[mask.labels > 0] = item
    return label_map(merged)
