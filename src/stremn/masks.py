"""Label maps from mask files: reading, saying what is wrong, repairing, drawing.

A label map holds one integer per pixel: 0 is background, any other number the id of an object.
Mask files say this in many ways (palette index, grey value, colour, transparency, one file per
object); `read_mask` understands them, `diagnose` reports, `repair` mends.
"""

import colorsys
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Int32, Integer, UInt8
from PIL import Image, UnidentifiedImageError

from stremn.errors import StremnError
from stremn.files import write_whole
from stremn.video import IMAGE_SUFFIXES, natural_order

Labels = Integer[np.ndarray, "height width"]
MaskInput = str | Path | np.ndarray | Image.Image

VOID = 255  # in palette masks with several ids: pixels without an answer (DAVIS)
MAX_ID = 65535
_LOSSY = frozenset({"JPEG", "MPO", "WEBP"})
_LOSSY_TOLERANCE = 20  # per channel: compression noise stays under it in flat regions
_LOSSY_REACH = 8.0  # pixels: compression works on blocks of this size
_SOFT_REACH = 3.0  # pixels that a soft edge is wide
_FEW_EDGE_CODES = 3
_MANY_COLORS = 64  # more in the opaque part: a picture that was cut out, not ids
_PICTURE_SHARE = 0.3  # of pixels that are in no 3x3 block of one value
_ASPECT_TOLERANCE = 0.02
_GREY_IDS = 20
_LISTED = 20
_DARK = 32
_WHITE = 200


@dataclass(frozen=True)
class LabelMap:
    """Which object each pixel belongs to.

    Attributes:
        labels: "height width", uint8 or (if an id is over 255) uint16; 0 is background.
        ids: the ids present, ascending, without 0.
    """

    labels: Labels
    ids: tuple[int, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.labels.shape
        return height, width


def label_map(labels: np.ndarray, what: str = "The mask") -> LabelMap:
    """Check an array of ids (or booleans) and find which ids it holds.

    Raises:
        StremnError: not two-dimensional, not of integers, or ids outside 0..65535.
    """
    if labels.ndim == 3 and 1 in (labels.shape[0], labels.shape[2]):
        labels = labels.reshape([side for side in labels.shape if side != 1] or [1, 1])
    if labels.ndim != 2 or labels.size == 0:
        raise StremnError(f"{what} must have the shape (height, width), got {labels.shape}.")
    if labels.dtype == np.bool_:
        labels = labels.astype(np.uint8)
    if not np.issubdtype(labels.dtype, np.integer):
        raise StremnError(
            f"{what} must hold integer ids (0 is background), got {labels.dtype}. Threshold "
            "probabilities first, for example mask > 0.5."
        )
    values = np.unique(labels)
    if values[0] < 0 or values[-1] > MAX_ID:
        raise StremnError(
            f"{what} must hold ids from 0 to {MAX_ID}, got {values[0]} to {values[-1]}."
        )
    kind = np.uint8 if values[-1] <= 255 else np.uint16
    ids = tuple(int(value) for value in values if value)
    return LabelMap(labels.astype(kind), ids)


# ---------------------------------------------------------------- what a file holds


@dataclass(frozen=True)
class _Raw:
    """One code per pixel, before any judgement.

    `kind` is "palette" (index), "grey" (value), "colors" (r * 65536 + g * 256 + b), "binary"
    (0 and 1) or "array" (ids as given).
    """

    kind: str
    codes: Int32[np.ndarray, "height width"]
    lossy: bool = False
    notes: tuple["Problem", ...] = ()


def _load(mask: MaskInput) -> _Raw:
    if isinstance(mask, np.ndarray):
        if mask.ndim == 3 and mask.shape[2] in (3, 4) and mask.dtype == np.uint8:
            return _from_image(Image.fromarray(mask), "The mask")
        return _Raw("array", label_map(mask).labels.astype(np.int32))
    if isinstance(mask, Image.Image):
        return _from_image(mask, "The mask")
    path = Path(mask)
    try:
        with Image.open(path) as image:
            image.load()
            return _from_image(image, f"The mask {path}")
    except FileNotFoundError as error:
        raise StremnError(f"There is no mask file {path}.") from error
    except UnidentifiedImageError as error:
        raise StremnError(
            f"The mask {path} is no image in a known format. Give a PNG: palette, grey or one "
            "color per object."
        ) from error
    except (OSError, SyntaxError) as error:
        raise StremnError(f"The mask {path} cannot be read: {error}.") from error


def _from_image(image: Image.Image, what: str) -> _Raw:
    lossy = image.format in _LOSSY
    if image.mode == "P":
        return _from_palette(image)
    if image.mode == "1":
        return _Raw("binary", np.asarray(image).astype(np.int32))
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


def _from_palette(image: Image.Image) -> _Raw:
    indices = np.asarray(image).astype(np.int32)
    used = np.unique(indices)
    entries = image.getpalette() or []
    black = [int(i) for i in used if not any(entries[3 * i : 3 * i + 3])]
    if len(black) == 1 and black[0] != 0:
        # A quantized picture: indices are in no order, black is still background.
        return _from_colors(np.asarray(image.convert("RGB")), lossy=False)
    if set(used) <= {0, VOID}:
        return _Raw("binary", (indices == VOID).astype(np.int32), notes=(_grey_255(VOID),))
    if VOID not in used:
        return _Raw("palette", indices)
    void = indices == VOID
    note = Problem("void", f"{int(void.sum())} pixels of index 255 (void) count as background")
    return _Raw("palette", np.where(void, 0, indices), notes=(note,))


def _from_grey(grey: np.ndarray, white: int, lossy: bool) -> _Raw:
    if set(np.unique(grey)) <= {0, white}:
        binary = (grey == white).astype(np.int32)
        return _Raw("binary", binary, lossy, (_grey_255(white),) if binary.any() else ())
    return _Raw("grey", grey.astype(np.int32), lossy)


def _grey_255(white: int) -> "Problem":
    return Problem("binary", f"only the values 0 and {white}: read as one object with id 1")


def _from_colors(rgb: UInt8[np.ndarray, "height width 3"], lossy: bool) -> _Raw:
    wide = rgb.astype(np.int32)
    if (wide == wide[..., :1]).all():
        return _from_grey(wide[..., 0], 255, lossy)
    return _Raw("colors", wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], lossy)


def _from_transparency(rgba: UInt8[np.ndarray, "height width 4"], lossy: bool) -> _Raw:
    opaque = rgba[..., 3] >= 128
    if opaque.all():
        return _from_colors(rgba[..., :3], lossy)
    colors = len(np.unique(rgba[opaque][:, :3], axis=0))
    if colors > 1 and colors <= _MANY_COLORS:
        raw = _from_colors((rgba[..., :3] * opaque[..., None]).astype(np.uint8), lossy)
        note = Problem("alpha", "transparent pixels count as background")
        return _Raw(raw.kind, raw.codes, lossy, (*raw.notes, note))
    # One color, or a picture that was cut out: the opaque part is the object.
    note = Problem("alpha", "the opaque part is read as one object with id 1")
    return _Raw("binary", opaque.astype(np.int32), notes=(note,))


# ---------------------------------------------------------------- codes become ids


class ColorTable:
    """Ids for colors; masks read with the same table give the same color the same id.

    The colors of the standard palette keep their index. Otherwise new colors get the next free
    id, in ascending order of (red, green, blue) within a mask. Black is background.
    """

    def __init__(self) -> None:
        self._ids: dict[int, int] = {0: 0}
        self._standard = True

    def ids(self, codes: Sequence[int]) -> dict[int, int]:
        """The id of each packed color."""
        known = _packed_palette()
        if self._standard and all(code in known for code in codes):
            self._ids |= {code: known[code] for code in codes}
        else:
            self._standard = False
            for code in sorted(set(codes) - set(self._ids)):
                self._ids[code] = max(self._ids.values()) + 1
        return {code: self._ids[code] for code in codes}


def _to_label_map(raw: _Raw, codes: np.ndarray, colors: ColorTable) -> LabelMap:
    if raw.kind != "colors":
        return label_map(codes)
    found, inverse = np.unique(codes, return_inverse=True)
    ids = colors.ids([int(code) for code in found])
    table = np.array([ids[int(code)] for code in found], dtype=np.int32)
    return label_map(table[inverse].reshape(codes.shape))


def _split_codes(raw: _Raw) -> tuple[list[int], list[int]]:
    """Codes that fill at least one 3x3 block (most pixels first), and codes that never do."""
    exact = raw.codes.astype(np.float32)  # exact up to 2**24, which packed colors stay under
    block = np.ones((3, 3), np.uint8)
    core = cv2.erode(exact, block) == cv2.dilate(exact, block)
    solid, counts = np.unique(raw.codes[core], return_counts=True)
    solid = solid[np.argsort(-counts, kind="stable")]
    edge = np.setdiff1d(np.unique(raw.codes), solid)
    return [int(code) for code in solid], [int(code) for code in edge]


def _soft_codes(raw: _Raw, solid: list[int], edge: list[int]) -> list[int]:
    """The codes that look like soft edges between objects, not like objects; often none.

    There are many of them, they fill no block, and they hug objects that do: separate tiny
    objects stand alone.
    """
    objects = [code for code in solid if code]
    if len(edge) < _FEW_EDGE_CODES or len(edge) <= len(objects):
        return []
    if not objects:
        return edge
    apart = _distance_to(np.isin(raw.codes, objects))
    reach = _LOSSY_REACH if raw.lossy else _SOFT_REACH
    return edge if float(np.mean(apart[np.isin(raw.codes, edge)] <= reach)) > 0.9 else []


def _distance_to(region: Bool[np.ndarray, "height width"]) -> np.ndarray:
    """Pixels to the nearest pixel of the region, 0 inside it."""
    return cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, 5)


def _difference(raw: _Raw, codes: np.ndarray, other: int) -> np.ndarray:
    """How much codes differ from one: sum over channels, or of grey values."""
    if raw.kind != "colors":
        return np.abs(codes - other)
    shifts = (16, 8, 0)
    return sum((np.abs((codes >> s & 255) - (other >> s & 255)) for s in shifts), np.zeros(1))


def _tolerance(raw: _Raw) -> int:
    return _LOSSY_TOLERANCE * (3 if raw.kind == "colors" else 1)


def _dominant(raw: _Raw, solid: list[int]) -> list[int]:
    """Solid codes; in lossy files those close to a larger one are noise of it."""
    if not raw.lossy:
        return solid
    kept: list[int] = []
    for code in solid:
        if all(_difference(raw, np.array([code]), other)[0] > _tolerance(raw) for other in kept):
            kept.append(code)
    return kept


def _harden(raw: _Raw, dominant: list[int]) -> np.ndarray:
    """Give every pixel of no dominant code the most alike of the dominant codes nearby."""
    trusted = [_parts_with_block(raw, code) for code in dominant]
    apart = np.stack([_distance_to(region) for region in trusted])
    candidate = apart <= 2 * apart.min(axis=0) + _SOFT_REACH
    if raw.kind == "palette":  # indices in between mean nothing
        cost = apart
    else:
        cost = np.stack([_difference(raw, raw.codes, code) for code in dominant])
    choice = np.where(candidate, cost, np.inf).argmin(axis=0)
    hard = np.array(dominant, dtype=np.int32)[choice]
    inside = np.any(trusted, axis=0)
    own = np.array(dominant, dtype=np.int32)[np.argmax(trusted, axis=0)]
    return np.where(inside, own, hard)


def _parts_with_block(raw: _Raw, code: int) -> Bool[np.ndarray, "height width"]:
    """The connected parts of a code (in lossy files: of codes like it) that hold a 3x3 block."""
    same = _difference(raw, raw.codes, code) <= (_tolerance(raw) if raw.lossy else 0)
    region = same.astype(np.uint8)
    core = cv2.erode(region, np.ones((3, 3), np.uint8)) > 0
    _, parts = cv2.connectedComponents(region, connectivity=4)
    keep = np.zeros(int(parts.max()) + 1, dtype=bool)
    keep[np.unique(parts[core])] = True
    keep[0] = False
    return keep[parts] & same


# ---------------------------------------------------------------- reading


def read_mask(
    mask: MaskInput, size: tuple[int, int] | None = None, colors: ColorTable | None = None
) -> LabelMap:
    """Read a mask in any of the usual forms.

    Palette index or grey value is the id; 0/255 and transparency make one object with id 1; in
    color images every color is an object (see `ColorTable`).

    Args:
        mask: path, PIL image, or array of ids "height width" or of colors "height width 3|4".
        size: (height, width) of the frame that the mask belongs to, if it is to be checked.
        colors: table to share between the masks of one video.

    Raises:
        StremnError: unreadable, another size than the frame, no object, or soft edges that would
            be read as many objects (the message says how to repair the file).
    """
    raw = _load(mask)
    what = f"The mask {mask}" if isinstance(mask, str | Path) else "The mask"
    problems = _find_problems(raw, size)
    blocking = next((problem for problem in problems if problem.blocking), None)
    if blocking is not None:
        advice = ""
        if blocking.repairable and isinstance(mask, str | Path):
            advice = f" Repair it with: stremn check-mask {mask} -o repaired.png"
        raise StremnError(f"{what} cannot be used: {blocking.text}.{advice}")
    return _to_label_map(raw, raw.codes, colors or ColorTable())


# ---------------------------------------------------------------- diagnosis


@dataclass(frozen=True)
class Problem:
    """Something to know about a mask.

    Attributes:
        kind: one word: "soft", "lossy", "picture", "size", "empty", "full", "binary", "void",
            "alpha", "grey-palette", "wide-ids", "dark".
        text: a clause in words.
        blocking: reading the mask as it is would be refused.
        repairable: `repair` mends it.
    """

    kind: str
    text: str
    blocking: bool = False
    repairable: bool = False


@dataclass(frozen=True)
class MaskObject:
    """One object of a mask: id, pixels, box (x, y, width, height)."""

    id: int
    pixels: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class MaskReport:
    """What a mask file holds and what is wrong with it.

    Attributes:
        path: the file, or "array".
        kind: how ids are said: "palette", "grey", "colors", "binary" or "array".
        size: (height, width) in pixels.
        objects: the objects that reading (after repair, if it is needed and possible) gives.
        problems: what to know, worst first.
    """

    path: str
    kind: str
    size: tuple[int, int]
    objects: tuple[MaskObject, ...]
    problems: tuple[Problem, ...] = field(default=())

    @property
    def usable(self) -> bool:
        """Whether the file can be used as it is."""
        return not any(problem.blocking for problem in self.problems)

    @property
    def repairable(self) -> bool:
        """Whether `repair` gives a usable mask from a file that is not."""
        return all(problem.repairable for problem in self.problems if problem.blocking)

    def lines(self) -> list[str]:
        """The report in words, a line each."""
        height, width = self.size
        lines = [f"{self.path}: {width}x{height}, {_KINDS[self.kind]}, {len(self.objects)} objects"]
        for item in self.objects[:_LISTED]:
            x, y, w, h = item.box
            lines.append(f"  id {item.id}: {item.pixels} pixels, box {x},{y},{w},{h}")
        if len(self.objects) > _LISTED:
            lines.append(f"  and {len(self.objects) - _LISTED} more")
        for problem in self.problems:
            mark = "problem" if problem.blocking else "note"
            mend = " (can be repaired)" if problem.repairable else ""
            lines.append(f"  {mark}: {problem.text}{mend}")
        return lines


_KINDS = {
    "palette": "palette indices are ids",
    "grey": "grey values are ids",
    "colors": "every color is an object",
    "binary": "one object",
    "array": "array of ids",
}


def diagnose(mask: MaskInput, frame_size: tuple[int, int] | None = None) -> MaskReport:
    """Say what a mask holds and what is wrong with it, without refusing it.

    Args:
        mask: as in `read_mask`.
        frame_size: (height, width) of the frame that it should fit, if known.

    Raises:
        StremnError: the file cannot be read at all.
    """
    raw = _load(mask)
    problems = _find_problems(raw, frame_size)
    found = _to_label_map(raw, _hard_codes(raw), ColorTable())
    height, width = found.size
    return MaskReport(
        path=str(mask) if isinstance(mask, str | Path) else "array",
        kind=raw.kind,
        size=(height, width),
        objects=objects_of(found),
        problems=tuple(sorted(problems, key=lambda problem: not problem.blocking)),
    )


def objects_of(found: LabelMap) -> tuple[MaskObject, ...]:
    """Pixels and box of each object of a label map."""
    objects = []
    for item in found.ids:
        x, y, w, h = cv2.boundingRect((found.labels == item).astype(np.uint8))
        pixels = int(np.count_nonzero(found.labels == item))
        objects.append(MaskObject(item, pixels, (x, y, w, h)))
    return tuple(objects)


def _find_problems(raw: _Raw, size: tuple[int, int] | None) -> list[Problem]:
    problems = [*_size_problems(raw, size), *_edge_problems(raw), *raw.notes]
    values = np.unique(raw.codes)
    if not values.any():
        problems.append(Problem("empty", "it holds no object (every pixel is background)", True))
    elif values[0] != 0:
        text = "it holds no background (no pixel is 0 or black), so objects fill the frame"
        problems.append(Problem("full", text))
    if raw.kind != "colors" and values[-1] > 255:
        problems.append(
            Problem("wide-ids", f"ids up to {values[-1]}: masks are written as 16-bit PNG")
        )
    if raw.kind == "grey" and not any(problem.blocking for problem in problems):
        problems += _grey_problems([int(value) for value in values if value])
    return problems


def _size_problems(raw: _Raw, size: tuple[int, int] | None) -> list[Problem]:
    height, width = raw.codes.shape
    if size is None or (height, width) == tuple(size):
        return []
    text = f"it is {width}x{height} but the frame is {size[1]}x{size[0]} (width x height)"
    if (width, height) == tuple(size):
        return [Problem("size", f"{text}: it seems to be turned by 90 degrees", True)]
    alike = abs(width / height * size[0] / size[1] - 1) <= _ASPECT_TOLERANCE
    if not alike:
        text += ", of another shape, so it was made for other frames or cropped"
    return [Problem("size", text, blocking=True, repairable=alike)]


def _edge_problems(raw: _Raw) -> list[Problem]:
    solid, edge = _split_codes(raw)
    if float(np.isin(raw.codes, edge).mean()) > _PICTURE_SHARE and len(edge) > _MANY_COLORS:
        text = "it looks like a picture, not like a mask (hardly any region has one value)"
        return [Problem("picture", text, blocking=True)]
    soft = _soft_codes(raw, solid, edge)
    problems = []
    if raw.lossy:
        text = "it is a lossy file (JPEG or WebP), which blurs ids; save masks as PNG"
        problems.append(Problem("lossy", text, repairable=True))
    if soft:
        objects = len([code for code in _dominant(raw, solid) if code])
        text = (
            f"it would be read as {len([c for c in solid + edge if c])} objects, but "
            f"{len(soft)} of them are only soft (anti-aliased or compressed) edges around "
            f"{objects}"
        )
        problems.append(Problem("soft", text, blocking=True, repairable=objects > 0))
    return problems


def _grey_problems(ids: list[int]) -> list[Problem]:
    if _lost_palette(ids):
        text = (
            f"the grey values {_list(ids)} are the standard palette's colors turned grey, so ids "
            f"{_list([_grey_palette()[i] for i in ids])} were probably meant"
        )
        return [Problem("grey-palette", text, repairable=True)]
    if max(ids, default=0) < _DARK:
        text = f"ids {_list(ids)} look black in an image viewer; that is fine"
        return [Problem("dark", text)]
    return []


def _lost_palette(ids: list[int]) -> bool:
    known = _grey_palette()
    return bool(ids) and min(ids) > 9 and all(i in known for i in ids)


def _list(ids: list[int]) -> str:
    return ", ".join(str(i) for i in ids[:8]) + (", ..." if len(ids) > 8 else "")


# ---------------------------------------------------------------- repair


def repair(mask: MaskInput, frame_size: tuple[int, int] | None = None) -> LabelMap:
    """Mend what `diagnose` calls repairable.

    Soft edges go to the most alike object nearby, compression noise to its object, greyed
    palettes back to their ids; another size of the same shape is brought to `frame_size` by
    nearest neighbor.

    Raises:
        StremnError: the mask has a problem that cannot be repaired, or is unreadable.
    """
    raw = _load(mask)
    for problem in _find_problems(raw, frame_size):
        if problem.blocking and not problem.repairable:
            raise StremnError(f"The mask cannot be repaired: {problem.text}.")
    found = _to_label_map(raw, _hard_codes(raw), ColorTable())
    labels = found.labels
    if raw.kind == "grey" and _lost_palette(list(found.ids)):
        table = np.zeros(256, dtype=np.uint8)
        for grey, item in _grey_palette().items():
            table[grey] = item
        labels = table[labels]
    if frame_size is not None and labels.shape != tuple(frame_size):
        height, width = frame_size
        labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    return label_map(labels)


def _hard_codes(raw: _Raw) -> np.ndarray:
    """Codes with soft edges and compression noise removed; unchanged where there are none."""
    solid, edge = _split_codes(raw)
    dominant = _dominant(raw, solid)
    if not any(dominant) or not (raw.lossy or _soft_codes(raw, solid, edge)):
        return raw.codes
    hard = _harden(raw, dominant)
    objects = [code for code in dominant if code]
    if raw.kind == "grey" and len(objects) == 1 and objects[0] >= _WHITE:
        return (hard == objects[0]).astype(np.int32)
    if raw.lossy:  # black is rarely exactly black
        dark = [
            code for code in dominant if _difference(raw, np.array([code]), 0)[0] <= _tolerance(raw)
        ]
        hard = np.where(np.isin(hard, dark), 0, hard)
    return hard


# ---------------------------------------------------------------- colors, files, drawing


@lru_cache(maxsize=1)
def _palette_table() -> UInt8[np.ndarray, "256 3"]:
    ids = np.arange(256)
    table = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):  # bits 0, 3, 6 of the id are red's highest bits, and so on
            source = 3 * bit + channel
            if source < 8:
                table[:, channel] |= ((ids >> source & 1) << (7 - bit)).astype(np.uint8)
    table.setflags(write=False)
    return table


def palette() -> UInt8[np.ndarray, "256 3"]:
    """The field's standard mask palette (PASCAL VOC, DAVIS): the bits of an id, interleaved."""
    return _palette_table().copy()


@lru_cache(maxsize=1)
def _packed_palette() -> dict[int, int]:
    table = _palette_table().astype(int)
    return {int(r << 16 | g << 8 | b): i for i, (r, g, b) in enumerate(table)}


@lru_cache(maxsize=1)
def _grey_palette() -> dict[int, int]:
    """Grey value -> id for the first ids of the palette, as PIL and OpenCV turn color to grey."""
    first = _palette_table()[1 : _GREY_IDS + 1][None]
    grey = np.asarray(Image.fromarray(np.ascontiguousarray(first)).convert("L"))[0]
    return {int(value): i + 1 for i, value in reversed(list(enumerate(grey)))}


def write_mask(path: Path, labels: Labels) -> None:
    """Write a label map as PNG: palette with ids up to 255, 16-bit grey above.

    Raises:
        StremnError: no permission, disk full; a file that was there stays as it was.
    """
    if labels.dtype == np.uint8 or int(labels.max(initial=0)) <= 255:
        image = Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint8), mode=None)
        image.putpalette(_palette_table().tobytes())
    else:
        image = Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint16))
    content = io.BytesIO()
    image.save(content, format="PNG")
    write_whole(path, content.getvalue())


_VIVID = (
    (66, 133, 244), (244, 81, 66), (52, 199, 89), (255, 179, 0), (175, 82, 222), (0, 199, 190),
    (255, 105, 170), (162, 200, 40), (255, 128, 40), (90, 90, 230), (120, 210, 250), (190, 130, 80),
)  # fmt: skip


@lru_cache(maxsize=1)
def _vivid_table() -> UInt8[np.ndarray, "256 3"]:
    """Colors that stand out over a picture, told apart well; index 0 is not drawn."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[1 : len(_VIVID) + 1] = _VIVID
    for item in range(len(_VIVID) + 1, 256):
        hue = item * 0.6180339887 % 1  # golden ratio: neighbors in id are far apart in hue
        level = 0.75 + 0.25 * (item % 2)
        table[item] = [round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, level)]
    return table


def overlay(
    frame: UInt8[np.ndarray, "height width 3"],
    labels: Integer[np.ndarray, "h w"],
    alpha: float = 0.45,
) -> UInt8[np.ndarray, "height width 3"]:
    """The frame with each object filled in its color and outlined.

    Args:
        frame: RGB.
        labels: ids, of the size of the frame; 0 is left as it is.
        alpha: how much of the color is mixed in, 0..1.

    Raises:
        StremnError: frame and labels differ in size.
    """
    if frame.shape[:2] != labels.shape:
        raise StremnError(
            f"Frame and label map must have one size, got {frame.shape[:2]} and {labels.shape}."
        )
    ids = [int(item) for item in np.unique(labels) if item]
    if not ids:
        return frame.copy()
    short = np.where(labels > 255, (labels - 1) % 255 + 1, labels).astype(np.uint8)
    colors = _vivid_table()[short]
    drawn = frame.copy()
    cv2.copyTo(cv2.addWeighted(frame, 1 - alpha, colors, alpha, 0), short, drawn)
    thickness = max(1, round(min(labels.shape) / 300))
    for item in ids:
        outlines, _ = cv2.findContours(
            (labels == item).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
        )
        color = _vivid_table()[(item - 1) % 255 + 1].tolist()
        cv2.drawContours(drawn, outlines, -1, color, thickness, cv2.LINE_AA)
    return drawn


# ---------------------------------------------------------------- masks of a whole video


class MaskSet:
    """The masks given for a video, looked up frame by frame and read when they are needed.

    Attributes:
        kind: "first" (one file for the first frame), "frames" (files named by frame) or "objects"
            (one file per object, all for the first frame).
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
        """The mask of one frame, or None if none was given.

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
) -> MaskSet:
    """Find the masks for a video.

    Args:
        source: a mask file for the first frame, or a folder of masks: named like the frames
            (several moments), or one per object ("2.png", "dog.png"; a number in the name is the
            id).
        size: (height, width) of the frames.
        names: the frames' names if they have any; videos are matched by frame number.
        by: "frame" or "object" says what a folder's names mean; "auto" decides: names that are
            frame names are frames, others objects.

    Raises:
        StremnError: nothing there, or names that fit neither meaning.
    """
    if not source.exists():
        raise StremnError(f"There is no mask file or folder {source}.")
    if not source.is_dir():
        return MaskSet("first", {0: (source,)}, size, {})
    files = sorted(
        (path for path in source.iterdir() if _is_image(path)),
        key=lambda path: natural_order(path.stem),
    )
    if not files:
        raise StremnError(f"The folder {source} holds no mask images (PNG expected).")
    index_of = _frame_lookup(names)
    matched = {index_of(path.stem): path for path in files}
    if by == "frame" or (by == "auto" and None not in matched):
        return _masks_by_frame(source, files, index_of, size)
    if by == "auto" and len(matched) > 1:
        strange = next(path.name for path in files if index_of(path.stem) is None)
        raise StremnError(
            f"In the folder {source} some masks are named like frames, but {strange} is not. "
            "Name all of them by frame, or all by object."
        )
    ids = _object_ids(files)
    return MaskSet("objects", {0: tuple(files)}, size, dict(zip(ids, _stems(files), strict=True)))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _stems(files: Sequence[Path]) -> list[str]:
    return [path.stem for path in files]


def _frame_lookup(names: Sequence[str] | None) -> Callable[[str], int | None]:
    """From a mask's stem to the index of its frame; a video's frames are five digits."""
    if names is not None:
        known = {name: index for index, name in enumerate(names)}
        return known.get
    return lambda stem: int(stem) if stem.isdecimal() and len(stem) >= len("00000") else None


def _masks_by_frame(
    source: Path,
    files: Sequence[Path],
    index_of: Callable[[str], int | None],
    size: tuple[int, int],
) -> MaskSet:
    found: dict[int, tuple[Path, ...]] = {}
    for path in files:
        index = index_of(path.stem)
        if index is None and path.stem.isdecimal():
            index = int(path.stem)
        if index is None:
            raise StremnError(
                f"The mask {path} is named after no frame. Expected frame names such as 00000.png."
            )
        found[index] = (path,)
    return MaskSet("frames", found, size, {})


def _object_ids(files: Sequence[Path]) -> list[int]:
    """The number in each name if all have one and they differ, else 1, 2, ... in natural order."""
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
