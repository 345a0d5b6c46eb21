"""J on held-out sequences while a model trains: streamed, as a session would, but nothing kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from stremn.data.segmentation import VideoSequence
from stremn.memory import UpdatePolicy
from stremn.metrics import region_similarity
from stremn.model import STReMN
from stremn.segmentation import memorize, one_hot, recall, start

__all__ = ["mean_j", "sequence_j"]


def mean_j(
    model: STReMN,
    sequences: Sequence[VideoSequence],
    *,
    short_side: int,
    slots: int,
    policy: UpdatePolicy,
    frames: int | None = None,
) -> dict[str, float]:
    """Return "J", the mean over all objects of all sequences, and "J_<name>" of each sequence."""
    scores = {
        sequence.name: sequence_j(
            model, sequence, short_side=short_side, slots=slots, policy=policy, frames=frames
        )
        for sequence in sequences
    }
    every = [j for objects in scores.values() for j in objects]
    return {"J": float(np.mean(every))} | {
        f"J_{name}": float(np.mean(objects)) for name, objects in scores.items()
    }


@torch.inference_mode()
def sequence_j(
    model: STReMN,
    sequence: VideoSequence,
    *,
    short_side: int,
    slots: int,
    policy: UpdatePolicy,
    frames: int | None = None,
) -> list[float]:
    """Mean J of each object given in frame 0, over the frames that count in DAVIS.

    Those are all but the first and the last of the sequence; `frames` stops earlier. Frames are
    resized so that the shorter side is about `short_side` (both sides multiples of 16).
    """
    device = next(model.parameters()).device
    truth = sequence.label(0)
    if truth is None:
        return []
    ids = [i for i, frame in sequence.objects.items() if frame == 0]
    size = _network_size(truth.shape[0], truth.shape[1], short_side)
    entries = torch.arange(len(ids), device=device)
    track = start(model, torch.zeros_like(entries), entries + 1, slots, size)
    current = _given(truth, ids, size).to(device)
    scores: list[list[float]] = [[] for _ in ids]
    last = len(sequence) - 1 if frames is None else min(frames, len(sequence) - 1)
    for t in range(last):
        with torch.autocast(device.type, torch.bfloat16):
            query = model.encode_query(_prepared(sequence.frame(t), size).to(device))
            if t > 0:
                current = recall(model, track, query, 1, len(ids)).exp()
                _score(current, sequence, t, ids, scores)
            track, _ = memorize(model, track, query, current, frame=t, policy=policy, pin=t == 0)
    return [float(np.mean(rows)) for rows in scores if rows]


def _network_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    factor = short_side / min(height, width)
    return max(16, round(height * factor / 16) * 16), max(16, round(width * factor / 16) * 16)


def _prepared(
    frame: UInt8[np.ndarray, "height width 3"], size: tuple[int, int]
) -> Float[Tensor, "1 3 h w"]:
    image = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
    resized = F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)
    return resized.contiguous(memory_format=torch.channels_last)


def _given(
    truth: np.ndarray, ids: Sequence[int], size: tuple[int, int]
) -> Float[Tensor, "1 c h w"]:
    labels = np.zeros(truth.shape, dtype=np.int64)
    for number, i in enumerate(ids, start=1):
        labels[truth == i] = number
    masks = one_hot(torch.from_numpy(labels)[None], len(ids))
    return F.interpolate(masks, size, mode="bilinear", align_corners=False, antialias=True)


def _score(
    probabilities: Float[Tensor, "1 c h w"],
    sequence: VideoSequence,
    t: int,
    ids: Sequence[int],
    scores: list[list[float]],
) -> None:
    truth = sequence.label(t)
    if truth is None:
        return
    full = F.interpolate(probabilities.float(), truth.shape, mode="bilinear", align_corners=False)
    labels = full[0].argmax(0).cpu().numpy()
    for number, (i, row) in enumerate(zip(ids, scores, strict=True), start=1):
        row.append(region_similarity(labels == number, truth == i))
