"""What a visitor has made of a video so far: objects, drawings, runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stremn.media.masks import Labels
from stremn.web.drawing import Drawing, Packed
from stremn.web.found import Found, find
from stremn.web.takes import Take


@dataclass(frozen=True)
class Work:
    """What a visitor has made so far; every change makes a new one.

    Attributes:
        objects: names by id.
        drawings: by frame.
        takes: runs, the latest last.
    """

    objects: Mapping[int, str] = field(default_factory=lambda: {1: "Object 1"})
    drawings: Mapping[int, Drawing] = field(default_factory=dict)
    takes: tuple[Take, ...] = ()

    def given(self) -> dict[int, dict[int, Packed]]:
        """Return the masks to take as the truth: by frame, each object's by its id."""
        found = {}
        for index, drawing in sorted(self.drawings.items()):
            masks = {i: m for i, m in drawing.given.items() if i in self.objects}
            if masks:
                found[index] = masks
        return found

    def found(self, index: int) -> Found | None:
        """Return what runs found in a frame; None: nothing, or something was drawn since then."""
        drawing = self.drawings.get(index)
        found = find(self.takes, index)
        if found is None or drawing is None or found.has_taken(drawing.given):
            return found
        return None

    def labels(self, index: int, size: tuple[int, int]) -> Labels:
        """Return the objects of a frame: as runs found them, or as drawn since then."""
        found, drawing = self.found(index), self.drawings.get(index)
        if found is not None:
            labels = found.labels()
        elif drawing is not None:
            labels = drawing.labels()
        else:
            return np.zeros(size, np.uint8)
        return np.where(np.isin(labels, list(self.objects)), labels, 0)

    def row(self, index: int) -> dict[str, Any]:
        """Return what the memory held after a frame; empty if no run came to it."""
        found = find(self.takes, index)
        return {} if found is None else found.row

    def followed(self) -> list[tuple[int, int]]:
        """Return the stretches of frames that have masks from a run, as (first, after the last)."""
        frames = sorted(set().union(*(take.rows for take in self.takes)))
        stretches: list[tuple[int, int]] = []
        for index in frames:
            if stretches and stretches[-1][1] == index:
                stretches[-1] = (stretches[-1][0], index + 1)
            else:
                stretches.append((index, index + 1))
        return stretches
