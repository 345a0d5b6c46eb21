"""What a user says about the first frame: clicks and boxes that become a mask."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Bool

from stremn.errors import StremnError
from stremn.media.frames import Picture
from stremn.media.masks import LabelMap, Labels, label_map, overlay
from stremn.media.prompts import Box, Point, box_mask, clicks_mask

_MARK_SHARE = 120  # a mark's radius is this part of the frame's longer side


class Tool(StrEnum):
    """What a click on the first frame means."""

    BOX = "Corner of a box"
    ON = "On the object"
    OFF = "Not the object"


@dataclass(frozen=True)
class Drawing:
    """What a user has said about the first frame so far; every change makes a new one.

    Attributes:
        frame: the first frame.
        labels: the objects that are done, "height width".
        marks: (tool, point) of the object at hand, in the order of the clicks.
    """

    frame: Picture
    labels: Labels
    marks: tuple[tuple[Tool, Point], ...] = field(default=())

    @classmethod
    def on(cls, frame: Picture) -> "Drawing":
        """Nothing said yet."""
        return cls(frame, np.zeros(frame.shape[:2], dtype=np.uint16))

    def clicked(self, tool: Tool, point: Point) -> "Drawing":
        """With one more click."""
        return replace(self, marks=(*self.marks, (tool, point)))

    def undone(self) -> "Drawing":
        """Without the last click; with none left, without the last object."""
        if self.marks:
            return replace(self, marks=self.marks[:-1])
        last = int(self.labels.max(initial=0))
        return replace(self, labels=np.where(self.labels == last, 0, self.labels))

    def next_object(self) -> "Drawing":
        """The object at hand is done; the next click begins another.

        Raises:
            StremnError: nothing has been marked since the last object.
        """
        if self.current is None:
            raise StremnError("Mark an object first: two corners of a box, or points on it.")
        return Drawing(self.frame, self.all_labels)

    def with_mask(self, mask: LabelMap) -> "Drawing":
        """With the objects of a mask file instead of what was drawn."""
        return Drawing(self.frame, mask.labels.astype(np.uint16))

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
        positive, negative = self._points(Tool.ON), self._points(Tool.OFF)
        if positive:
            return clicks_mask(self.frame, positive, negative, within=self.box)
        return None if self.box is None else box_mask(self.frame, self.box)

    @cached_property
    def all_labels(self) -> Labels:
        """The objects that are done and the one at hand; that one lies on top."""
        if self.current is None:
            return self.labels
        number = int(self.labels.max(initial=0)) + 1
        return np.where(self.current, number, self.labels).astype(np.uint16)

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

    def picture(self) -> Picture:
        """The first frame with objects and marks drawn in."""
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
