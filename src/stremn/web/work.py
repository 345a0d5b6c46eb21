"""State of a visitor's work: objects, drawings, runs."""

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
    """State of a visitor's work; immutable, every change makes a new one.

    Attributes:
        objects: names by id.
        drawings: by frame.
        takes: runs, the latest last.
    """

    objects: Mapping[int, str] = field(default_factory=lambda: {1: "Object 1"})
    drawings: Mapping[int, Drawing] = field(default_factory=dict)
    takes: tuple[Take, ...] = ()

    def given(self) -> dict[int, dict[int, Packed]]:
        """Return the given masks by frame and object id."""
        found = {}
        for index, drawing in sorted(self.drawings.items()):
            masks = {i: m for i, m in drawing.given.items() if i in self.objects}
            if masks:
                found[index] = masks
        return found

    def ids(self) -> set[int]:
        """Return the ids of all objects, and of removed ones that still have masks."""
        drawn = (i for drawing in self.drawings.values() for i in drawing.touched)
        run = (i for take in self.takes for masks in take.given.values() for i in masks)
        return {*self.objects, *drawn, *run}

    def found(self, index: int) -> Found | None:
        """Return the runs' results of a frame; None if there are none, or it was marked since."""
        drawing = self.drawings.get(index)
        found = find(self.takes, index)
        if found is None or drawing is None or found.has_taken(drawing.given):
            return found
        return None

    def labels(self, index: int, size: tuple[int, int]) -> Labels:
        """Return the objects of a frame: from runs, or as marked since."""
        found, drawing = self.found(index), self.drawings.get(index)
        if found is not None:
            labels = found.labels()
        elif drawing is not None:
            labels = drawing.labels()
        else:
            return np.zeros(size, np.uint8)
        return np.where(np.isin(labels, list(self.objects)), labels, 0)

    def row(self, index: int) -> dict[str, Any]:
        """Return the content of the memory after a frame; empty if no run reached it."""
        found = find(self.takes, index)
        return {} if found is None else found.row

    def followed(self) -> list[tuple[int, int]]:
        """Return the ranges of frames with masks from a run, as (first, after the last)."""
        frames = sorted(set().union(*(take.rows for take in self.takes)))
        stretches: list[tuple[int, int]] = []
        for index in frames:
            if stretches and stretches[-1][1] == index:
                stretches[-1] = (stretches[-1][0], index + 1)
            else:
                stretches.append((index, index + 1))
        return stretches
