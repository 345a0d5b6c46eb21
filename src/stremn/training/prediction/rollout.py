"""What a predictor is trained on: batches of clips, the roll-out's horizon, the loss (Sec 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, cast

import torch
from jaxtyping import Float, UInt8
from pydantic import Field, model_validator
from torch import Tensor, nn

from stremn.core.config import Config
from stremn.prediction.model import Forecaster
from stremn.training.loss_report import LossReport
from stremn.training.prediction.losses import (
    l1,
    l2,
    scale_invariant_gradient,
    shrinkage_l1,
    shrinkage_l2,
)


@dataclass(frozen=True)
class FrameBatch:
    """Clips for training: uint8 frames, grey or RGB."""

    frames: UInt8[Tensor, "b t c height width"]

    def to(self, device: torch.device) -> FrameBatch:
        """Copy to a device."""
        return FrameBatch(self.frames.to(device))


def collate(clips: Sequence[UInt8[Tensor, "t c height width"]]) -> FrameBatch:
    """Join clips of equal shape into a batch."""
    return FrameBatch(torch.stack(list(clips)))


class LossConfig(Config):
    """Weights of the loss: pixel loss + gradient_weight x scale-invariant gradient (Sec 4.2).

    `pixel` is the paper's "shrinkage" on L1 and L2, or as controls "plain" L1 + L2, or "squared",
    L2 alone, which does not pull uncertain pixels to black early in training. The gradient's
    weight rises from 0 over the first `gradient_ramp` of training.

    `future_weight`, not in the paper, is how much more one of the clip's last `future` frames
    counts than one of the observed frames, which are predicted one step ahead.
    """

    pixel: Literal["shrinkage", "plain", "squared"] = "shrinkage"
    gradient_weight: float = Field(default=0.1, ge=0)
    gradient_ramp: float = Field(default=0.3, ge=0, le=1)
    future_weight: float = Field(default=1.0, gt=0)


class HorizonConfig(Config):
    """What a training clip is: `observed` frames, then `future` frames.

    Roll-out in training: the last frames of the clip are predicted freely, from own predictions;
    the frames before are predicted one step ahead from true ones. The free part is one frame up
    to `free_from` of training and grows to `future` frames at `full_at`. So every frame is
    supervised always, and the share of true input falls as in scheduled sampling.
    """

    observed: int = Field(default=10, gt=0)
    future: int = Field(default=10, gt=0)
    free_from: float = Field(default=0.0, ge=0, le=1)
    full_at: float = Field(default=0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _grows_forward(self) -> Self:
        if self.free_from > self.full_at:
            raise ValueError(f"free_from {self.free_from} must not be above full_at {self.full_at}")
        return self

    def free(self, progress: float) -> int:
        """Return frames predicted freely at a progress in [0, 1]."""
        if progress >= self.full_at:
            return self.future
        span = self.full_at - self.free_from
        share = max(progress - self.free_from, 0.0) / span if span else 0.0
        return 1 + round((self.future - 1) * share)


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
    """
    frames = batch.frames.float() / 255
    free = horizon.free(progress)
    observed = horizon.observed + horizon.future - free
    predicted = cast(Forecaster, model).rollout(frames, observed, free)
    prediction = predicted.frames.float()
    target = frames[:, predicted.first : horizon.observed + horizon.future]
    early = horizon.observed - predicted.first
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
