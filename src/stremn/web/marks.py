"""Marks of a user: a box, a click or a brush stroke."""

from __future__ import annotations

from typing import Annotated, Literal

import cv2
import numpy as np
from jaxtyping import Bool
from pydantic import Field, TypeAdapter, ValidationError

from stremn.core.config import Config
from stremn.errors import StremnError
from stremn.media.finding import Click
from stremn.media.prompts import Box, Point

Coordinate = Annotated[float, Field(ge=-100_000, le=100_000, allow_inf_nan=False)]
Length = Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)]

MOST_POINTS = 10_000
"""Points of a stroke, at most."""

SAMPLES = 4
"""Points of a stroke that the prompt network reads."""


class BoxMark(Config):
    """A box around an object, in pixels of the frame."""

    kind: Literal["box"]
    x: Coordinate
    y: Coordinate
    width: Length
    height: Length

    @property
    def box(self) -> Box:
        """The box."""
        return Box(self.x, self.y, self.width, self.height)


class ClickMark(Config):
    """A point on an object (`on`), or on something that is not the object."""

    kind: Literal["click"]
    x: Coordinate
    y: Coordinate
    on: bool

    @property
    def click(self) -> Click:
        """The click."""
        return Click(self.x, self.y, self.on)


class StrokeMark(Config):
    """A stroke of the brush (`on`) or the eraser.

    Attributes:
        points: where it went.
        radius: half its width in pixels of the frame.
        on: whether it adds.
        snap: whether it is rough: what it touches is found; else its pixels are taken as they are.
    """

    kind: Literal["stroke"]
    points: Annotated[tuple[tuple[Coordinate, Coordinate], ...], Field(max_length=MOST_POINTS)]
    radius: Annotated[float, Field(ge=0.5, le=2_000)]
    on: bool
    snap: bool = True

    def pixels(self, size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
        """Return the pixels that the stroke covers in a frame of (height, width)."""
        mask = np.zeros(size, np.uint8)
        places = np.array(self.points, np.float64).round().astype(np.int32).reshape(-1, 1, 2)
        width = max(1, round(2 * self.radius))
        cv2.polylines(mask, [places], False, 1, width)
        for x, y in places[[0, -1], 0]:
            cv2.circle(mask, (int(x), int(y)), width // 2, 1, cv2.FILLED)
        return mask > 0

    def clicks(self, size: tuple[int, int]) -> tuple[Click, ...]:
        """Return a few points along the stroke that lie in a frame of (height, width)."""
        inside = [p for p in self.points if 0 <= p[0] < size[1] and 0 <= p[1] < size[0]]
        spread = np.linspace(0, len(inside) - 1, min(SAMPLES, len(inside))).round().astype(int)
        points: list[Point] = [inside[i] for i in dict.fromkeys(spread.tolist())]
        return tuple(Click(x, y, self.on) for x, y in points)


Mark = Annotated[BoxMark | ClickMark | StrokeMark, Field(discriminator="kind")]
_MARKS: TypeAdapter[BoxMark | ClickMark | StrokeMark] = TypeAdapter(Mark)


def parse_mark(data: object) -> BoxMark | ClickMark | StrokeMark:
    """Parse a mark from a browser's request.

    Raises:
        StremnError: it describes none.
    """
    try:
        mark = _MARKS.validate_python(data)
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(map(str, detail["loc"])) or "it"
        raise StremnError(f"This is no mark on a frame: {place}: {detail['msg']}.") from error
    if isinstance(mark, StrokeMark) and not mark.points:
        raise StremnError("The stroke has no point in it. Draw it again.")
    return mark
