"""Eq 1: similarity of two templates."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from stremn.memory.choices import precise


def similarity(
    new: Float[Tensor, "b h w cu"], stored: Float[Tensor, "b k h w cu"]
) -> Float[Tensor, "b k"]:
    """Return Eq 1: mean over the new frame's positions p of the best cosine over positions q.

    One slot of one entry at a time, so that no more than one (h w) x (h w) block exists at once.
    """
    ours = F.normalize(new, dim=-1).flatten(1, 2)  # b p cu
    theirs = F.normalize(stored, dim=-1).flatten(2, 3)  # b k q cu
    best = [
        torch.stack([largest(one @ slot.T) for slot in slots])  # k p
        for one, slots in zip(ours, theirs, strict=True)
    ]
    return precise(torch.stack(best)).mean(-1)


def largest(x: Float[Tensor, "p q"]) -> Float[Tensor, " p"]:
    """Return the maximum over the last dimension.

    Bits of bfloat16 numbers, taken as integers, are in the order of the numbers unless all are
    negative; CPUs compare integers six times as fast as they do bfloat16.
    """
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and not x.requires_grad:
        best = x.view(torch.int16).amax(-1).view(torch.bfloat16)
        if not (best < 0).any():
            return best
    return x.amax(-1)
