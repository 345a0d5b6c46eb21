"""Report what a mask file holds and what is wrong with it, and repair it."""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from stremn.errors import StremnError
from stremn.media.mask_codes import MaskCodes, Problem, hard_codes
from stremn.media.mask_problems import find_problems, is_lost_palette
from stremn.media.masks import (
    ColorTable,
    LabelMap,
    MaskInput,
    MaskObject,
    codes_of,
    label_map,
    objects_of,
    to_label_map,
)
from stremn.media.palettes import grey_palette

_LISTED = 20


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
        """Return the report as lines of text."""
        height, width = self.size
        count = "1 object" if len(self.objects) == 1 else f"{len(self.objects)} objects"
        lines = [f"{self.path}: {width}x{height}, {_KINDS[self.kind]}, {count}"]
        for item in self.objects[:_LISTED]:
            x, y, w, h = item.box
            lines.append(f"  id {item.id}: {item.pixels} pixels, box {x},{y},{w},{h}")
        if len(self.objects) > _LISTED:
            lines.append(f"  and {len(self.objects) - _LISTED} more")
        for problem in self.problems:
            mark = "problem" if problem.blocking else "note"
            hint = " (can be repaired)" if problem.repairable else ""
            lines.append(f"  {mark}: {problem.text}{hint}")
        return lines


_KINDS = {
    "palette": "palette indices are ids",
    "grey": "grey values are ids",
    "colors": "every color is an object",
    "binary": "black and white",
    "array": "array of ids",
}


def diagnose(mask: MaskInput, frame_size: tuple[int, int] | None = None) -> MaskReport:
    """Report what a mask holds and what is wrong with it, without raising an error.

    Args:
        mask: as in `read_mask`.
        frame_size: (height, width) of the frame that it should fit, if known.

    Raises:
        StremnError: the file cannot be read at all.
    """
    raw = codes_of(mask)
    problems = find_problems(raw, frame_size)
    is_picture = any(problem.kind == "picture" for problem in problems)
    height, width = raw.codes.shape
    return MaskReport(
        path=str(mask) if isinstance(mask, str | Path) else "array",
        kind=raw.kind,
        size=(height, width),
        objects=() if is_picture else _objects(raw),
        problems=tuple(sorted(problems, key=lambda problem: not problem.blocking)),
    )


def _objects(raw: MaskCodes) -> tuple[MaskObject, ...]:
    return objects_of(to_label_map(raw, hard_codes(raw), ColorTable()))


def repair(mask: MaskInput, frame_size: tuple[int, int] | None = None) -> LabelMap:
    """Repair a mask where `diagnose` calls it repairable.

    Soft edges go to the most alike object nearby, compression noise to its object, greyed
    palettes back to their ids; another size of the same shape is brought to `frame_size` by
    nearest neighbor.

    Raises:
        StremnError: the mask has a problem that cannot be repaired, or is unreadable.
    """
    raw = codes_of(mask)
    for problem in find_problems(raw, frame_size):
        if problem.blocking and not problem.repairable:
            raise StremnError(f"The mask cannot be repaired: {problem.text}.")
    found = to_label_map(raw, hard_codes(raw), ColorTable())
    labels = found.labels
    if raw.kind == "grey" and is_lost_palette(list(found.ids)):
        table = np.zeros(256, dtype=np.uint8)
        for grey, item in grey_palette().items():
            table[grey] = item
        labels = table[labels]
    if frame_size is not None and labels.shape != tuple(frame_size):
        height, width = frame_size
        labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    return label_map(labels)
