"""The marks of a user in one frame, and the masks that they lead to."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Bool

from stremn.errors import StremnError
from stremn.media.finding import Click, MaskFinder, find_in_box
from stremn.media.frames import Picture
from stremn.media.masks import LabelMap, Labels
from stremn.media.prompts import Box
from stremn.web.marks import BoxMark, ClickMark, StrokeMark

ObjectMask = Bool[np.ndarray, "height width"]


@dataclass(frozen=True)
class Packed:
    """A label map in a small number of bytes; undo keeps many of them."""

    data: bytes
    size: tuple[int, int]
    kind: str

    @classmethod
    def of(cls, labels: Labels) -> Packed:
        """Pack a label map."""
        content = zlib.compress(np.ascontiguousarray(labels).tobytes(), 1)
        return cls(content, (labels.shape[0], labels.shape[1]), labels.dtype.str)

    def labels(self) -> Labels:
        """Unpack it."""
        flat = np.frombuffer(zlib.decompress(self.data), np.dtype(self.kind))
        return flat.reshape(self.size)


@dataclass(frozen=True)
class Said:
    """The marks of one object since its mask was last painted.

    Attributes:
        box: around it, if one was drawn.
        clicks: on and off it, in their order.
        before: its mask before the clicks, packed; None: there was none.
    """

    box: Box | None = None
    clicks: tuple[Click, ...] = ()
    before: Packed | None = None


@dataclass(frozen=True)
class Drawing:
    """The marked objects of one frame; immutable, every change makes a new drawing.

    Attributes:
        index: of the frame.
        packed: the label map now.
        touched: ids of the objects about which something was said here.
        said: by object, what the next click goes on from.
    """

    index: int
    packed: Packed
    touched: frozenset[int] = frozenset()
    said: Mapping[int, Said] = field(default_factory=dict)

    @classmethod
    def on(cls, index: int, labels: Labels) -> Drawing:
        """Start from the known label map of a frame; label 0 is background."""
        return cls(index, Packed.of(labels.astype(np.uint16)))

    def labels(self) -> Labels:
        """Return the label map now."""
        return self.packed.labels()

    @cached_property
    def given(self) -> dict[int, Packed]:
        """The masks of the objects that were marked here, by id."""
        labels = self.labels()
        return {i: Packed.of((labels == i).astype(np.uint8)) for i in sorted(self.touched)}

    def only(self, objects: Set[int]) -> Drawing:
        """Return the drawing without other objects than these."""
        labels = self.labels()
        said = {i: one for i, one in self.said.items() if i in objects}
        kept = np.where(np.isin(labels, list(objects)), labels, 0)
        return self._with(kept, self.touched & objects, said, only=True)

    def marked(
        self,
        frame: Picture,
        item: int,
        mark: BoxMark | ClickMark | StrokeMark,
        find: MaskFinder,
    ) -> Drawing:
        """Return the drawing after one more mark of object `item`.

        What is another object already is not given to this one, unless it is painted over or
        this one lies wholly on it (`find_in_box`).

        Raises:
            StremnError: the gesture leads to no object, or to the end of one.
        """
        labels = self.labels()
        mask, others = labels == item, (labels > 0) & (labels != item)
        said = self.said.get(item, Said(before=_pack(mask)))
        if isinstance(mark, BoxMark):
            said = Said(box=mark.box)
            mask = find_in_box(find, frame, mark.box, others)
        elif isinstance(mark, ClickMark):
            _check_begun(mask, said, mark.on)
            said = replace(said, clicks=(*said.clicks, mark.click))
            before = None if said.before is None else said.before.labels() > 0
            previous = None if before is None else before & ~others
            mask = find(frame, box=said.box, clicks=said.clicks, previous=previous, others=others)
        else:
            mask, others = _stroked(frame, mask, mark, others, find)
            said = Said(before=_pack(mask))
        if not mask.any():
            raise StremnError(
                "Nothing would be left of the object. To delete it, remove it from the list."
            )
        kept = np.where(others, labels, 0)
        return self._with(np.where(mask, item, kept), {item}, {**self.said, item: said})

    def with_objects(self, found: LabelMap) -> Drawing:
        """Return the drawing with the objects of a mask file instead."""
        return self._with(found.labels, set(found.ids), {}, only=True)

    def _with(
        self,
        labels: Labels,
        touched: Iterable[int],
        said: Mapping[int, Said],
        *,
        only: bool = False,
    ) -> Drawing:
        packed = Packed.of(labels.astype(np.uint16))
        known = frozenset(touched) if only else self.touched | frozenset(touched)
        present = frozenset(int(i) for i in np.unique(labels) if i)
        return replace(self, packed=packed, touched=known & present, said=said)


def _pack(mask: ObjectMask) -> Packed | None:
    return Packed.of(mask.astype(np.uint8)) if mask.any() else None


def _check_begun(mask: ObjectMask, said: Said, on: bool) -> None:
    if not on and not mask.any() and said.box is None:
        raise StremnError(
            "There is no object yet to remove something from. Draw a box around it, or click "
            "on it, first."
        )


def _stroked(
    frame: Picture, mask: ObjectMask, mark: StrokeMark, others: ObjectMask, find: MaskFinder
) -> tuple[ObjectMask, ObjectMask]:
    """Return the object after a stroke, and the other objects without the painted pixels."""
    size = (frame.shape[0], frame.shape[1])
    painted = mark.pixels(size)
    if not painted.any():
        raise StremnError("The stroke lies outside the frame. Draw it again.")
    if not mark.on and not (painted & mask).any():
        raise StremnError("The eraser did not touch the object that is chosen.")
    if mark.snap:
        painted = painted & ~others
        clicks = mark.clicks(size)
        if clicks and (mark.on or mask.any()):
            mask = _snapped(frame, mask, clicks, painted, others, find)
    return (mask | painted, others & ~painted) if mark.on else (mask & ~painted, others)


def _snapped(
    frame: Picture,
    mask: ObjectMask,
    clicks: tuple[Click, ...],
    painted: ObjectMask,
    others: ObjectMask,
    find: MaskFinder,
) -> ObjectMask:
    """Return the object corrected by clicks along a stroke, where the change touches the stroke."""
    previous = mask if mask.any() else None
    try:
        found = find(frame, clicks=clicks, previous=previous, others=others)
    except StremnError:
        return mask  # the stroke's own pixels still count
    wanted = found & ~mask if clicks[0].on else mask & ~found
    _, parts = cv2.connectedComponents((wanted | painted).astype(np.uint8), connectivity=8)
    touching = np.isin(parts, np.unique(parts[painted])) & (parts > 0)
    return mask ^ (wanted & touching)
