"""Segment backward and forward from the frames in which objects are given.

First a session goes backward, from the last given frame to the run's first, and its results are
stored on disk. Then a session goes forward from the first given frame. Each uses all given masks on
its way. For every object a frame lies

- before its first given frame: the backward pass alone knows it;
- after its last given frame: the forward pass alone knows it;
- between two: both do, and their probabilities are averaged pixel by pixel (`joined`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from stremn.media.frames import Frame, FrameSource
from stremn.media.given import Correction, GivenMasks
from stremn.media.masks import LabelMap
from stremn.media.overlap import ReadAhead
from stremn.segmentation.opening import Session
from stremn.segmentation.pass_store import Kept, PassStore
from stremn.segmentation.passes import SessionPass
from stremn.segmentation.reports import MemoryReport, StepResult, label_map_of

FOLDER = "backward"
"""Of the backward pass, in a run's `.resume`."""

LEAST_CERTAINTY = 1e-3
"""Of a probability of 1/2, so that two of them have an average."""


def follow_backward(
    frames: FrameSource,
    session: Session,
    given: GivenMasks,
    store: PassStore,
    *,
    first: int,
    checkpoint_every: int = 250,
    watch: Callable[[int, StepResult], None],
) -> None:
    """Follow the objects from the last given frame back to frame `first`; resume an earlier pass.

    Args:
        frames: the video.
        session: a new one, or one that was loaded from `store.state_path`.
        given: the masks.
        store: what takes the results.
        first: index of the last frame of this pass.
        checkpoint_every: frames between two checkpoints.
        watch: called with (frames done, result) after every frame.

    Raises:
        StremnError: the video cannot be read backward, a mask does not fit, the disk is full; the
            pass can go on from there, as after KeyboardInterrupt.
    """
    last = given.last
    passing = SessionPass(session, last, step=-1)
    at = last - passing.done
    met = dict(store.read(at + 1).given) if passing.done else {}
    begun = at
    try:
        with ReadAhead(frames.backward(first, at), 4) as source:
            for frame in source:
                result = passing.step(frame, given(frame))
                met |= dict.fromkeys(passing.given, frame.index)
                store.add(frame.index, Kept.of(result, met))
                at = frame.index - 1
                watch(last - at, result)
                if passing.done % checkpoint_every == 0:
                    store.checkpoint(frame.index, passing.save)
    except BaseException:
        if at < begun and passing.done == last - at:
            store.checkpoint(at + 1, passing.save)
        raise
    store.checkpoint(first, passing.save, complete=True)


class BothWays:
    """The forward pass of a run in which `follow_backward` went first (see `Pass`)."""

    def __init__(
        self,
        session: Session,
        given: GivenMasks,
        store: PassStore,
        *,
        first: int,
        done: int = 0,
    ) -> None:
        """Start at frame `first`, or resume.

        Args:
            session: a new one, or one that was saved by `save`.
            given: the masks.
            store: what `follow_backward` kept, complete.
            first: index of the run's first frame.
            done: frames that the run has been through already.
        """
        self._forward = SessionPass(session, given.frames[0])
        self._session = session
        self._given = given
        self._store = store
        self._first = first
        self._done = done
        self._met: dict[int, int] = {}
        for frame in given.frames:
            if frame < first + done and frame <= given.last:  # later ones are the session's alone
                kept = store.read(frame).given
                self._met |= {item: frame for item, met in kept.items() if met == frame}

    @property
    def done(self) -> int:
        """Number of frames processed."""
        return self._done

    @property
    def memory(self) -> MemoryReport:
        """Content of the forward pass's memory."""
        return self._forward.memory

    @property
    def memory_bytes(self) -> int:
        """Bytes of the forward pass's memory."""
        return self._forward.memory_bytes

    def step(self, frame: Frame, given: LabelMap | Correction | None) -> StepResult:
        """Segment the next frame, joined with the backward pass.

        Raises:
            StremnError: as `SessionPass.step`, or what the backward pass kept is gone.
        """
        # Read before the session goes on: if this fails, both are at the same frame.
        kept = self._store.read(frame.index) if frame.index <= self._given.last else None
        if kept is not None and frame.index < self._given.frames[0]:
            result = result_of(kept, frame.index)
        else:
            result = self._forward.step(frame, given)
            self._met |= dict.fromkeys(self._forward.given, frame.index)
            if kept is not None:
                result = joined(result, kept, self._met)
        self._done += 1
        return result

    def save(self, path: Path) -> None:
        """Save the state of the forward pass."""
        self._session.save(path)


def result_of(kept: Kept, frame: int) -> StepResult:
    """Return the stored result of a frame."""
    probabilities = _with_background(kept.probabilities)
    labels = label_map_of(kept.size.outward(probabilities), kept.ids)
    return StepResult(frame, labels, kept.ids, kept.memory, probabilities, kept.size)


def joined(forward: StepResult, backward: Kept, met: Mapping[int, int]) -> StepResult:
    """Return one result from both passes' probabilities of a frame.

    An object that both know has, in each pixel, the average of both probabilities p, each weighted
    by its nearness times its certainty. The nearness of a pass falls in time from 1 at the object's
    given frame on its side to 0 at the one on the other; the certainty is |2p - 1|. So a given
    frame keeps its mask. In between the more certain pass decides, or the nearer of two that are
    equally certain. Objects whose sum exceeds 1 in a pixel are scaled to 1.

    Args:
        forward: of the forward pass.
        backward: of the backward pass, in the same frame.
        met: for each object of the forward pass, its given frame before this one, or this one.
    """
    ids = (*forward.ids, *(item for item in backward.ids if item not in forward.ids))
    ours = dict(zip(forward.ids, forward.layer_probabilities[1:], strict=True))
    theirs = dict(zip(backward.ids, backward.probabilities, strict=True))
    layers = []
    for item in ids:
        if item in ours and item in theirs:
            since, until = forward.frame - met[item], backward.given[item] - forward.frame
            nearness = until / (since + until) if since else 1.0
            layers.append(_average(ours[item], theirs[item], nearness))
        else:
            layers.append(ours[item] if item in ours else theirs[item])
    probabilities = _with_background(np.stack(layers).astype(np.float32))
    labels = label_map_of(forward.size.outward(probabilities), ids)
    return StepResult(forward.frame, labels, ids, forward.memory, probabilities, forward.size)


def _average(
    ours: Float[np.ndarray, "h w"], theirs: Float[np.ndarray, "h w"], nearness: float
) -> Float[np.ndarray, "h w"]:
    our_weight = nearness * np.maximum(np.abs(2 * ours - 1), LEAST_CERTAINTY)
    their_weight = (1 - nearness) * np.maximum(np.abs(2 * theirs - 1), LEAST_CERTAINTY)
    return (our_weight * ours + their_weight * theirs) / (our_weight + their_weight)


def _with_background(objects: Float[np.ndarray, "o h w"]) -> Float[np.ndarray, "c h w"]:
    """Return probabilities of background and objects, that sum to 1."""
    objects = objects / np.maximum(objects.sum(0), 1)
    return np.concatenate([np.maximum(1 - objects.sum(0, keepdims=True), 0), objects])
