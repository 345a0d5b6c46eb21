"""Losses of video prediction (Sec 4.2): shrinkage on L1 and L2, scale-invariant gradient."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

SPACINGS = (1, 2, 4, 8, 16)
"""Pixel distances h of the scale-invariant gradient."""


def shrinkage_l1(
    prediction: Float[Tensor, "..."],
    target: Float[Tensor, "..."],
    steepness: float = 10.0,
    center: float = 0.2,
) -> Float[Tensor, ""]:
    """Return the mean of l / (1 + exp(a (c - l))), l = |prediction - target| (as Lu et al. 2018).

    Args:
        prediction: frames in [0, 1], any shape.
        target: frames of the same shape.
        steepness: a, how sharply easy and hard pixels are separated.
        center: c, the error at which a pixel counts half.
    """
    error = (prediction - target).abs()
    return (torch.sigmoid(steepness * (error - center)) * error).mean()


def shrinkage_l2(
    prediction: Float[Tensor, "..."],
    target: Float[Tensor, "..."],
    steepness: float = 10.0,
    center: float = 0.2,
) -> Float[Tensor, ""]:
    """Return the mean of l^2 / (1 + exp(a (c - l))), l = |prediction - target| (Lu et al. 2018).

    The importance exp(target) of the original is left out: brightness is no importance here.
    Arguments as in `shrinkage_l1`.
    """
    error = (prediction - target).abs()
    return (torch.sigmoid(steepness * (error - center)) * error.square()).mean()


def l1(prediction: Float[Tensor, "..."], target: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Return the mean absolute error, the control beside `shrinkage_l1`."""
    return (prediction - target).abs().mean()


def l2(prediction: Float[Tensor, "..."], target: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Return the mean squared error, the control beside `shrinkage_l2`."""
    return (prediction - target).square().mean()


def scale_invariant_gradient(
    prediction: Float[Tensor, "... height width"],
    target: Float[Tensor, "... height width"],
    epsilon: float = 0.1,
    spacings: Sequence[int] = SPACINGS,
) -> Float[Tensor, ""]:
    """Sum over spacings h of the mean of ||g_h[prediction] - g_h[target]|| (DeMoN, Eq. 10-11).

    g_h[f] holds (f(i+h) - f(i)) / (|f(i+h)| + |f(i)| + epsilon) down and across; it is 0 where
    i + h lies outside. Spacings not below half the shorter side are left out.

    Args:
        prediction: frames in [0, 1].
        target: frames of the same shape.
        epsilon: keeps dark pixels quiet. With 1e-3 (DeMoN's own) noise of 0.01 on black costs four
            times as much as digits shifted by a pixel; with 0.1 it costs less.
        spacings: the distances h in pixels.
    """
    limit = min(prediction.shape[-2:]) / 2
    total = prediction.new_zeros(())
    for spacing in spacings:
        if spacing >= limit:
            continue
        down, across = _gradients(prediction, spacing, epsilon)
        target_down, target_across = _gradients(target, spacing, epsilon)
        squared = (down - target_down).square() + (across - target_across).square()
        # The root's slope at 0 is infinite; 1e-12 keeps it finite and is far below one grey level.
        total = total + (squared + 1e-12).sqrt().mean()
    return total


def _gradients(
    frames: Float[Tensor, "... height width"], spacing: int, epsilon: float
) -> tuple[Float[Tensor, "... height width"], Float[Tensor, "... height width"]]:
    """Return g_h of the frames, down and across, zero where the neighbor lies outside."""
    below, here = frames[..., spacing:, :], frames[..., :-spacing, :]
    down = (below - here) / (below.abs() + here.abs() + epsilon)
    right, left = frames[..., spacing:], frames[..., :-spacing]
    across = (right - left) / (right.abs() + left.abs() + epsilon)
    return F.pad(down, (0, 0, 0, spacing)), F.pad(across, (0, spacing))
