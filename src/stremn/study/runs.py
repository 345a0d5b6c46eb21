"""What is run: a session that segments frame by frame, its description, and how one is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

from stremn.media.frames import Picture
from stremn.media.masks import Labels
from stremn.model import STReMN
from stremn.multiscale import MultiScaleSession
from stremn.sessions import SegmentationSession


class Step(Protocol):
    """What a session answers for a frame."""

    @property
    def labels(self) -> Labels:
        """Label map of the size of the frame."""
        ...


class Session(Protocol):
    """Something that segments a video frame by frame, given masks of some frames."""

    def step(self, frame: Picture, mask: Labels | None = None) -> Step:
        """Segment the next frame. ``mask`` gives objects (pixels of new ids only)."""
        ...


@dataclass(frozen=True)
class RunDescription:
    """What was run: the part of the protocol that the data set does not know.

    :func:`session_factory` makes the sessions that a description describes.

    Attributes:
        model: preset or file of the weights.
        policy: name of the replacement rule.
        slots: memory slots K.
        resolution: shorter side in pixels that frames are reduced to.
        scales: test-time scales; several make STReMN-MS.
        flip: whether horizontally flipped copies vote too.
        seed: seed of random rules.
        reach: far false positives are removed before a frame is memorized, within this reach of
            :func:`stremn.postprocess.near_regions`; None = they are not.
        weights: checksum of the weights, so that a file trained further is another run.
    """

    model: str
    policy: str
    slots: int
    resolution: int
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    seed: int = 0
    reach: float | None = None
    weights: str = ""

    def to_json(self) -> dict[str, Any]:
        """As a table for score files."""
        return {**asdict(self), "scales": list(self.scales)}


def session_factory(
    model: STReMN, run: RunDescription, *, device: str = "auto", precision: str = "auto"
) -> Callable[[], Session]:
    """Fresh sessions as a run's description says: single, or multi-scale (STReMN-MS).

    Args:
        model: the network, shared by all sessions.
        run: policy, slots, resolution, scales, flip, seed and reach.
        device: as for :class:`stremn.sessions.SegmentationSession`.
        precision: likewise.
    """

    def single(size: int) -> SegmentationSession:
        return SegmentationSession(
            model,
            device=device,
            precision=precision,
            memory_slots=run.slots,
            policy=run.policy,
            size=size,
            seed=run.seed,
            reach=run.reach,
        )

    def several() -> MultiScaleSession:
        return MultiScaleSession(single, size=run.resolution, scales=run.scales, flip=run.flip)

    plain = run.scales == (1.0,) and not run.flip
    return partial(single, run.resolution) if plain else several
