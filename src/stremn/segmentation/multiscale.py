"""STReMN-MS: one session for each scale and flip, their probabilities averaged frame by frame.

Every view of the frame has its own session and memory, and memorizes its own label. Probabilities
of all views are brought to the frame's size and orientation and averaged frame by frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Protocol

import numpy as np
from jaxtyping import Float

from stremn.core.guarded_calls import GuardedCalls, guarded
from stremn.errors import StremnError
from stremn.media.frames import Picture
from stremn.media.masks import Labels
from stremn.networks.defaults import SHIPPED
from stremn.segmentation.reports import MemoryReport, label_map_of

SCALES = (1.0, 1.15, 1.3, 1.5)
"""Usual test-time scales; the paper names none."""


class ViewResult(Protocol):
    """Result of the session of a view."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Objects, in the order of ``probabilities``."""
        ...

    @property
    def probabilities(self) -> Float[np.ndarray, "o height width"]:
        """Probability of each object at the size of the frame given."""
        ...

    @property
    def memory(self) -> MemoryReport:
        """Content of the memory."""
        ...


class ViewSession(Protocol):
    """A session whose results have probabilities."""

    def step(self, frame: Picture, mask: Labels | None = None) -> ViewResult:
        """Segment the next frame."""
        ...

    def remove_object(self, object_id: int) -> None:
        """Stop following an object."""
        ...


@dataclass(frozen=True)
class View:
    """A scale and orientation of the frame.

    Attributes:
        size: shorter side in pixels at which the session works.
        flipped: mirrored left to right.
    """

    size: int
    flipped: bool

    def frame(self, frame: Picture) -> Picture:
        """Return the frame in the view's orientation; the session resizes it."""
        return np.ascontiguousarray(frame[:, ::-1]) if self.flipped else frame

    def mask(self, labels: Labels) -> Labels:
        """Return the label map in the view's orientation."""
        return np.ascontiguousarray(labels[:, ::-1]) if self.flipped else labels

    def back(
        self, probabilities: Float[np.ndarray, "o height width"]
    ) -> Float[np.ndarray, "o height width"]:
        """Return the view's probabilities in the frame's orientation."""
        return probabilities[:, :, ::-1] if self.flipped else probabilities


@dataclass(frozen=True)
class FusedResult:
    """Result of a multi-scale session for one frame.

    Attributes:
        labels: ids at the frame's size, uint8, or uint16 if an id is over 255.
        ids: the objects, in the order of ``probabilities``.
        probabilities: average over the views, float32 in [0, 1].
        memory: what the memory of the first view holds; bytes are those of all views.
    """

    labels: Labels
    ids: tuple[int, ...]
    probabilities: Float[np.ndarray, "o height width"]
    memory: MemoryReport


class MultiScaleSession:
    """A session that segments every frame at several scales, and mirrored.

        session = MultiScaleSession(
            lambda size: SegmentationSession(model, size=size), size=432, scales=(1.0, 1.3)
        )
        result = session.step(frame, mask)

    Time and memory grow with the number of views. A call that the first view refuses changes
    nothing. After one that fails in another view, the views are of different frames: later calls
    are refused.
    """

    def __init__(
        self,
        make_session: Callable[[int], ViewSession],
        *,
        size: int = SHIPPED.size,
        scales: Sequence[float] = SCALES,
        flip: bool = True,
    ) -> None:
        """Make a session for each view.

        Args:
            make_session: makes a session that works at the given shorter side in pixels.
            size: shorter side at scale 1.
            scales: relative sizes; sessions enlarge frames too, at most to twice their size.
            flip: look at the mirrored frame too.

        Raises:
            StremnError: no scale, or one that is not positive and finite.
        """
        if not scales or not all(0 < scale < inf for scale in scales):
            raise StremnError(
                "Scales must be positive and finite, and at least one is needed, got "
                f"{list(scales)}. (1.0, 1.3) is a start."
            )
        sides = (False, True) if flip else (False,)
        views = [View(round(size * scale), side) for scale in scales for side in sides]
        self._views = [(view, make_session(view.size)) for view in views]
        self._calls = GuardedCalls(())

    @property
    def views(self) -> tuple[View, ...]:
        """The views of this session."""
        return tuple(view for view, _ in self._views)

    @guarded
    def step(self, frame: Picture, mask: Labels | None = None) -> FusedResult:
        """Segment the next frame in every view and average.

        Args:
            frame: RGB.
            mask: label map of new or corrected objects, as for a single session.

        Raises:
            StremnError: as a single session.
        """
        total: Float[np.ndarray, "o height width"] | None = None
        reports = []
        ids: tuple[int, ...] = ()
        for view, session in self._views:
            result = session.step(view.frame(frame), None if mask is None else view.mask(mask))
            self._calls.changing()
            seen = view.back(result.probabilities)
            total = seen.astype(np.float32) if total is None else total + seen
            ids = result.ids
            reports.append(result.memory)
        assert total is not None  # there is at least one view
        probabilities = total / len(self._views)
        memory = replace(reports[0], nbytes=sum(report.nbytes for report in reports))
        return FusedResult(fused_labels(probabilities, ids), ids, probabilities, memory)

    @guarded
    def remove_object(self, object_id: int) -> None:
        """Stop following an object in every view.

        Raises:
            StremnError: no such object.
        """
        for _, session in self._views:
            session.remove_object(object_id)
            self._calls.changing()


def fused_labels(probabilities: Float[np.ndarray, "o height width"], ids: Sequence[int]) -> Labels:
    """Return the most probable id of each pixel; the rest of the probability is background."""
    background = 1 - probabilities.sum(0, keepdims=True)
    return label_map_of(np.concatenate([background, probabilities]), ids)
