"""A whole video through a session into a folder: read, segment and write at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from stremn.core.hardware import is_out_of_memory
from stremn.errors import StremnError
from stremn.media.frames import Frame, FrameSource
from stremn.media.given import Correction, MaskOf
from stremn.media.masks import LabelMap
from stremn.media.overlap import ReadAhead, WriteBehind
from stremn.media.results import FrameResult, ResultWriter
from stremn.moved import moved_names
from stremn.segmentation.opening import Session
from stremn.segmentation.reports import StepResult
from stremn.segmentation.strip import MemoryStrip

Watcher = Callable[[int, StepResult], None]
"""Told (frames done, result) after every frame."""

STRIP = "memory.png"


def nobody(done: int, result: StepResult) -> None:
    """A watcher that does nothing."""


@dataclass(frozen=True)
class RunSummary:
    """How a run went. `frames` counts those of this run; `memory_bytes` is the session's memory."""

    frames: int
    seconds: float
    memory_bytes: int

    @property
    def frames_per_second(self) -> float:
        """Frames of this run by the seconds they took."""
        return self.frames / self.seconds if self.seconds else 0.0


def segment_video(
    frames: FrameSource,
    session: Session,
    mask_of: MaskOf,
    writer: ResultWriter,
    *,
    limit: int | None = None,
    watch: Watcher = nobody,
    depth: int = 4,
) -> RunSummary:
    """Segment `frames` from where `writer` stands, writing as it goes.

    `frames` start at `writer.read_from`: those before `writer.next_frame` are only drawn again.

    Stops before frame `limit` of the video, if there is one; such a run can be resumed, and one
    that is that far already is left as it is. Decoding, the model and
    the encoding of results overlap in three threads, each at most `depth` frames apart, so that
    memory does not grow with the video. When the input breaks off or the user interrupts, what is
    done is made resumable before the error goes on.

    Raises:
        StremnError: unreadable input, no first mask, a mask that does not fit, a full disk, or the
            machine's memory is used up.
    """
    began, first = time.perf_counter(), writer.next_frame
    if limit is not None and limit <= first:
        return RunSummary(0, 0.0, session.memory_bytes)
    strip = MemoryStrip.restored(writer.out, session.memory)
    done = first
    with writer:
        try:
            wanted = takewhile(lambda frame: limit is None or frame.index < limit, frames)
            with (
                ReadAhead(wanted, depth) as source,
                WriteBehind(writer.write, depth) as behind,
            ):
                for frame in source:
                    if frame.index < first:
                        writer.redraw(frame)
                        continue
                    result = _step(session, frame, mask_of(frame))
                    strip.add(frame.image, result)
                    behind.put(_for_writing(frame, result, writer.keeps_probabilities))
                    done += 1
                    watch(done, result)
                    if writer.checkpoint_due(frame.index):
                        behind.flush()
                        _checkpoint(writer, session, strip)
        except (StremnError, KeyboardInterrupt):
            if first < done == session.frame + 1 == writer.written:
                _checkpoint(writer, session, strip)
                strip.save(writer.out / STRIP)
            raise
        if done == first and first == 0:
            raise StremnError(f"{frames.label} holds no frame to segment.")
        strip.save(writer.out / STRIP)
        if done == limit:
            _checkpoint(writer, session, strip)
        else:
            writer.finish()
    return RunSummary(done - first, time.perf_counter() - began, session.memory_bytes)


def _step(session: Session, frame: Frame, given: LabelMap | Correction | None) -> StepResult:
    """Segment a frame under the mask given with it, or correct what was segmented in it."""
    try:
        if given is None or isinstance(given, LabelMap):
            return session.step(frame.image, None if given is None else given.labels)
        result = session.step(frame.image)
        mask = given(result.labels)
        return result if mask is None else session.add_object(mask.labels)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise StremnError(
            f"The machine's memory is used up at frame {frame.index}. Fewer memory slots, a "
            "smaller working size or fewer objects need less."
        ) from error


def _for_writing(frame: Frame, result: StepResult, probabilities: bool) -> FrameResult:
    return FrameResult(
        frame,
        result.labels,
        result.memory.to_json(),
        result.ids,
        result.probabilities if probabilities else None,
    )


def _checkpoint(writer: ResultWriter, session: Session, strip: MemoryStrip) -> None:
    strip.keep(writer.out)
    writer.checkpoint(session.save)


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
