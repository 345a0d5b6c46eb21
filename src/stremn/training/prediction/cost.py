"""Estimate the cost of training a predictor on this machine from steps on random clips."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from stremn.errors import StremnError
from stremn.prediction.weights import Predictor
from stremn.training.prediction.data import FrameBatch, training_clips
from stremn.training.prediction.model import count_parameters, first_model
from stremn.training.prediction.recipe import HorizonConfig, PredictionRecipe
from stremn.training.prediction.rollout import clip_loss
from stremn.training.step_time import StepTimer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _StepTime:
    """Seconds of a training step with the shortest and with the longest free roll-out."""

    first: float
    last: float

    def mean(self, horizon: HorizonConfig) -> float:
        """Return the mean over a training, in which the free part grows as the horizon says."""
        free = np.array([horizon.free(progress) for progress in np.linspace(0, 1, 101)])
        share = (free - 1) / max(1, horizon.future - 1)
        return float(self.first + (self.last - self.first) * share.mean())


def estimate_cost(recipe: PredictionRecipe) -> str:
    """Check the data, time steps on random clips, and return the cost of a full run."""
    missing = _missing_data(recipe)
    model = first_model(recipe)
    seconds = _step_time(recipe, model)
    hours = seconds.mean(recipe.horizon) * recipe.train.steps / 3600
    return (
        f"{count_parameters(model):,} parameters; a step takes {seconds.first:.2f} s at the start "
        f"and {seconds.last:.2f} s at the full horizon; {recipe.train.steps} steps take about "
        f"{hours:.2f} hours on this machine, without validation{missing}"
    )


def _missing_data(recipe: PredictionRecipe) -> str:
    """Check the clips; log what is wrong and return it as a line to append, or ""."""
    try:
        training_clips(recipe)
    except StremnError as error:
        told = f"The data cannot be used, so training cannot start yet: {error}"
        logger.warning("%s", told)
        return f"\n{told}"
    return ""


def _step_time(recipe: PredictionRecipe, model: Predictor) -> _StepTime:
    timer, data, horizon = StepTimer(model, recipe.train), recipe.data, recipe.horizon
    shape = (recipe.batch, horizon.observed + horizon.future, data.channels, data.size, data.size)
    batch = FrameBatch(torch.randint(0, 256, shape, dtype=torch.uint8)).to(timer.device)

    def seconds(progress: float) -> float:
        loss = partial(clip_loss, horizon=horizon, loss=recipe.loss)
        return timer.seconds(lambda: loss(model, batch, progress).loss)

    seconds(0.0)
    return _StepTime(seconds(0.0), seconds(1.0))
