"""Read a mask file as one code per pixel, before codes are mapped to objects.

A pixel's code is its palette index, its grey value or its packed color. Soft edges and lossy
compression leave codes that mean no object; they are recognized and replaced here.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Int32, UInt8
from PIL import Image, UnidentifiedImageError

from stremn.errors import StremnError
from stremn.media.frames import Picture
from stremn.media.pictures import MOST_PIXELS, opened_picture

VOID = 255
"""In palette masks with several ids: pixels without an answer (DAVIS)."""

MAX_ID = 65535
"""Masks are written with 16 bits at most."""

MANY_COLORS = 64
"""More colors than this are a picture, not ids."""

_LOSSY = frozenset({"JPEG", "MPO", "WEBP"})
_LOSSY_TOLERANCE = 20  # per channel: compression noise stays under it in flat regions
_LOSSY_DISTANCE = 8.0  # pixels: compression works on blocks of this size
_SOFT_DISTANCE = 8.0  # pixels that a soft edge is wide at most
_NEARBY = 3.0  # pixels: as near as the nearest object
_MANY_CODES = 20  # more of them: soft edges are likely
_LEAST_SHARE = 0.005  # of the largest object's blocks: a blur has a few flat spots of its own
_FEW_EDGE_CODES = 3
_WHITE = 200


@dataclass(frozen=True)
class Problem:
    """Something to know about a mask.

    Attributes:
        kind: one word: "soft", "lossy", "picture", "size", "empty", "full",
            "inverted", "binary", "void", "alpha", "grey-palette", "wide-ids", "dark".
        text: a clause in words.
        blocking: reading the mask as it is would be refused.
        repairable: `repair` corrects it.
    """

    kind: str
    text: str
    blocking: bool = False
    repairable: bool = False


@dataclass(frozen=True)
class MaskCodes:
    """One code per pixel.

    `kind` is "palette" (index), "grey" (value), "colors" (r * 65536 + g * 256 + b), "binary"
    (0 and 1) or "array" (ids as given).
    """

    kind: str
    codes: Int32[np.ndarray, "height width"]
    lossy: bool = False
    notes: tuple[Problem, ...] = ()


_MUCH_LARGER = 16
"""A mask of more times the pixels of its frame is not even decoded."""


def read_codes(path: Path, size: tuple[int, int] | None = None) -> MaskCodes:
    """Read a mask file.

    Args:
        path: the file.
        size: (height, width) of its frame, if known.

    Raises:
        StremnError: no such file, no image, damaged, decimal numbers, or far larger than its frame.
    """
    most = MOST_PIXELS if size is None else min(MOST_PIXELS, _MUCH_LARGER * size[0] * size[1])
    try:
        with opened_picture(path, most) as image:
            image.load()
            return codes_of_image(image, f"The mask {path}")
    except FileNotFoundError as error:
        raise StremnError(f"There is no mask file {path}.") from error
    except UnidentifiedImageError as error:
        raise StremnError(
            f"The mask {path} is not an image in a known format. Give a PNG: palette, grey or one "
            "color per object."
        ) from error
    except (OSError, SyntaxError) as error:
        raise StremnError(f"The mask {path} cannot be read: {error}.") from error


def codes_of_image(image: Image.Image, what: str = "The mask") -> MaskCodes:
    """Return the codes of an image; `what` names it in messages.

    Raises:
        StremnError: decimal numbers, or ids that are too large.
    """
    lossy = image.format in _LOSSY
    if image.mode == "P":
        return _from_palette(image)
    if image.mode == "1":
        return MaskCodes("binary", np.asarray(image).astype(np.int32))
    if image.mode == "L":
        return _from_grey(np.asarray(image), 255, lossy)
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > MAX_ID:
            raise StremnError(f"{what} must hold ids from 0 to {MAX_ID}, got {deep.max()}.")
        return _from_grey(deep, MAX_ID, lossy=False)
    if image.mode == "F":
        raise StremnError(f"{what} holds decimal numbers; expected whole ids, 0 for background.")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return _from_transparency(np.asarray(image.convert("RGBA")), lossy)
    return _from_colors(np.asarray(image.convert("RGB")), lossy)


def _from_palette(image: Image.Image) -> MaskCodes:
    indices = np.asarray(image).astype(np.int32)
    used = np.unique(indices)
    entries = image.getpalette() or []
    black = [int(i) for i in used if not any(entries[3 * i : 3 * i + 3])]
    if len(black) == 1 and black[0] != 0:
        # A quantized picture: indices are in no order, black is still background.
        return _from_colors(np.asarray(image.convert("RGB")), lossy=False)
    if set(used) <= {0, VOID}:
        return MaskCodes("binary", (indices == VOID).astype(np.int32), notes=(_grey_255(VOID),))
    if VOID not in used:
        return MaskCodes("palette", indices)
    void = indices == VOID
    note = Problem("void", f"{int(void.sum())} pixels of index 255 (void) count as background")
    return MaskCodes("palette", np.where(void, 0, indices), notes=(note,))


def _from_grey(grey: np.ndarray, white: int, lossy: bool) -> MaskCodes:
    if set(np.unique(grey)) <= {0, white}:
        binary = (grey == white).astype(np.int32)
        return MaskCodes("binary", binary, lossy, (_grey_255(white),) if binary.any() else ())
    return MaskCodes("grey", grey.astype(np.int32), lossy)


def _grey_255(white: int) -> Problem:
    return Problem("binary", f"only the values 0 and {white}: read as one object with id 1")


def _from_colors(rgb: Picture, lossy: bool) -> MaskCodes:
    wide = rgb.astype(np.int32)
    if (wide == wide[..., :1]).all():
        return _from_grey(wide[..., 0], 255, lossy)
    return MaskCodes("colors", wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], lossy)


def _from_transparency(rgba: UInt8[np.ndarray, "height width 4"], lossy: bool) -> MaskCodes:
    opaque = rgba[..., 3] >= 128
    if opaque.all():
        return _from_colors(rgba[..., :3], lossy)
    colors = len(np.unique(rgba[opaque][:, :3], axis=0))
    if colors > 1 and colors <= MANY_COLORS:
        raw = _from_colors((rgba[..., :3] * opaque[..., None]).astype(np.uint8), lossy)
        note = Problem("alpha", "transparent pixels count as background")
        return MaskCodes(raw.kind, raw.codes, lossy, (*raw.notes, note))
    # One color, or a picture that was cut out: the opaque part is the object.
    note = Problem("alpha", "the opaque part is read as one object with id 1")
    return MaskCodes("binary", opaque.astype(np.int32), notes=(note,))


# ---------------------------------------------------------------- which codes mean objects


def split_codes(raw: MaskCodes) -> tuple[list[int], list[int]]:
    """Return codes that fill at least one 3x3 block (most pixels first), and codes that never
    do."""
    exact = raw.codes.astype(np.float32)  # exact up to 2**24, which packed colors stay under
    block = np.ones((3, 3), np.uint8)
    core = cv2.erode(exact, block) == cv2.dilate(exact, block)
    solid, counts = np.unique(raw.codes[core], return_counts=True)
    every = np.unique(raw.codes)
    if len(every) > _MANY_CODES and (solid > 0).any():
        large = counts >= _LEAST_SHARE * counts[solid > 0].max()
        solid, counts = solid[large], counts[large]
    solid = solid[np.argsort(-counts, kind="stable")]
    edge = np.setdiff1d(every, solid)
    return [int(code) for code in solid], [int(code) for code in edge]


def soft_codes(raw: MaskCodes, solid: list[int], edge: list[int]) -> list[int]:
    """Return the codes that look like soft edges between objects, not like objects; often none.

    There are many of them, they fill no block, and they hug objects that do: separate tiny
    objects stand alone. A thin part of an object may be soft all over; it hangs on the object.
    """
    objects = [code for code in solid if code]
    if len(edge) < _FEW_EDGE_CODES or len(edge) <= len(objects):
        return []
    if not objects:
        return edge
    apart = _distance_to(np.isin(raw.codes, objects))
    hugging = apart <= (_LOSSY_DISTANCE if raw.lossy else _SOFT_DISTANCE)
    if len(edge) > _MANY_CODES:
        hugging |= parts_touching(raw.codes > 0, apart == 0)
    return edge if float(np.mean(hugging[np.isin(raw.codes, edge)])) > 0.9 else []


def parts_touching(
    region: Bool[np.ndarray, "height width"],
    seed: Bool[np.ndarray, "height width"],
    connectivity: int = 8,
) -> Bool[np.ndarray, "height width"]:
    """Return the connected parts of a region that hold a pixel of the seed (4 or 8 neighbors
    count)."""
    count, parts = cv2.connectedComponents(region.astype(np.uint8), connectivity=connectivity)
    keep = np.zeros(count, dtype=bool)
    keep[np.unique(parts[seed & region])] = True
    return keep[parts]


def _distance_to(region: Bool[np.ndarray, "height width"]) -> np.ndarray:
    """Return pixels to the nearest pixel of the region, 0 inside it."""
    return cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, 5)


def difference(raw: MaskCodes, codes: np.ndarray, other: int) -> np.ndarray:
    """Return how much codes differ from one: sum over channels, or of grey values."""
    if raw.kind != "colors":
        return np.abs(codes - other)
    shifts = (16, 8, 0)
    return sum((np.abs((codes >> s & 255) - (other >> s & 255)) for s in shifts), np.zeros(1))


def _tolerance(raw: MaskCodes) -> int:
    return _LOSSY_TOLERANCE * (3 if raw.kind == "colors" else 1)


def dominant_codes(raw: MaskCodes, solid: list[int]) -> list[int]:
    """Return solid codes; in lossy files those close to a larger one are noise of it."""
    if not raw.lossy:
        return solid
    kept: list[int] = []
    for code in solid:
        if all(difference(raw, np.array([code]), other)[0] > _tolerance(raw) for other in kept):
            kept.append(code)
    return kept


def harden(raw: MaskCodes, dominant: list[int]) -> np.ndarray:
    """Replace every code that is not dominant by the most similar dominant code nearby."""
    trusted = [_parts_with_block(raw, code) for code in dominant]
    apart = np.stack([_distance_to(region) for region in trusted])
    candidate = apart <= 2 * apart.min(axis=0) + _NEARBY
    if raw.kind == "palette":  # indices in between mean nothing
        cost = apart
    else:
        cost = np.stack([difference(raw, raw.codes, code) for code in dominant])
    choice = np.where(candidate, cost, np.inf).argmin(axis=0)
    hard = np.array(dominant, dtype=np.int32)[choice]
    inside = np.any(trusted, axis=0)
    own = np.array(dominant, dtype=np.int32)[np.argmax(trusted, axis=0)]
    return np.where(inside, own, hard)


def _parts_with_block(raw: MaskCodes, code: int) -> Bool[np.ndarray, "height width"]:
    """Return the connected parts of a code (in lossy files: of codes like it) that hold a 3x3
    block."""
    same = difference(raw, raw.codes, code) <= (_tolerance(raw) if raw.lossy else 0)
    core = cv2.erode(same.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return parts_touching(same, core, connectivity=4)


def hard_codes(raw: MaskCodes) -> np.ndarray:
    """Remove soft edges and compression noise from codes; unchanged where there are
    none."""
    solid, edge = split_codes(raw)
    dominant = dominant_codes(raw, solid)
    if not any(dominant) or not (raw.lossy or soft_codes(raw, solid, edge)):
        return raw.codes
    objects = [code for code in dominant if code]
    if raw.kind == "grey" and len(objects) == 1 and objects[0] >= _WHITE:
        return (raw.codes > objects[0] // 2).astype(np.int32)
    hard = harden(raw, dominant)
    if raw.lossy:  # black is rarely exactly black
        dark = [
            code for code in dominant if difference(raw, np.array([code]), 0)[0] <= _tolerance(raw)
        ]
        hard = np.where(np.isin(hard, dark), 0, hard)
    return hard
