"""Segment a whole video into a folder: read, segment and write at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from stremn.errors import StremnError
from stremn.media.frame_results import FrameResult
from stremn.media.frames import Frame, FrameSource
from stremn.media.given import MaskOf
from stremn.media.overlap import ReadAhead, WriteBehind
from stremn.media.results import ResultWriter
from stremn.moved import moved_names
from stremn.segmentation.opening import Session
from stremn.segmentation.passes import Pass, SessionPass
from stremn.segmentation.reports import StepResult
from stremn.segmentation.strip import MemoryStrip

Watcher = Callable[[int, StepResult], None]
"""Called with (frames done, result) after every frame."""

Reading = Callable[[Iterator[Frame]], AbstractContextManager[Iterable[Frame]]]
"""How the frames are read while the model works: `ReadAhead`, or `read_when_wanted`."""

STRIP = "memory.png"


def nobody(done: int, result: StepResult) -> None:
    """Do nothing: the default watcher of results."""


def read_when_wanted(frames: Iterator[Frame]) -> AbstractContextManager[Iterable[Frame]]:
    """Read a frame only when the model is ready for it, so that none is outdated."""
    return nullcontext(frames)


@dataclass(frozen=True)
class RunSummary:
    """Summary of a run: `frames` of this run, seconds, and `memory_bytes` of the session."""

    frames: int
    seconds: float
    memory_bytes: int

    @property
    def frames_per_second(self) -> float:
        """Frames of this run by the seconds they took."""
        return self.frames / self.seconds if self.seconds else 0.0


def segment_video(
    frames: FrameSource,
    session: Session | Pass,
    mask_of: MaskOf,
    writer: ResultWriter,
    *,
    limit: int | None = None,
    watch: Watcher = nobody,
    reading: Reading = ReadAhead,
) -> RunSummary:
    """Segment `frames` from where `writer` stands, writing as it goes.

    A session follows the objects forward from the run's first frame on, where a mask must be given.
    `frames` start at `writer.read_from`: those before `writer.next_frame` are only drawn again.

    Stops before frame `limit` of the video, if there is one; such a run can be resumed. Decoding
    (see `reading`), the model and the encoding of results overlap in three threads, each a few
    frames apart, so that memory does not grow with the video. When the input breaks off or the user
    interrupts, the run is made resumable before the error is raised.

    Raises:
        StremnError: unreadable input, no first mask, a mask that does not fit, a full disk, or out
            of memory.
    """
    began, first = time.perf_counter(), writer.next_frame
    passing = session if isinstance(session, Pass) else SessionPass(session, writer.first)
    if limit is not None and limit <= first:
        return RunSummary(0, 0.0, passing.memory_bytes)
    strip = MemoryStrip.restored(writer.out, passing.memory)
    done = first
    with writer:
        try:
            wanted = takewhile(lambda frame: limit is None or frame.index < limit, frames)
            with (
                reading(wanted) as source,
                WriteBehind(writer.write) as behind,
            ):
                for frame in source:
                    if frame.index < first:
                        writer.redraw(frame)
                        continue
                    result = passing.step(frame, mask_of(frame))
                    strip.add(frame.image, result)
                    behind.put(_for_writing(frame, result, writer.keeps_probabilities))
                    done += 1
                    watch(done - writer.first, result)
                    if writer.checkpoint_due(frame.index):
                        behind.flush()
                        _checkpoint(writer, passing, strip)
        except (StremnError, KeyboardInterrupt):
            if first < done and done - writer.first == passing.done == writer.written:
                _checkpoint(writer, passing, strip)
                strip.save(writer.out / STRIP)
            raise
        if done == first == writer.first:
            raise StremnError(f"{frames.label} holds no frame to segment.")
        strip.save(writer.out / STRIP)
        if done == limit:
            _checkpoint(writer, passing, strip)
        else:
            writer.finish()
    return RunSummary(done - first, time.perf_counter() - began, passing.memory_bytes)


def _for_writing(frame: Frame, result: StepResult, probabilities: bool) -> FrameResult:
    return FrameResult(
        frame,
        result.labels,
        result.memory.to_json(),
        result.ids,
        result.probabilities if probabilities else None,
        result.confidences,
    )


def _checkpoint(writer: ResultWriter, passing: Pass, strip: MemoryStrip) -> None:
    strip.keep(writer.out)
    writer.checkpoint(passing.save)


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
