"""Run a session through a video; frames keep the video's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from stremn.core.hardware import is_out_of_memory
from stremn.errors import StremnError
from stremn.media.frames import Frame
from stremn.media.given import Correction
from stremn.media.masks import LabelMap
from stremn.segmentation.opening import Session
from stremn.segmentation.reports import MemoryReport, StepResult


@runtime_checkable
class Pass(Protocol):
    """Processes a video frame by frame."""

    @property
    def done(self) -> int:
        """Number of frames processed."""
        ...

    @property
    def memory(self) -> MemoryReport:
        """Content of its memory."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Bytes of its memory."""
        ...

    def step(self, frame: Frame, given: LabelMap | Correction | None) -> StepResult:
        """Segment the next frame, with its given mask or a correction of the segmented one."""
        ...

    def save(self, path: Path) -> None:
        """Save its state."""
        ...


class SessionPass:
    """A session that begins at frame `first` and goes forward, or with `step` -1 backward.

    given: the objects that were given with the latest frame.
    """

    def __init__(self, session: Session, first: int = 0, step: int = 1) -> None:
        self._session = session
        self._first = first
        self._step = step
        self.given: tuple[int, ...] = ()

    @property
    def done(self) -> int:
        """Number of frames processed."""
        return self._session.frame + 1

    @property
    def memory(self) -> MemoryReport:
        """Content of the memory, in the video's frame numbers."""
        return self._session.memory.renumbered(self._number)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the session's memory."""
        return self._session.memory_bytes

    def step(self, frame: Frame, given: LabelMap | Correction | None) -> StepResult:
        """Segment the next frame, with its given mask or a correction of the segmented one.

        Raises:
            StremnError: as `SegmentationSession.step`, or out of memory.
        """
        try:
            return self._stepped(frame, given).renumbered(self._number)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise StremnError(
                f"Out of memory at frame {frame.index}. Use fewer memory slots or objects, or a "
                "lower working resolution."
            ) from error

    def _stepped(self, frame: Frame, given: LabelMap | Correction | None) -> StepResult:
        session = self._session
        if given is not None and not isinstance(given, LabelMap) and session.frame < 0:
            given = given(np.zeros(frame.image.shape[:2], np.uint8))  # nothing to correct yet
        if given is None or isinstance(given, LabelMap):
            self.given = () if given is None else given.ids
            return session.step(frame.image, None if given is None else given.labels)
        result = session.step(frame.image)
        mask = given(result.labels)
        self.given = () if mask is None else mask.ids
        return result if mask is None else session.add_object(mask.labels)

    def save(self, path: Path) -> None:
        """Save the session's state."""
        self._session.save(path)

    def _number(self, frame: int) -> int:
        return self._first + self._step * frame
