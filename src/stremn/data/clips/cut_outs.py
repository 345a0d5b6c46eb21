"""Objects cut out of still images, and how they are drawn from several sets."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from stremn.data.readers.stills import Still, StillImages
from stremn.data.shapes import (
    Mask,
    around,
    blob,
    bounding_box,
    feathered,
    half_plane,
    large_ids,
    touches_border,
)
from stremn.errors import StremnError
from stremn.media.frames import Picture
from stremn.media.mask_codes import VOID

SMALLEST_OBJECT = 0.01
"""Share of its picture that an object must cover to be used: smaller ones are only blur."""

MARGIN = 4
"""Pixels of the picture kept around what is cut out, for its soft edge."""

ATTEMPTS = 200
"""Stills looked at for a whole object before their sets are called unusable."""


@dataclass(frozen=True)
class CutOut:
    """An object cut out of its picture: opacity 0-255, and the id map of what it consists of."""

    image: Picture
    alpha: Mask
    ids: Mask | None

    def marked(self, rng: np.random.Generator, number: int, half: bool) -> "CutOut":
        """Return the same object with the label `number`, on all of it, a part or a half."""
        ids = np.full_like(self.alpha, number)
        if self.ids is not None:
            parts = large_ids(self.ids)
            part = parts[rng.choice(len(parts))]
            ids = np.where(self.ids == part, ids, np.uint8(0))
        elif half:
            ids *= half_plane(rng, self.alpha)
        return CutOut(self.image, self.alpha, ids)


class StillDraw:
    """Draws stills and cut-outs from several sets."""

    def __init__(self, sets: Sequence[StillImages], weights: Sequence[float] | None) -> None:
        chosen = [float(len(part)) for part in sets] if weights is None else list(weights)
        if not sets or len(chosen) != len(sets) or min(chosen) < 0 or sum(chosen) <= 0:
            raise StremnError(
                f"Still-image clips need at least one set and a weight for each; "
                f"got {len(sets)} sets and weights {chosen}."
            )
        self._sets = list(sets)
        self._shares = np.array(chosen) / sum(chosen)

    def any_set(self, rng: np.random.Generator) -> int:
        """Draw the number of a set by the weights."""
        return int(rng.choice(len(self._sets), p=self._shares))

    def still(self, rng: np.random.Generator, number: int | None = None) -> Still:
        """Draw a still, of the set `number` if it is given."""
        part = self._sets[self.any_set(rng) if number is None else number]
        return part.load(int(rng.integers(len(part))))

    def targets(
        self, rng: np.random.Generator, still: Still, most: int, half: bool
    ) -> tuple[Mask, int]:
        """Choose up to `most` objects of a still: id map with labels 1.., and how many."""
        numbers = large_ids(still.ids, SMALLEST_OBJECT)
        if not numbers:
            return still.ids, 0
        count = int(rng.integers(1, max(1, min(most, len(numbers))) + 1))
        chosen = rng.permutation(numbers)[:count]
        table = np.zeros(256, dtype=np.uint8)
        table[chosen] = np.arange(1, count + 1)
        table[VOID] = VOID
        ids = cv2.LUT(still.ids, table)
        if half and count == 1:
            ids[(half_plane(rng, (ids == 1).astype(np.uint8)) == 0) & (ids == 1)] = 0
        return ids, count

    def cut_out(self, rng: np.random.Generator, still: Still) -> CutOut | None:
        """Cut an object out of a still; None if it has none that lies whole in the picture.

        An object cut by the picture's edge would have a straight side in the clip.
        """
        numbers = large_ids(still.ids, SMALLEST_OBJECT)
        if not numbers:
            return None
        whole = _object(still, int(rng.choice(numbers)) if still.kind == "instances" else None)
        box = bounding_box(whole)
        if box is None or touches_border(whole):
            return None
        here = around(box, MARGIN)
        parts = np.ascontiguousarray(still.ids[here]) if still.kind == "parts" else None
        return CutOut(
            np.ascontiguousarray(still.image[here]),
            feathered(np.ascontiguousarray(whole[here])),
            parts,
        )

    def whole_cut_out(self, rng: np.random.Generator, number: int | None = None) -> CutOut:
        """Draw a cut-out of a still that has one, of the set `number` if it is given.

        Raises StremnError if none is found.
        """
        for _ in range(ATTEMPTS):
            found = self.cut_out(rng, self.still(rng, number))
            if found is not None:
                return found
        raise StremnError("The still images hold no object that lies whole in its picture.")


def _object(still: Still, number: int | None) -> Mask:
    """Return one object of a still, 0 or 1; with None all that is marked is one object."""
    mask = (still.ids > 0) & (still.ids != VOID) if number is None else still.ids == number
    return mask.astype(np.uint8)


def holds_whole_object(still: Still) -> bool:
    """Return whether a still has an object that can be cut out: large enough, not cut by the
    edge."""
    numbers = large_ids(still.ids, SMALLEST_OBJECT)
    if still.kind == "instances":
        return any(not touches_border(_object(still, number)) for number in numbers)
    return bool(numbers) and not touches_border(_object(still, None))


def require_whole(sets: Mapping[str, StillImages]) -> None:
    """Look in each set, by name, for a still with an object that can be cut out.

    Stops at the first, and passes over what cannot be read (`still_sets.check_stills` names that).
    Raises StremnError that names every set without one.
    """
    without_any = [name for name, stills in sets.items() if not _has_whole(stills)]
    if without_any:
        raise StremnError(
            f"No object lies whole in its picture in {', '.join(without_any)}, and composed clips "
            "are made of objects cut out. Add pictures whose object is away from the edge, or "
            'use them in a source of kind = "stills".'
        )


def _has_whole(stills: StillImages) -> bool:
    for index in range(len(stills)):
        with contextlib.suppress(StremnError):
            if holds_whole_object(stills.load(index)):
                return True
    return False


def occluder(rng: np.random.Generator, draw: StillDraw) -> CutOut:
    """Return another object, or a random shape filled with a piece of a photo."""
    if rng.random() < 0.5:
        found = draw.cut_out(rng, draw.still(rng))
        if found is not None:
            return CutOut(found.image, found.alpha, None)
    photo = draw.still(rng).image
    side = min(photo.shape[:2])
    y = int(rng.integers(photo.shape[0] - side + 1))
    x = int(rng.integers(photo.shape[1] - side + 1))
    piece = np.ascontiguousarray(photo[y : y + side, x : x + side])
    return CutOut(piece, feathered(blob(rng, side)), None)
