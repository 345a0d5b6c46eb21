"""Still images with masks: what one is, and how its files are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from stremn.data.recent import Recent
from stremn.data.sequences import read_indices
from stremn.data.shapes import Mask, shrunk_to
from stremn.errors import StremnError
from stremn.media.frames import Picture
from stremn.media.mask_codes import VOID
from stremn.media.video import read_image

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
        """Where the picture comes from, for messages."""
        ...

    def load(self, index: int) -> Still:
        """Read picture `index`. Raises StremnError if it cannot be used."""
        ...


def recent_stills() -> Recent[int, Still]:
    """A cache for the stills of one set, by index."""
    return Recent(CACHED_BYTES, attrgetter("nbytes"))


def read_ids(path: Path, kind: Kind) -> Mask:
    """Read a mask file. Binary masks, which may be color or soft, become 0, 1 and `VOID`.

    Raises StremnError if it cannot be decoded, or holds colors or ids above 255 that mean objects.
    """
    if kind == "binary":
        return _as_one_object(_brightness(path))
    ids = read_indices(path)
    if ids.max() > VOID:
        raise StremnError(f"{path} holds ids up to {int(ids.max())}; the largest possible is 254.")
    return ids.astype(np.uint8)


MOST_IDS = 32
"""Values up to this are ids, not brightness: a mask that is bright or dark reaches higher."""


def _as_one_object(values: np.ndarray) -> Mask:
    """All ids as object 1, with 255 beside them void; else what is brighter than half."""
    used = np.unique(values)
    if used[used != VOID].max(initial=0) in range(1, MOST_IDS + 1):
        return np.where(values == VOID, VOID, values > 0).astype(np.uint8)
    return (values.astype(np.int64) * 2 > int(values.max())).astype(np.uint8)


def _brightness(path: Path) -> np.ndarray:
    """Gray values or palette indices "height width"; colors are reduced to their brightness."""
    try:
        with Image.open(path) as file:
            plain = file.mode in ("P", "L", "1", "I", "I;16")
            return np.asarray(file if plain else file.convert("L"))
    except (OSError, SyntaxError) as error:
        raise StremnError(f"{path} cannot be read as a mask ({error}).") from error


def make_still(name: str, image: Picture, ids: UInt8[np.ndarray, "h w"], kind: Kind) -> Still:
    """Check that picture and ids belong together, and reduce them to `LONGEST_SIDE`.

    Raises StremnError if their sizes differ; `name` says where they are from.
    """
    if image.shape[:2] != ids.shape:
        raise StremnError(
            f"{name} has {image.shape[1]}x{image.shape[0]} pixels, "
            f"its mask {ids.shape[1]}x{ids.shape[0]}; they must be equal."
        )
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
        """Path of the image file."""
        return str(self._pairs[index].image)

    def load(self, index: int) -> Still:
        """Read a picture. Raises StremnError when files are broken or of unequal size."""
        return self._recent.get(index, lambda: self._read(index))

    def _read(self, index: int) -> Still:
        pair = self._pairs[index]
        ids = read_ids(pair.mask, self._kind)
        return make_still(self.name(index), read_image(pair.image), ids, self._kind)


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
