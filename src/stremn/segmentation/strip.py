"""The memory strip: a picture of the frames that the memory holds, object by object."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import cv2
import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, ImageDraw, ImageFont

from stremn.errors import StremnError
from stremn.media.files import write_whole
from stremn.media.masks import overlay
from stremn.segmentation.reports import MemoryReport, ObjectMemory, StepResult

TILE = 180
"""Height of a frame in the strip, in pixels."""

WIDEST = 16 * TILE
"""Width of a frame in the strip, at most, in pixels; a wider one is less than `TILE` high."""

_CAPTION = 26
_GAP = 6
_PAPER, _INK, _FAINT = (255, 255, 255), (40, 40, 40), (200, 200, 200)
_KEPT = Path(".resume") / "strip.npz"


@dataclass(frozen=True)
class _Seen:
    """A frame of the video, and its segmentation."""

    index: int
    frame: UInt8[np.ndarray, "height width 3"]
    labels: Integer[np.ndarray, "height width"]


@dataclass(frozen=True)
class _Tile:
    """A frame that fits into the strip, and its segmentation."""

    frame: UInt8[np.ndarray, "h w 3"]
    labels: Integer[np.ndarray, "h w"]

    @classmethod
    def of(cls, seen: _Seen) -> Self:
        height, width = seen.labels.shape
        scale = min(TILE / height, WIDEST / width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        frame = cv2.resize(seen.frame, size, interpolation=cv2.INTER_AREA)
        return cls(frame, cv2.resize(seen.labels, size, interpolation=cv2.INTER_NEAREST))

    def drawn(self, item: int) -> UInt8[np.ndarray, "h w 3"]:
        """Return the frame with one object colored: the one whose template was made of it."""
        return overlay(self.frame, np.where(self.labels == item, self.labels, 0))


class MemoryStrip:
    """Keeps a small picture of every frame that some slot holds, and no other.

    Its size is bounded: K pictures per object. The latest frame, which most often
    is the next to leave the memory, is drawn only once it has stayed.
    """

    def __init__(self) -> None:
        self._pictures: dict[int, _Tile] = {}
        self._latest: _Seen | None = None
        self._report: MemoryReport | None = None

    def add(self, frame: UInt8[np.ndarray, "height width 3"], result: StepResult) -> None:
        """Take the frame of a step, and drop the pictures that no slot holds any more."""
        self._report = result.memory
        held = {t for o in result.memory.objects for t in o.frames if t is not None}
        self._pictures = {t: p for t, p in self._pictures.items() if t in held}
        if self._latest is not None and self._latest.index in held:
            self._draw_latest()
        self._latest = None
        if result.frame in held:
            self._latest = _Seen(result.frame, frame, result.labels)

    def _draw_latest(self) -> None:
        if self._latest is not None:
            self._pictures[self._latest.index] = _Tile.of(self._latest)
            self._latest = None

    def draw(self) -> UInt8[np.ndarray, "height width 3"]:
        """Return the strip: a row for each object, a tile for each slot, in order of time."""
        self._draw_latest()
        if self._report is None or not self._pictures:
            return np.full((TILE, TILE, 3), 255, np.uint8)
        objects = self._report.objects
        names = [f"object {entry.id}: " if len(objects) > 1 else "" for entry in objects]
        return np.concatenate([self._row(*pair) for pair in zip(objects, names, strict=True)])

    def _row(self, entry: ObjectMemory, name: str) -> UInt8[np.ndarray, "height width 3"]:
        """Draw the slots of an object, the empty ones last; `name` stands before the first."""
        width = next(iter(self._pictures.values())).frame.shape[1]
        slots = zip(entry.frames, entry.pinned, strict=True)
        held = sorted(slots, key=lambda slot: (slot[0] is None, slot[0] or 0))
        canvas = Image.new(
            "RGB", (len(held) * (width + _GAP) + _GAP, TILE + _CAPTION + _GAP), _PAPER
        )
        pen = ImageDraw.Draw(canvas)
        font = ImageFont.load_default(15)
        for place, (t, pinned) in enumerate(held):
            x = _GAP + place * (width + _GAP)
            if t is None or t not in self._pictures:
                pen.rectangle((x, _CAPTION, x + width - 1, _CAPTION + TILE - 1), outline=_FAINT)
                caption = "empty" if t is None else f"frame {t}"
            else:
                canvas.paste(Image.fromarray(self._pictures[t].drawn(entry.id)), (x, _CAPTION))
                caption = f"frame {t}" + (" (given)" if pinned else "")
            pen.text((x, 5), caption if place else name + caption, fill=_INK, font=font)
        return np.asarray(canvas)

    def save(self, path: Path) -> None:
        """Write the strip as PNG."""
        content = io.BytesIO()
        Image.fromarray(self.draw()).save(content, format="PNG")
        write_whole(path, content.getvalue())

    # ------------------------------------------------------------ resuming

    def keep(self, out: Path) -> None:
        """Write the pictures beside the run's state, for `restored`."""
        self._draw_latest()
        times = np.array(sorted(self._pictures), dtype=np.int64)
        content = io.BytesIO()
        tiles = [self._pictures[int(t)] for t in times]
        np.savez_compressed(
            content,
            times=times,
            pictures=np.array([tile.frame for tile in tiles]),
            labels=np.array([tile.labels for tile in tiles]),
        )
        write_whole(out / _KEPT, content.getvalue())

    @classmethod
    def restored(cls, out: Path, report: MemoryReport | None = None) -> Self:
        """Return the strip kept in an output folder, or an empty one.

        Args:
            out: the folder.
            report: what the memory holds now; without it, `draw` waits for a step.

        Raises:
            StremnError: what was kept is damaged.
        """
        strip = cls()
        strip._report = report
        path = out / _KEPT
        if not path.is_file():
            return strip
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
                times, pictures = kept["times"].tolist(), kept["pictures"]
                labels = kept["labels"]
            if pictures.size and (pictures.dtype != np.uint8 or pictures.shape[3:] != (3,)):
                raise ValueError(f"its pictures are {pictures.dtype} of shape {pictures.shape}")
            if labels.shape != pictures.shape[:3] or (
                labels.dtype.kind not in "iu" and labels.size
            ):
                raise ValueError(f"its labels are {labels.dtype} of shape {labels.shape}")
            tiles = (_Tile(*pair) for pair in zip(pictures, labels, strict=True))
            strip._pictures = dict(zip(times, tiles, strict=True))
        except Exception as error:  # a damaged zip raises many kinds
            raise StremnError(
                f"{path} is damaged, so the run cannot be continued: {error}. Use --overwrite to "
                "start again."
            ) from error
        return strip
