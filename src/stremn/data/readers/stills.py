"""Still images with masks: what one is, and how its files are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Literal, Protocol

import cv2
import numpy as np
from jaxtyping import UInt8

from stremn.data.readers.lossy import is_lossy
from stremn.data.readers.lru_cache import Recent
from stremn.data.readers.sequences import read_indices
from stremn.data.shapes import Mask, shrunk_to
from stremn.errors import StremnError
from stremn.media.frames import Picture
from stremn.media.mask_codes import VOID, MaskCodes, parts_touching, split_codes
from stremn.media.pictures import opened_picture
from stremn.media.video import read_reduced

Kind = Literal["binary", "instances", "parts"]
"""What a mask's values mean: one object (anything that is not 0); an id for each object; or
a label for each part of one object."""

LONGEST_SIDE = 512
"""Pictures are reduced to this many pixels when read; clips are rarely larger."""

CACHED_BYTES = 256 * 2**20
"""Decoded stills that each set keeps."""


@dataclass(frozen=True)
class Still:
    """A picture and its id map: 0 background, 255 void, other values as its `kind` says."""

    image: Picture
    ids: Mask
    kind: Kind

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return self.image.nbytes + self.ids.nbytes


class StillImages(Protocol):
    """A set of still images with masks."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return where the picture comes from, for messages."""
        ...

    def load(self, index: int) -> Still:
        """Read picture `index`. Raises StremnError if it cannot be used."""
        ...


def recent_stills() -> Recent[int, Still]:
    """Return a cache for the stills of one set, by index."""
    return Recent(CACHED_BYTES, attrgetter("nbytes"))


def read_ids(path: Path, kind: Kind) -> Mask:
    """Read a mask file. Binary masks, which may be color or soft, become 0, 1 and `VOID`.

    In a binary mask all that is not 0, or not black, is the object: ids, gray levels or colors.
    Where the levels are those of a soft edge or of a lossy file, it is what is brighter than half.

    Raises StremnError if it cannot be decoded, or holds colors or ids above 255 that mean objects,
    or if a lossy file holds ids.
    """
    if kind == "binary":
        return _as_one_object(_read_levels(path), path)
    ids = read_indices(path)
    if ids.max() > VOID:
        raise StremnError(f"{path} holds ids up to {int(ids.max())}; the largest possible is 254.")
    return ids.astype(np.uint8)


MOST_IDS = 32
"""Gray values up to this are ids, and more levels than this are a soft edge's."""

_FEWEST_SOFT_LEVELS = 3
"""Levels of a soft edge, at least: 2x2 averaging makes as many between black and white."""


@dataclass(frozen=True)
class _Levels:
    """The values of a mask file, "height width", and what its format says of them.

    are_ids: they are indices of a palette of colors. are_lossy: they were compressed with loss.
    """

    values: np.ndarray
    are_ids: bool
    are_lossy: bool


def _as_one_object(levels: _Levels, path: Path) -> Mask:
    """Turn ids or levels into 0, 1 and `VOID`."""
    if levels.are_lossy:
        _refuse_dark(levels.values, path)
        return _brighter_half(levels.values)
    if levels.are_ids or _are_small(levels.values):
        return np.where(levels.values == VOID, VOID, levels.values > 0).astype(np.uint8)
    if _are_soft(levels.values):
        return _brighter_half(levels.values)
    return (levels.values > 0).astype(np.uint8)


def _refuse_dark(values: np.ndarray, path: Path) -> None:
    """Refuse a lossy file that is not black, but nowhere brighter than its noise may be."""
    largest = int(values.max())
    if 0 < largest <= MOST_IDS:
        raise StremnError(
            f"{path} is a lossy file (JPEG or WebP) with values up to {largest}, which cannot be "
            "told from its noise. Save masks as PNG, or the object in white on black."
        )


def _brighter_half(values: np.ndarray) -> Mask:
    return (values.astype(np.int64) * 2 > int(values.max())).astype(np.uint8)


def _are_small(values: np.ndarray) -> bool:
    """Return whether the values are ids as people number them; void beside them does not count."""
    return values[values != VOID].max(initial=0) in range(1, MOST_IDS + 1)


def _are_soft(values: np.ndarray) -> bool:
    """Return whether the values between 0 and the largest are an object's soft edge, not ids.

    So are many of them. A few are if they fill no 3x3 block, which the largest does, and connect it
    to 0: ids mark regions of their own, objects elsewhere, or lines inside.
    """
    used = np.unique(values)
    if len(used) > MOST_IDS:
        return True
    largest = int(used[-1])
    if np.count_nonzero((used > 0) & (used < largest)) < _FEWEST_SOFT_LEVELS:
        return False
    solid, _ = split_codes(MaskCodes("grey", values.astype(np.int32)))
    if [value for value in solid if value] != [largest]:
        return False
    outside, inside = values == 0, values == largest
    edge = parts_touching(~outside, inside) & parts_touching(~inside, outside)
    return bool(edge[~outside & ~inside].mean() > 0.9)


def _read_levels(path: Path) -> _Levels:
    """Read a mask file as ids or levels.

    Indices of a palette of colors are ids; gray values may be; of colors the strongest channel is
    taken.
    """
    try:
        with opened_picture(path) as file:
            lossy = is_lossy(file, path)
            if file.mode in ("L", "1", "I", "I;16"):
                return _Levels(np.asarray(file), False, lossy)
            colors = np.asarray(file.convert("RGB"))
            if file.mode == "P" and (colors != colors[..., :1]).any():
                return _Levels(np.asarray(file), True, lossy)
            return _Levels(colors.max(2), False, lossy)
    except (OSError, SyntaxError) as error:
        raise StremnError(f"{path} cannot be read as a mask ({error}).") from error


def make_still(
    name: str,
    image: Picture,
    ids: UInt8[np.ndarray, "h w"],
    kind: Kind,
    size: tuple[int, int] | None = None,
) -> Still:
    """Check that picture and ids belong together, and reduce them to `LONGEST_SIDE`.

    `size` is the (height, width) of a picture that was read smaller than it is. Raises StremnError
    if their sizes differ; `name` says where they are from.
    """
    height, width = image.shape[:2] if size is None else size
    if (height, width) != ids.shape:
        raise StremnError(
            f"{name} has {width}x{height} pixels, "
            f"its mask {ids.shape[1]}x{ids.shape[0]}; they must be equal."
        )
    if image.shape[:2] != ids.shape:  # read smaller; still larger than what is kept
        ids = cv2.resize(ids, image.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    image, ids = shrunk_to(LONGEST_SIDE, image, ids)
    return Still(image, ids, kind)


@dataclass(frozen=True)
class Pair:
    """Files of one picture."""

    image: Path
    mask: Path


class PairedStills:
    """Pictures with mask files, read when asked for."""

    def __init__(self, pairs: Sequence[Pair], kind: Kind) -> None:
        self._pairs = list(pairs)
        self._kind: Kind = kind
        self._recent = recent_stills()

    def __len__(self) -> int:
        return len(self._pairs)

    def name(self, index: int) -> str:
        """Return the path of the image file."""
        return str(self._pairs[index].image)

    def load(self, index: int) -> Still:
        """Read a picture. Raises StremnError when files are broken or of unequal size."""
        return self._recent.get(index, lambda: self._read(index))

    def _read(self, index: int) -> Still:
        pair = self._pairs[index]
        ids = read_ids(pair.mask, self._kind)
        image, size = read_reduced(pair.image, 2 * LONGEST_SIDE)
        return make_still(self.name(index), image, ids, self._kind, size)


class SelectedStills:
    """Some of the stills of a set."""

    def __init__(self, stills: StillImages, keep: Sequence[int]) -> None:
        self._stills = stills
        self._keep = list(keep)

    def __len__(self) -> int:
        return len(self._keep)

    def name(self, index: int) -> str:
        """Return where the picture comes from."""
        return self._stills.name(self._keep[index])

    def load(self, index: int) -> Still:
        """Read a picture."""
        return self._stills.load(self._keep[index])
