"""Describe a run, and open its sessions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from stremn.errors import StremnError
from stremn.media.frames import Picture
from stremn.media.masks import Labels
from stremn.moved import earlier_fields, moved_names
from stremn.networks.model import STReMN
from stremn.segmentation.multiscale import MultiScaleSession
from stremn.segmentation.sessions import SegmentationSession


class Labelled(Protocol):
    """Result of a session for one frame."""

    @property
    def labels(self) -> Labels:
        """Label map of the size of the frame."""
        ...


class Segmenter(Protocol):
    """Segments a video frame by frame, given masks of some frames."""

    def step(self, frame: Picture, mask: Labels | None = None) -> Labelled:
        """Segment the next frame. ``mask`` gives objects (pixels of new ids only)."""
        ...


@earlier_fields(slots="memory_slots", resolution="size")
@dataclass(frozen=True)
class RunDescription:
    """What was run: the part of the protocol that the data set does not know.

    :func:`session_factory` makes the sessions that a description describes; on which device they
    run is not part of it.

    Attributes:
        model: preset or file of the weights.
        policy: name of the replacement rule.
        memory_slots: K, templates kept of each object.
        size: working resolution: shorter side in pixels.
        scales: test-time scales; several make STReMN-MS.
        flip: whether to average over horizontally flipped copies too.
        seed: seed of random rules.
        reach: search window; regions farther from the object are removed before a frame is
            memorized (:func:`stremn.segmentation.postprocess.near_regions`). None removes none.
        weights: checksum of the weights, which tells runs of different weights apart.
        precision: number type of the sessions; never "auto" in a record.
        adapt: training steps on each video's first frame before it is segmented.
        every: which frames are memorized: 0, n, 2n, ...
    """

    model: str
    policy: str
    memory_slots: int
    size: int
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    seed: int = 0
    reach: float | None = None
    weights: str = ""
    precision: str = "auto"
    adapt: int = 0
    every: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the description as a table for score files."""
        return asdict(self) | {"scales": list(self.scales)}


def slots_label(slots: int) -> str:
    """Return the name of a memory of `slots` slots in tables and pictures."""
    return "1 slot" if slots == 1 else f"{slots} slots"


def single_session(
    model: STReMN, run: RunDescription, *, device: str = "auto"
) -> SegmentationSession:
    """Open a session as a run's description says, without its scales and flip.

    Args:
        model: the network.
        run: policy, memory slots, size, seed, reach, precision and which frames are memorized.
        device: as for :class:`stremn.segmentation.sessions.SegmentationSession`.
    """
    return SegmentationSession(
        model,
        device=device,
        precision=run.precision,
        memory_slots=run.memory_slots,
        policy=run.policy,
        size=run.size,
        seed=run.seed,
        reach=run.reach,
        every=run.every,
    )


def session_factory(
    model: STReMN, run: RunDescription, *, device: str = "auto"
) -> Callable[[], Segmenter]:
    """Return a function that opens a run's sessions: single, or multi-scale (STReMN-MS).

    Args:
        model: the network, shared by all sessions.
        run: what the sessions are.
        device: as for :class:`stremn.segmentation.sessions.SegmentationSession`.

    Raises:
        StremnError: the run adapts its network, which is
            :class:`stremn.training.segmentation.adaptation.AdaptedSession`'s to do.
    """
    if run.adapt:
        raise StremnError("session_factory adapts no network: give it an adapted one and adapt=0.")

    def single(size: int = run.size) -> SegmentationSession:
        return single_session(model, replace(run, size=size), device=device)

    def several() -> MultiScaleSession:
        return MultiScaleSession(single, size=run.size, scales=run.scales, flip=run.flip)

    return single if run.scales == (1.0,) and not run.flip else several


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
