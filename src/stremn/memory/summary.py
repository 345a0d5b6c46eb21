"""A summary of each object, of constant size: a linear classifier of what its positions show.

Not in the paper. The slots of an object hold a few frames; its summary is fitted to every frame
that was memorized. It is a regression from the features of a position to the object's share there,
by least squares with a ridge penalty. Least squares needs only sums over positions, so a summary
has the same size after one frame and after a million.

Frames with a given mask have a fixed share that never fades. All frames, these too, also enter sums
in which older frames fade. A wrong mask that is corrected on a later frame fades too; only that of
the first frame is replaced.

Letters: b entries (one per object), c features of a position (the last one is the constant 1).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from stremn.memory.choices import precise

GIVEN_SHARE = 0.5
"""Share of the frames with given masks in the fit; the other frames have the rest."""

RATE = 0.1
"""Share of the newest frame in the sums of frames without given masks."""

RIDGE = 0.01
"""Penalty on the weights, as a share of the features' mean square."""

LEAST = 0.5
"""Positions that an object must cover in a frame for the frame to count."""

ITERATIONS = 256
"""Steps of the solver in an exported graph: errors are about 1e-5, on black frames 5e-4."""


@torch.no_grad()
def frame_sums(
    shown: Float[Tensor, "b c h w"], masks: Float[Tensor, "b height width"]
) -> Float[Tensor, "b c c1"]:
    """Return what one frame adds to a summary: weighted sums of x x^T and of x m.

    x are the features of a position and m in [0, 1] is the object's share there. The object's
    positions together weigh one half and the others one half, whatever the object's size.

    Args:
        shown: features of each position.
        masks: the object's soft mask at the frame's size.

    Returns:
        The matrix of x x^T and, as its last column, the vector of x m: c1 = c + 1.
    """
    with torch.autocast(shown.device.type, enabled=False):
        x = precise(shown).flatten(2)
        size = (shown.shape[2], shown.shape[3])
        m = F.adaptive_avg_pool2d(masks[:, None].to(x.dtype), size).flatten(1)
        rest = 1 - m
        weight = 0.5 * (m / _total(m) + rest / _total(rest))
        weighted = x * weight[:, None]
        target = (weighted * m[:, None]).sum(2, keepdim=True)
        return torch.cat([weighted @ x.transpose(1, 2), target], dim=2)


def _total(share: Float[Tensor, "b p"]) -> Float[Tensor, "b 1"]:
    return share.sum(1, keepdim=True).clamp(min=1)


def with_frame(
    summary: Float[Tensor, "b 2 c c1"],
    sums: Float[Tensor, "b c c1"],
    *,
    given: Bool[Tensor, " b"],
    earlier: Int[Tensor, " b"],
    shows: Bool[Tensor, " b"],
) -> Float[Tensor, "b 2 c c1"]:
    """Return the summary with one more frame.

    Args:
        summary: sums of frames with given masks, and of all frames, older ones fading.
        sums: the frame's (`frame_sums`).
        given: entries whose mask was given in this frame.
        earlier: number of given masks that each entry holds; 0: this frame begins the summary.
        shows: entries whose object is in the frame; an absent one changes only a new summary.
    """
    fixed, fading = summary.unbind(1)
    sums = sums.to(summary.dtype)
    first = _each(earlier == 0)
    mean = fixed + (sums - fixed) / _each(earlier.to(summary.dtype) + 1)
    fixed = torch.where(first | _each(given & shows), mean, fixed)
    faded = fading + RATE * (sums - fading)
    fading = torch.where(first, sums, torch.where(_each(shows), faded, fading))
    return torch.stack([fixed, fading], dim=1)


@torch.no_grad()
def likeness(
    summary: Float[Tensor, "b 2 c c1"], shown: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b h w"]:
    """Return how much each position looks like the object: about 1 on it, 0 elsewhere."""
    with torch.autocast(shown.device.type, enabled=False):
        fixed, fading = summary.unbind(1)
        sums = GIVEN_SHARE * fixed + (1 - GIVEN_SHARE) * fading
        products, target = sums[:, :, :-1], sums[:, :, -1:]
        scale = products.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp(min=1e-6)
        regular = products + RIDGE * scale * torch.eye(
            products.shape[1], dtype=products.dtype, device=products.device
        )
        weights = _solved(regular, target)
        return torch.einsum("bci,bchw->bhw", weights, precise(shown).to(weights.dtype))


def _solved(
    matrix: Float[Tensor, "b c c"], right: Float[Tensor, "b c 1"]
) -> Float[Tensor, "b c 1"]:
    """Solve a positive definite system; graphs have no solver, so there by conjugate gradients.

    By Cholesky's factors: `torch.linalg.solve` of several systems at once fails on some CPUs where
    PyTorch 2.14 has two threads.
    """
    if torch.compiler.is_exporting():
        return conjugate_gradients(matrix, right)
    factor, _ = torch.linalg.cholesky_ex(matrix)
    return torch.cholesky_solve(right, factor)


def conjugate_gradients(
    matrix: Float[Tensor, "b c c"], right: Float[Tensor, "b c 1"], iterations: int = ITERATIONS
) -> Float[Tensor, "b c 1"]:
    """Solve a positive definite system with products alone, scaled by its diagonal."""
    tiny = 1e-30
    diagonal = matrix.diagonal(dim1=1, dim2=2)[..., None]
    found, residual = torch.zeros_like(right), right
    scaled = residual / diagonal
    direction, size = scaled, (residual * scaled).sum(1, keepdim=True)
    for _ in range(iterations):
        moved = matrix @ direction
        step = size / (direction * moved).sum(1, keepdim=True).clamp(min=tiny)
        found, residual = found + step * direction, residual - step * moved
        scaled = residual / diagonal
        now = (residual * scaled).sum(1, keepdim=True)
        direction, size = scaled + now / size.clamp(min=tiny) * direction, now
    return found


def beside_rivals(
    own: Float[Tensor, "n h w"], video: Int[Tensor, " n"]
) -> Float[Tensor, "n 2 h w"]:
    """Return each object's likeness and the largest among the other objects of its video.

    Both are in [-1, 2]; without other objects the second is 0.
    """
    own = own.nan_to_num(0.0).clamp(-1, 2)
    alone = torch.eye(len(own), dtype=torch.bool, device=own.device)
    others = (video[:, None] == video[None]) & ~alone
    # Object by object: all at once would take n times the memory.
    rivals = torch.stack([own.masked_fill(~_each(row), -1.0).amax(0) for row in others])
    rivals = torch.where(_each(others.any(1)), rivals, 0.0)
    return torch.stack([own, rivals], dim=1)


def _each(values: Tensor) -> Tensor:
    return values[:, None, None]
