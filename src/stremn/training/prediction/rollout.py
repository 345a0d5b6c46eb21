"""Loss of a predictor's roll-out over a batch of clips (Sec 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stremn.errors import StremnError
from stremn.moved import moved_names
from stremn.prediction.rollouts import Forecaster
from stremn.training.loss_report import LossReport
from stremn.training.prediction.data import FrameBatch
from stremn.training.prediction.losses import (
    l1,
    l2,
    scale_invariant_gradient,
    shrinkage_l1,
    shrinkage_l2,
)
from stremn.training.prediction.recipe import HorizonConfig, LossConfig

PIXEL_LOSSES = {
    "shrinkage": (shrinkage_l1, shrinkage_l2),
    "plain": (l1, l2),
    "squared": (l2,),
}


def frame_loss(
    prediction: Float[Tensor, "b n c height width"],
    target: Float[Tensor, "b n c height width"],
    config: LossConfig,
    progress: float,
) -> LossReport:
    """Return pixel losses plus the weighted scale-invariant gradient, as means over all frames."""
    terms = {loss.__name__: loss(prediction, target) for loss in PIXEL_LOSSES[config.pixel]}
    scalars = {name: float(term.detach()) for name, term in terms.items()}
    total = torch.stack(list(terms.values())).sum()
    ramp = 1.0 if config.gradient_ramp == 0 else min(progress / config.gradient_ramp, 1.0)
    weight = config.gradient_weight * ramp
    if weight > 0:
        gradient = scale_invariant_gradient(prediction, target)
        scalars["gradient"] = float(gradient.detach())
        total = total + weight * gradient
    return LossReport(total, scalars)


def clip_loss(
    model: nn.Module,
    batch: FrameBatch,
    progress: float,
    *,
    horizon: HorizonConfig,
    loss: LossConfig,
) -> LossReport:
    """Roll a predictor out over a batch of clips and score every frame it predicted.

    `model` must be a `Forecaster`.

    Raises:
        StremnError: `horizon.silent` leaves out a future frame, which is predicted one step ahead
            as long as the free part grows.
    """
    frames = batch.frames.float() / 255
    free = horizon.free(progress)
    observed = horizon.observed + horizon.future - free
    predicted = cast(Forecaster, model).rollout(frames, observed, free, horizon.silent)
    prediction = predicted.frames.float()
    target = frames[:, predicted.first : horizon.observed + horizon.future]
    early = horizon.observed - predicted.first
    if horizon.silent and early < 0:
        raise StremnError(
            f"horizon.silent = {horizon.silent} leaves out future frames: the first one is frame "
            f"{horizon.observed}, but predictions begin with frame {predicted.first}. Set it "
            "lower, or set horizon.full_at = 0."
        )
    if loss.future_weight == 1 or early == 0:
        return frame_loss(prediction, target, loss, progress)
    reports = [
        frame_loss(prediction[:, part], target[:, part], loss, progress)
        for part in (slice(early), slice(early, None))
    ]
    return weighted_mean(reports, (early, loss.future_weight * horizon.future))


def weighted_mean(reports: Sequence[LossReport], weights: Sequence[float]) -> LossReport:
    """Return the mean of losses with equal terms, and of each term; `weights` need not sum to 1."""
    shares = [weight / sum(weights) for weight in weights]
    total = torch.stack([s * r.loss for s, r in zip(shares, reports, strict=True)]).sum()
    names = reports[0].scalars
    return LossReport(
        total,
        {n: sum(s * r.scalars[n] for s, r in zip(shares, reports, strict=True)) for n in names},
    )


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
