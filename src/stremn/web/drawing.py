"""What a user says about a frame: clicks and boxes that become a mask."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Bool

from stremn.errors import StremnError
from stremn.media.finding import Click, MaskFinder, grab_cut
from stremn.media.frames import Picture
from stremn.media.masks import LabelMap, Labels, label_map, overlay
from stremn.media.prompts import Box, Point

_MARK_SHARE = 120  # a mark's radius is this part of the frame's longer side


class Tool(StrEnum):
    """What a click on the frame means."""

    BOX = "Corner of a box"
    ON = "On the object"
    OFF = "Not the object"


@dataclass(frozen=True)
class Drawing:
    """What a user has said about a frame so far; every change makes a new one.

    Attributes:
        frame: the frame.
        labels: the objects that are done, "height width".
        marks: (tool, point) of the object at hand, in the order of the clicks.
        index: number of the frame in the video; after the first one, a correction.
        begun_with: the labels before anything was said: none, or what was found.
        target: id of the object that is corrected; None if the object at hand is a new one.
        given: the masks given for other frames, by their numbers.
        find: what finds an object from clicks and a box.
    """

    frame: Picture
    labels: Labels
    marks: tuple[tuple[Tool, Point], ...] = ()
    index: int = 0
    begun_with: Labels | None = None
    target: int | None = None
    given: Mapping[int, LabelMap] = field(default_factory=dict)
    find: MaskFinder = grab_cut

    @classmethod
    def on(cls, frame: Picture, find: MaskFinder = grab_cut) -> "Drawing":
        """Nothing said yet."""
        return cls(frame, np.zeros(frame.shape[:2], dtype=np.uint16), find=find)

    def correcting(self, index: int, frame: Picture, found: LabelMap) -> "Drawing":
        """A correction of what was found in frame `index`; what was said before stays given."""
        labels = found.labels.astype(np.uint16)
        target = found.ids[0] if found.ids else None
        return Drawing(frame, labels, (), index, labels, target, self.masks(), self.find)

    @property
    def number(self) -> int:
        """Id of the object that the next click is about."""
        return int(self.labels.max(initial=0)) + 1 if self.target is None else self.target

    def clicked(self, tool: Tool, point: Point) -> "Drawing":
        """With one more click."""
        return replace(self, marks=(*self.marks, (tool, point)))

    def undone(self) -> "Drawing":
        """Without the last click; with none left, without the last object or correction."""
        if self.marks:
            return replace(self, marks=self.marks[:-1])
        if self.begun_with is not None:
            return self.cleared()
        last = int(self.labels.max(initial=0))
        return replace(self, labels=np.where(self.labels == last, 0, self.labels))

    def cleared(self) -> "Drawing":
        """With nothing said about this frame."""
        if self.begun_with is None:
            return Drawing.on(self.frame, self.find)
        ids = label_map(self.begun_with).ids
        target = ids[0] if ids else None
        return replace(self, labels=self.begun_with, marks=(), target=target)

    def next_object(self) -> "Drawing":
        """The object at hand is done; the next click is about another one.

        Raises:
            StremnError: nothing has been marked since the last object.
        """
        if self.current is None:
            raise StremnError("Mark an object first: two corners of a box, or points on it.")
        later = [] if self.target is None else [i for i in self._ids if i > self.number]
        target = later[0] if later else None
        return replace(self, labels=self.all_labels, marks=(), target=target)

    def with_mask(self, mask: LabelMap) -> "Drawing":
        """With the objects of a mask file instead of what was drawn."""
        return replace(self, labels=mask.labels.astype(np.uint16), marks=(), target=None)

    @property
    def _ids(self) -> tuple[int, ...]:
        return label_map(self.labels).ids

    def _points(self, tool: Tool) -> list[Point]:
        return [point for kind, point in self.marks if kind is tool]

    @cached_property
    def box(self) -> Box | None:
        """The box between the last two corners, if there are two."""
        corners = self._points(Tool.BOX)
        if len(corners) < 2:
            return None
        (x0, y0), (x1, y1) = corners[len(corners) // 2 * 2 - 2 : len(corners) // 2 * 2]
        return Box(min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0))

    @cached_property
    def current(self) -> Bool[np.ndarray, "height width"] | None:
        """Where the object at hand is; None while too little is said.

        Raises:
            StremnError: what was marked does not lead to an object.
        """
        clicks = [
            Click(x, y, tool is Tool.ON) for tool, (x, y) in self.marks if tool is not Tool.BOX
        ]
        others = (self.labels > 0) & (self.labels != self.number)
        known = self.labels == self.number
        if known.any() and self.box is None:
            if not clicks:
                return known
            return self.find(self.frame, clicks=clicks, previous=known, others=others)
        if self.box is None and not any(click.on for click in clicks):
            return None
        return self.find(self.frame, box=self.box, clicks=clicks, others=others)

    @cached_property
    def all_labels(self) -> Labels:
        """The objects that are done and the one at hand; that one lies on top."""
        if self.current is None:
            return self.labels
        others = np.where(self.labels == self.number, 0, self.labels)
        return np.where(self.current, self.number, others).astype(np.uint16)

    def mask(self) -> LabelMap:
        """All objects, to start from.

        Raises:
            StremnError: there is none.
        """
        found = label_map(self.all_labels)
        if not found.ids:
            raise StremnError(
                "Say what to follow first: two corners of a box around it, points on it, or a mask."
            )
        return found

    def masks(self) -> dict[int, LabelMap]:
        """All masks that were given, by the number of their frame.

        Raises:
            StremnError: there is none for the first frame.
        """
        begun = self.begun_with
        unchanged = begun is not None and np.array_equal(begun, self.all_labels)
        return dict(self.given) if unchanged else {**self.given, self.index: self.mask()}

    def words(self) -> str:
        """Which frame is shown, and what the next click is about."""
        if self.begun_with is None:
            return f"First frame. Clicks are about object {self.number}."
        what = f"new object {self.number}" if self.target is None else f"object {self.number}"
        return (
            f"Frame {self.index}. Clicks mend {what}: a box replaces it, **On the object** and "
            "**Not the object** add and take away. Then press **Follow**: it begins anew, with "
            "this correction."
        )

    def picture(self) -> Picture:
        """The frame with objects and marks drawn in."""
        drawn = overlay(self.frame, self.all_labels)
        radius = max(3, max(self.frame.shape) // _MARK_SHARE)
        for tool, (x, y) in self.marks:
            color = {Tool.BOX: (255, 210, 0), Tool.ON: (40, 220, 90), Tool.OFF: (240, 50, 50)}[tool]
            place = (int(x), int(y))
            cv2.circle(drawn, place, radius + 2, (255, 255, 255), cv2.FILLED, cv2.LINE_AA)
            cv2.circle(drawn, place, radius, color, cv2.FILLED, cv2.LINE_AA)
        if self.box is not None:
            x, y, w, h = (round(side) for side in self.box)
            cv2.rectangle(drawn, (x, y), (x + w, y + h), (255, 210, 0), max(1, radius // 3))
        return drawn
