"""What a training of a predictor will take on this machine, found by steps on random clips."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from stremn.prediction.recipe_format import (
    PredictionRecipe,
    count_parameters,
    first_model,
    read_recipe,
)
from stremn.prediction.training import FrameBatch, clip_loss
from stremn.prediction.weights import Predictor


@dataclass(frozen=True)
class _StepTime:
    """Seconds of a training step with the shortest and with the longest free roll-out."""

    first: float
    last: float


def estimate_cost(path: Path, overrides: Sequence[str]) -> str:
    """Build the model, time steps on random clips, and say what a full run will take."""
    recipe = read_recipe(path, overrides)
    model = first_model(recipe).train()
    seconds = _step_time(recipe, model)
    hours = (seconds.first + seconds.last) / 2 * recipe.train.steps / 3600
    return (
        f"{count_parameters(model):,} parameters; a step takes {seconds.first:.2f} s at the start "
        f"and {seconds.last:.2f} s at the full horizon; {recipe.train.steps} steps will take about "
        f"{hours:.2f} hours on this machine, validation apart"
    )


def _step_time(recipe: PredictionRecipe, model: Predictor) -> _StepTime:
    data, horizon = recipe.data, recipe.horizon
    shape = (recipe.batch, horizon.observed + horizon.future, data.channels, data.size, data.size)
    batch = FrameBatch(torch.randint(0, 256, shape, dtype=torch.uint8))

    def seconds(progress: float) -> float:
        begin = time.monotonic()
        clip_loss(model, batch, progress, horizon=horizon, loss=recipe.loss).loss.backward()
        model.zero_grad()
        return time.monotonic() - begin

    seconds(0.0)
    return _StepTime(seconds(0.0), seconds(1.0))
