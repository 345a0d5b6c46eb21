"""The sections of a prediction recipe (TOML).

Paths in a recipe are absolute or below the folder named by the variable STREMN_DATA.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from stremn.core.config import Config
from stremn.data.readers.prediction_sets import ClipsSection
from stremn.moved import moved_names
from stremn.training.config import TrainConfig, TrainingRecipe


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
    silent: int = Field(default=0, ge=0)
    """Predictions over the first observed frames that are left out: those frames are only
    memorized. Saves their decoding where what matters comes late."""

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


class PredictorSection(Config):
    """Which predictor: ours from a preset, or a recurrent baseline; `fields` change its numbers."""

    kind: Literal["stremn", "convlstm", "predrnn"] = "stremn"
    preset: str = "64"
    """Of ours; a baseline has none."""
    fields: dict[str, Any] = Field(default_factory=dict)
    start: Path | None = None
    """Weights of an earlier training to start from; then `fields` change its numbers, such as the
    policy, not the preset's."""


class ValidationSection(Config):
    """Scores on clips of the validation split, and how many checkpoints to average."""

    clips: PositiveInt = 64
    average: NonNegativeInt = 5
    """Checkpoints with the best SSIM that are averaged at the end; 0 averages none."""


SCORES = ("ssim", "mse", "psnr", "mse_first", "mse_last")
"""What validation reports."""

ERRORS = frozenset({"mse", "mse_first", "mse_last"})
"""Those of which less is better."""


class TrainSection(TrainConfig):
    """Optimizer settings; the best weights have the highest SSIM if nothing else is said."""

    monitor: str = "ssim"


class PredictionRecipe(TrainingRecipe):
    """A complete prediction recipe."""

    train: TrainSection
    task: Literal["prediction"]
    model: PredictorSection = PredictorSection()
    data: ClipsSection
    horizon: HorizonConfig = HorizonConfig()
    loss: LossConfig = LossConfig()
    batch: PositiveInt = 8
    validation: ValidationSection = ValidationSection()

    @model_validator(mode="after")
    def _monitor_is_reported(self) -> Self:
        if self.train.monitor not in SCORES:
            raise ValueError(
                f"train.monitor is {self.train.monitor!r}, but validation reports "
                f"{', '.join(SCORES)}"
            )
        better = "min" if self.train.monitor in ERRORS else "max"
        if self.train.monitor_mode != better:
            raise ValueError(
                f"train.monitor_mode is {self.train.monitor_mode!r}, so the worst "
                f"{self.train.monitor} would be taken for the best; set train.monitor_mode = "
                f'"{better}"'
            )
        return self


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
