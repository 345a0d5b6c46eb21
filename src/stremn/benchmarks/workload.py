"""Define what the benchmark runs: amounts, a drawn video, a model and a full memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from stremn.media.frames import Picture
from stremn.media.masks import Labels
from stremn.memory.state import MemoryState
from stremn.networks.defaults import PAPER
from stremn.networks.model import STReMN
from stremn.networks.presets import PRESETS, build_model
from stremn.networks.pretrained import SHIPPED_FILES, load_model
from stremn.segmentation.sessions import SegmentationSession

SIZES = {"240p": (240, 427), "432p": (432, 768), "480p": (480, 854), "1080p": (1080, 1920)}
"""Name of a frame size -> (height, width) in pixels."""

COLORS = cv2.cvtColor(
    np.array([[[18 * i, 255, 255] for i in range(10)]], np.uint8), cv2.COLOR_HSV2RGB
)[0]
"""Of the drawn objects: ten hues."""


@dataclass(frozen=True)
class Workload:
    """How much to measure. `seconds` is the least time for one figure, after one run to warm up."""

    seconds: float = 2.0
    objects: tuple[int, ...] = (1, 2, 5, 10)
    memory_slots: tuple[int, ...] = (1, 2, 4, 6, 8, 12, 16, 20)
    sizes: tuple[str, ...] = ("240p", "432p", "480p", "1080p")
    models: tuple[str, ...] = ("small", "resnet50")
    growth_frames: int = 200
    flat_frames: int = 10_000
    flat_side: int = 128
    pipeline_frames: int = 200


FULL = Workload()
QUICK = Workload(
    seconds=0.7,
    objects=(1, 5),
    memory_slots=(1, 6, 20),
    sizes=("240p", "480p"),
    growth_frames=100,
    flat_frames=1000,
    pipeline_frames=30,
)


def made_frame(height: int, width: int, index: int = 0) -> Picture:
    """Return a frame of a drawn video: ten discs, each of its own color, move over a texture."""
    texture = np.random.default_rng(0).integers(60, 160, (height // 8 + 1, width // 8 + 1, 3))
    image = cv2.resize(texture.astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    labels = made_labels(height, width, len(COLORS), index)
    painted = np.concatenate([np.zeros((1, 3), np.uint8), COLORS])[labels]
    return np.where(labels[..., None] > 0, image // 4 + painted // 4 * 3, image).astype(np.uint8)


def made_labels(height: int, width: int, objects: int, index: int = 0) -> Labels:
    """Return the label map of the first `objects` discs of `made_frame`, the first the largest."""
    labels = np.zeros((height, width), np.uint8)
    for i in range(objects, 0, -1):
        angle = 2 * math.pi * (3 * i / len(COLORS) + index / 400)  # neighbors in number: apart
        x = round(width * (0.5 + 0.3 * math.cos(angle)))
        y = round(height * (0.5 + 0.3 * math.sin(angle)))
        cv2.circle(labels, (x, y), max(2, height // (5 + i)), i, -1)
    return labels


def ready_model(name: str) -> STReMN:
    """Return a preset with the weights that come with it, else random ones; or a file's model.

    A step costs the same with either; results cost more to write where masks are noise.

    Raises StremnError for what is neither (see `load_model`).
    """
    random = name in PRESETS and name not in SHIPPED_FILES
    model = build_model(PRESETS[name]) if random else load_model(name).model
    return model.eval()


def new_session(
    model: STReMN,
    precision: str,
    size: int,
    *,
    memory_slots: int = PAPER.memory_slots,
    policy: str = PAPER.policy,
    reach: float | None = None,
) -> SegmentationSession:
    """Return a session on the CPU; with `reach` None every step reads whole frames."""
    return SegmentationSession(
        model,
        device="cpu",
        precision=precision,
        memory_slots=memory_slots,
        policy=policy,
        size=size,
        reach=reach,
    )


def full_session(
    model: STReMN,
    frame: Picture,
    objects: int,
    memory_slots: int,
    precision: str,
    size: int,
    reach: float | None = None,
) -> SegmentationSession:
    """Return a session whose memory is full: what a step costs from then on."""
    session = new_session(model, precision, size, memory_slots=memory_slots, reach=reach)
    session.step(frame, made_labels(frame.shape[0], frame.shape[1], objects))
    assert session.track is not None  # it has just been given objects
    session.track = replace(session.track, state=_filled(session.track.state))
    session.frame = memory_slots
    return session


def _filled(state: MemoryState) -> MemoryState:
    """Fill every slot with the first template, a little changed, as if frames had passed."""

    def spread(x: Tensor) -> Tensor:
        if not x.numel():  # there are no update keys
            return x
        first = x[:, :1].expand_as(x)
        return first + 0.1 * first.float().std().to(x) * torch.randn_like(x)

    return replace(
        state,
        keys=spread(state.keys),
        values=spread(state.values),
        update_keys=spread(state.update_keys),
        evidence=state.evidence[:, :1].expand_as(state.evidence).clone(),
        written_at=torch.arange(state.slots).expand(state.batch, -1).clone(),
        filled=state.slots,
    )
