"""Results of one frame, from which output files are written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from stremn.media.frames import Frame
from stremn.media.masks import Labels


@dataclass(frozen=True)
class FrameResult:
    """Results of one frame.

    Attributes:
        frame: the frame as it was read.
        labels: ids "height width", of the frame's size; 0 is background.
        memory: the row for `memory.json` (JSON values); index and name are added to it.
        ids: ids of the objects behind `probabilities`, in their order.
        probabilities: "o height width", 0..1, one layer per id; None if they are not kept.
        confidences: for each object that is there, its mean probability where it is, 0..1.
    """

    frame: Frame
    labels: Labels
    memory: Mapping[str, Any]
    ids: tuple[int, ...] = ()
    probabilities: Float[np.ndarray, "o height width"] | None = None
    confidences: Mapping[int, float] = field(default_factory=dict)

    def followed(self) -> list[int]:
        """Return the objects that are followed or seen, ascending."""
        return sorted({*self.ids, *np.unique(self.labels[self.labels > 0]).tolist()})
