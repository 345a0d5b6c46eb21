"""Combine the results of all runs for a frame: forward, backward, or both joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from stremn.media.masks import Labels, write_mask
from stremn.segmentation.both_ways import joined, result_of
from stremn.web.takes import Take

if TYPE_CHECKING:
    from stremn.segmentation.reports import StepResult


@dataclass(frozen=True)
class Found:
    """The takes that hold results of a frame.

    Attributes:
        index: of the frame.
        take: the one whose memory is shown: of the way forward, if it came to the frame.
        other: what the way backward found; None: `take` alone counts.
    """

    index: int
    take: Take
    other: Take | None = None

    def has_taken(self, given: object) -> bool:
        """Return whether the frame was segmented with these given masks."""
        return self.take.given.get(self.index) == given

    @property
    def row(self) -> dict[str, Any]:
        """Content of the memory after the frame."""
        return self.take.rows[self.index]

    def labels(self) -> Labels:
        """Return the label map."""
        if self.other is None:
            return self.take.labels(self.index)
        path = self.other.folder / f"{self.index}-{self.take.folder.name}.png"
        if not path.is_file():
            write_mask(path, self.result().labels, durable=False)
        with Image.open(path) as image:
            return np.asarray(image)

    def result(self) -> StepResult:
        """Return the probabilities, joined as `segment --both-ways` joins them."""
        kept = self.take.kept(self.index)
        result = result_of(kept, self.index)
        if self.other is None:
            return result
        return joined(result, self.other.kept(self.index), kept.given)


def find(takes: Sequence[Take], index: int) -> Found | None:
    """Return the takes' results of a frame, the latest take last; None if no take has it.

    Takes on the ways of the latest run are joined, if they had the same settings; otherwise the
    latest take counts.
    """
    holding = [take for take in reversed(takes) if take.holds(index)]
    if not holding:
        return None
    of_run = [next((take for take in holding if take.way == way), None) for way in takes[-1].ways]
    there = [take for take in of_run if take is not None]
    if len(there) == 2 and there[0].settings == there[1].settings:
        return Found(index, *there)
    return Found(index, next((take for take in holding if take in there), holding[0]))
