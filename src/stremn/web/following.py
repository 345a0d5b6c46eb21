"""Run segmentation in a thread that can be paused and reports its status."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Set
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stremn.core.hardware import is_out_of_memory
from stremn.errors import StremnError
from stremn.media.frames import Frame, frame_name
from stremn.media.masks import Labels, label_map
from stremn.media.overlap import ReadAhead
from stremn.media.video import open_frames
from stremn.segmentation.pass_store import Kept
from stremn.web.drawing import Packed
from stremn.web.options import Options
from stremn.web.planning import Leg
from stremn.web.shelf import FrameShelf
from stremn.web.stops import StoppedError
from stremn.web.takes import SavedState, SavedStates, Take

if TYPE_CHECKING:
    from stremn.segmentation.opening import Session, VideoModel
    from stremn.segmentation.reports import StepResult

logger = logging.getLogger(__name__)

STATE_EVERY = 10
"""Frames from one saved session to the next: what a correction computes again, at most."""

Stage = Literal["idle", "waiting", "loading", "adapting", "following", "paused", "done", "failed"]


@dataclass(frozen=True)
class Status:
    """Status of a run.

    Attributes:
        stage: what it does.
        frame: the latest frame that is done; -1 before the first.
        done: frames, or steps of adapting, that are done.
        total: of them in all; None if unknown.
        rate: frames per second lately.
        memory: bytes that the memory takes.
        words: what went wrong, or "".
    """

    stage: Stage = "idle"
    frame: int = -1
    done: int = 0
    total: int | None = None
    rate: float = 0.0
    memory: int = 0
    words: str = ""

    @property
    def running(self) -> bool:
        """Whether the run can be paused."""
        return self.stage in ("waiting", "loading", "adapting", "following")

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, with the remaining seconds if they are known."""
        left = None
        if self.stage == "following" and self.rate and self.total is not None:
            left = (self.total - self.done) / self.rate
        return {**vars(self), "running": self.running, "seconds_left": left}


@dataclass(frozen=True)
class Order:
    """Instructions for a run.

    Attributes:
        video: its file.
        legs: the stretches, one after the other.
        objects: ids to follow.
        options: how to follow.
        model: loads the model, and adapts it where that was asked for; told a watcher of steps.
        device: where to compute.
    """

    video: Path
    legs: tuple[Leg, ...]
    objects: Set[int]
    options: Options
    model: Callable[[Callable[[int, int], None]], VideoModel]
    device: str


class Run:
    """One run. It holds `turn` while it computes, so that the server computes one run at a time."""

    def __init__(
        self, order: Order, shelf: FrameShelf, states: SavedStates, turn: threading.Lock
    ) -> None:
        self.status = Status("waiting", total=sum(leg.length for leg in order.legs))
        self._order = order
        self._shelf = shelf
        self._states = states
        states.wanted = [leg.state for leg in order.legs if leg.state is not None]
        self._turn = turn
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="stremn-run", daemon=True)
        self._thread.start()

    def pause(self) -> None:
        """Stop the run after its current frame; it can be continued from there."""
        self._stop.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended."""
        self._thread.join(timeout)

    # ------------------------------------------------------------ in the thread

    def _work(self) -> None:
        try:
            while not self._turn.acquire(timeout=0.1):
                self._check()
            try:
                self._follow()
            finally:
                self._turn.release()
            self.status = replace(self.status, stage="done")
        except StoppedError:
            self.status = replace(self.status, stage="paused")
        except StremnError as error:
            self.status = replace(self.status, stage="failed", words=str(error))
        except Exception as error:
            logger.exception("A run of the page failed")
            words = f"The run failed: {error}."
            if isinstance(error, MemoryError | RuntimeError) and is_out_of_memory(error):
                words = (
                    "Out of memory. Use fewer memory slots or objects, or a lower working "
                    "resolution."
                )
            self.status = replace(self.status, stage="failed", words=words)

    def _check(self) -> None:
        if self._stop.is_set():
            raise StoppedError("Paused.")

    def _follow(self) -> None:
        self._check()
        total = self.status.total
        self.status = replace(self.status, stage="loading")
        model = self._order.model(self._adapting)
        self.status = replace(self.status, stage="following", done=0, total=total)
        for leg in self._order.legs:
            self._go(leg, self._session(leg, model))

    def _adapting(self, done: int, steps: int) -> None:
        self.status = replace(self.status, stage="adapting", done=done, total=steps)
        self._check()

    def _session(self, leg: Leg, model: VideoModel) -> Session:
        order = self._order
        if leg.state is None:
            return order.options.open(model, order.device)
        session = self._resumed(leg.state, model)
        for item in session.ids:
            if item not in order.objects:
                session.remove_object(item)
        return session

    def _resumed(self, state: SavedState, model: VideoModel) -> Session:
        """Resume a saved session; one that cannot be resumed is removed, so the next run can go on.

        Raises:
            StremnError: it cannot be resumed; the message names no file of the server.
        """
        try:
            return model.resume(state.path, self._order.options.asked(self._order.device))
        except StremnError as error:
            logger.warning("A saved session cannot be resumed: %s", error)
            self._states.remove(lambda one: one is state)
            frame = state.way.index(state.after)
            raise StremnError(
                f"The session saved after frame {frame} cannot be resumed. It was removed: press "
                "Continue again, and the run goes on from an earlier one."
            ) from error

    def _go(self, leg: Leg, session: Session) -> None:
        """Segment a leg; save the session from time to time, and at the end."""
        take = leg.take
        moments: deque[float] = deque([time.perf_counter()], maxlen=30)
        before = self.status.done
        with closing(self._frames(leg)) as frames:
            for done, frame in enumerate(frames, 1):
                self._step(take, session, frame)
                moments.append(time.perf_counter())
                self.status = replace(
                    self.status,
                    frame=frame.index,
                    done=before + done,
                    rate=(len(moments) - 1) / (moments[-1] - moments[0]),
                    memory=session.memory_bytes,
                )
                at_end = done == leg.length
                if at_end or self._stop.is_set() or take.reached % STATE_EVERY == 0:
                    self._states.save(take, take.reached - 1, session.save)
                if not at_end:
                    self._check()
        if take.way.step > 0 and take.reached < leg.end:
            self._shelf.count = take.way.index(take.reached)  # the video ends before it says
        if not take.rows:
            raise StremnError(f"The video has no frame {take.way.index(take.start)}.")

    def _frames(self, leg: Leg) -> Generator[Frame]:
        """Yield the frames of a leg in its direction."""
        way, start = leg.take.way, leg.take.start
        first = way.index(start)
        if way.step > 0:
            with open_frames(self._order.video, start=first) as source, ReadAhead(source) as ahead:
                yield from islice(ahead, leg.length)
            return
        index, last = first, way.index(leg.end - 1)
        try:
            with (
                open_frames(self._order.video) as source,
                ReadAhead(source.backward(last, first)) as ahead,
            ):
                for frame in ahead:
                    yield frame
                    index -= 1
        except StremnError as error:  # not every video can be read so
            logger.info("Backward from the pictures on the shelf: %s", error)
        for remaining in range(index, last - 1, -1):
            yield Frame(remaining, frame_name(remaining), self._shelf.picture(remaining))

    def _step(self, take: Take, session: Session, frame: Frame) -> None:
        self._shelf.put(frame)
        given = together(take.given.get(frame.index, {}), self._order.objects)
        result = session.step(frame.image, given).renumbered(take.way.index)
        kept = Kept.of(result, take.way.met(take.given, frame.index))
        take.add(frame.index, result.labels, kept, memory_row(result))


def together(masks: Mapping[int, Packed], objects: Set[int]) -> Labels | None:
    """Return the label map of some objects' masks; None if there is none of them."""
    labels: Labels | None = None
    for item, packed in masks.items():
        if item not in objects:
            continue
        mask = packed.labels() > 0
        labels = np.zeros(mask.shape, np.uint16) if labels is None else labels
        labels[mask] = item
    return None if labels is None else label_map(labels).labels


def memory_row(result: StepResult) -> dict[str, Any]:
    """Return a frame's row of `memory.json`, and which templates the visitor gave."""
    row = result.memory.to_json()
    for entry in result.memory.objects:
        row["objects"][str(entry.id)]["pinned"] = list(entry.pinned)
    return row
