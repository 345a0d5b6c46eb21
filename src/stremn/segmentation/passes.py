"""A session on its way through a video, whose frames have the video's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from stremn.core.hardware import is_out_of_memory
from stremn.errors import StremnError
from stremn.media.frames import Frame
from stremn.media.masks import LabelMap
from stremn.segmentation.opening import Session
from stremn.segmentation.reports import MemoryReport, StepResult


@runtime_checkable
class Pass(Protocol):
    """Goes through a video frame by frame."""

    @property
    def done(self) -> int:
        """Frames that it has been through."""
        ...

    @property
    def memory(self) -> MemoryReport:
        """What its memory holds now."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Bytes of its memory."""
        ...

    def step(self, frame: Frame, mask: LabelMap | None) -> StepResult:
        """Segment the next frame; with `mask`, take that as the truth for the ids in it."""
        ...

    def save(self, path: Path) -> None:
        """Write all that it remembers."""
        ...


class SessionPass:
    """A session that begins at frame `first` and goes forward, or with `step` -1 backward."""

    def __init__(self, session: Session, first: int = 0, step: int = 1) -> None:
        self._session = session
        self._first = first
        self._step = step

    @property
    def done(self) -> int:
        """Frames that it has been through."""
        return self._session.frame + 1

    @property
    def memory(self) -> MemoryReport:
        """What the memory holds now, in the video's frame numbers."""
        return self._session.memory.renumbered(self._number)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the session's memory."""
        return self._session.memory_bytes

    def step(self, frame: Frame, mask: LabelMap | None) -> StepResult:
        """Segment the next frame; with `mask`, take that as the truth for the ids in it.

        Raises:
            StremnError: as `SegmentationSession.step`, or the machine's memory is used up.
        """
        try:
            result = self._session.step(frame.image, None if mask is None else mask.labels)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise StremnError(
                f"The machine's memory is used up at frame {frame.index}. Fewer memory slots, a "
                "smaller working size or fewer objects need less."
            ) from error
        return result.renumbered(self._number)

    def save(self, path: Path) -> None:
        """Write all that the session remembers."""
        self._session.save(path)

    def _number(self, frame: int) -> int:
        return self._first + self._step * frame
