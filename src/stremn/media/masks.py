"""Read label maps from all common kinds of mask files; write and draw them.

A label map holds one integer per pixel: 0 is background, any other number the id of an object.
"""

import io
import shlex
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from stremn.errors import StremnError
from stremn.media.files import write_whole
from stremn.media.frames import Picture
from stremn.media.mask_codes import MAX_ID, MaskCodes, codes_of_image, read_codes
from stremn.media.mask_problems import find_problems
from stremn.media.palettes import packed_palette, palette, vivid_table
from stremn.media.pictures import check_pixels, opened_picture

Labels = Integer[np.ndarray, "height width"]
MaskInput = str | Path | np.ndarray | Image.Image


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


@dataclass(frozen=True)
class MaskObject:
    """One object of a mask: id, pixels, box (x, y, width, height)."""

    id: int
    pixels: int
    box: tuple[int, int, int, int]


def objects_of(found: LabelMap) -> tuple[MaskObject, ...]:
    """Return pixels and box of each object of a label map."""
    objects = []
    for item in found.ids:
        x, y, w, h = cv2.boundingRect((found.labels == item).astype(np.uint8))
        pixels = int(np.count_nonzero(found.labels == item))
        objects.append(MaskObject(item, pixels, (x, y, w, h)))
    return tuple(objects)


# ---------------------------------------------------------------- reading


class ColorTable:
    """Ids for colors; masks read with the same table give the same color the same id.

    The colors of the standard palette keep their index. Other colors get the next free
    id, in ascending order of (red, green, blue) within a mask. Black is background.
    """

    def __init__(self) -> None:
        self._ids: dict[int, int] = {0: 0}
        self._standard = True

    def ids(self, codes: Sequence[int]) -> dict[int, int]:
        """Return the id of each packed color."""
        known = packed_palette()
        if self._standard and all(code in known for code in codes):
            self._ids |= {code: known[code] for code in codes}
        else:
            self._standard = False
            for code in sorted(set(codes) - set(self._ids)):
                self._ids[code] = max(self._ids.values()) + 1
        return {code: self._ids[code] for code in codes}


def to_label_map(raw: MaskCodes, codes: np.ndarray, colors: ColorTable) -> LabelMap:
    """Return the label map of codes "height width" (of the kind of `raw`), colors numbered by
    the table.

    Raises:
        StremnError: more ids than a mask can hold.
    """
    if raw.kind != "colors":
        return label_map(codes)
    found, inverse = np.unique(codes, return_inverse=True)
    ids = colors.ids([int(code) for code in found])
    table = np.array([ids[int(code)] for code in found], dtype=np.int32)
    return label_map(table[inverse].reshape(codes.shape))


def codes_of(mask: MaskInput, size: tuple[int, int] | None = None) -> MaskCodes:
    """Return the codes of a mask in any form, for a frame of `size` (height, width), if it is
    known.

    Raises:
        StremnError: it cannot be read, or is far larger than its frame.
    """
    if isinstance(mask, np.ndarray):
        if mask.ndim == 3 and mask.shape[2] in (3, 4) and mask.dtype == np.uint8:
            return codes_of_image(Image.fromarray(mask))
        return MaskCodes("array", label_map(mask).labels.astype(np.int32))
    if isinstance(mask, Image.Image):
        try:
            check_pixels(*mask.size)
            return codes_of_image(mask)
        except OSError as error:  # it may be decoded only now
            raise StremnError(f"The mask cannot be read: {error}.") from error
    return read_codes(Path(mask), size)


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
    raw = codes_of(mask, size)
    what = f"The mask {mask}" if isinstance(mask, str | Path) else "The mask"
    problems = find_problems(raw, size)
    blocking = next((problem for problem in problems if problem.blocking), None)
    if blocking is not None:
        advice = ""
        if blocking.repairable and isinstance(mask, str | Path):
            sizes_differ = any(problem.kind == "size" for problem in problems)
            command = repair_command(mask, "VIDEO" if sizes_differ else None)
            advice = f" Repair it with: {command}"
        raise StremnError(f"{what} cannot be used: {blocking.text}.{advice}")
    return to_label_map(raw, raw.codes, colors or ColorTable())


def repair_command(mask: str | Path, source: str | None) -> str:
    """Return the command that repairs a mask file; `source` is the video it is for, if sizes
    matter."""
    size = "" if source is None else f" --frame {shlex.quote(source)}"
    return f"stremn check-mask {shlex.quote(str(mask))}{size} -o repaired.png"


# ---------------------------------------------------------------- writing, drawing


def write_mask(path: Path, labels: Labels, *, durable: bool = True) -> None:
    """Write a label map as PNG: palette with ids up to 255, 16-bit grey above.

    `durable` is as in `atomic_files.replacing`.

    Raises:
        StremnError: no permission, disk full; a file that was there stays as it was.
    """
    if labels.dtype == np.uint8 or int(labels.max(initial=0)) <= 255:
        image = Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint8))
        image.putpalette(palette().tobytes())
    else:
        image = Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint16))
    content = io.BytesIO()
    # Label maps are runs of equal ids; coded as such they take a third of the time.
    image.save(content, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
    write_whole(path, content.getvalue(), durable=durable)


def written_labels(path: Path) -> Labels:
    """Return the ids "height width" of a file that `write_mask` wrote.

    Raises:
        OSError: it is gone or damaged, or was changed to an image of colors.
    """
    with opened_picture(path) as image:
        labels = np.asarray(image)
    if labels.ndim != 2:
        raise OSError("it holds colors, not ids")
    return labels


def _folded(labels: Integer[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Return ids as indices of colors: those above 255 begin at 1 again."""
    return np.where(labels > 255, (labels - 1) % 255 + 1, labels).astype(np.uint8)


def overlay(
    frame: Picture,
    labels: Integer[np.ndarray, "h w"],
    alpha: float = 0.3,
    *,
    outline: bool = True,
) -> Picture:
    """Return the frame with each object filled in its color and outlined.

    Args:
        frame: RGB.
        labels: ids, of the size of the frame; 0 is left as it is.
        alpha: how much of the color is mixed in, 0..1.
        outline: draw a line around each object.

    Raises:
        StremnError: frame and labels differ in size.
    """
    if frame.shape[:2] != labels.shape:
        raise StremnError(
            f"Frame and label map must have one size, got {frame.shape[:2]} and {labels.shape}."
        )
    drawn = frame.copy()
    ids = labels if labels.dtype == np.uint8 else _folded(labels)
    x, y, w, h = cv2.boundingRect(ids)
    if w == 0:
        return drawn
    # OpenCV's passes, since they leave other threads running; NumPy's would stop the model.
    part, inside = drawn[y : y + h, x : x + w], np.ascontiguousarray(ids[y : y + h, x : x + w])
    colors = cv2.applyColorMap(inside, vivid_table()[:, None, :])
    tinted = cv2.addWeighted(part, 1 - alpha, colors, alpha, 0)
    cv2.copyTo(tinted, inside, part)
    if not outline:
        return drawn
    thickness = max(1, round(min(labels.shape) / 300))
    counts = cv2.calcHist([inside], [0], None, [256], [0, 256]).ravel()
    for item in np.flatnonzero(counts[1:]) + 1:
        outlines, _ = cv2.findContours(
            cv2.inRange(ids, int(item), int(item)), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
        )
        color = vivid_table()[item].tolist()
        cv2.drawContours(drawn, outlines, -1, color, thickness, cv2.LINE_AA)
    return drawn
