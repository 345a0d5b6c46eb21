"""Estimate what training a predictor takes on this machine, from steps on random clips."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stremn.core.hardware import keep_freed_memory, pick_device, precision_name
from stremn.errors import StremnError
from stremn.prediction.weights import Predictor
from stremn.training.prediction.recipe_format import (
    PredictionRecipe,
    clips_of,
    count_parameters,
    first_model,
    read_recipe,
)
from stremn.training.prediction.rollout import FrameBatch, HorizonConfig, clip_loss

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


def estimate_cost(path: Path, overrides: Sequence[str]) -> str:
    """Look for the data, time steps on random clips, and return what a full run takes."""
    recipe = read_recipe(path, overrides)
    missing = _missing_data(recipe)
    if recipe.train.threads is not None:
        torch.set_num_threads(recipe.train.threads)
    keep_freed_memory()
    device = pick_device(recipe.train.device)
    model = first_model(recipe).to(device).train()
    seconds = _step_time(recipe, model, device)
    hours = seconds.mean(recipe.horizon) * recipe.train.steps / 3600
    return (
        f"{count_parameters(model):,} parameters; a step takes {seconds.first:.2f} s at the start "
        f"and {seconds.last:.2f} s at the full horizon; {recipe.train.steps} steps take about "
        f"{hours:.2f} hours on this machine, without validation{missing}"
    )


def _missing_data(recipe: PredictionRecipe) -> str:
    """Look for the clips; log what is wrong and return it as a line to append, or return ""."""
    try:
        clips_of(recipe, "train")
    except StremnError as error:
        told = f"The data cannot be read, so training cannot start yet: {error}"
        logger.warning("%s", told)
        return f"\n{told}"
    return ""


def _step_time(recipe: PredictionRecipe, model: Predictor, device: torch.device) -> _StepTime:
    reduced = precision_name(recipe.train.precision, device) == "bfloat16"
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    data, horizon = recipe.data, recipe.horizon
    shape = (recipe.batch, horizon.observed + horizon.future, data.channels, data.size, data.size)
    batch = FrameBatch(torch.randint(0, 256, shape, dtype=torch.uint8)).to(device)

    def seconds(progress: float) -> float:
        begin = time.monotonic()
        with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
            loss = clip_loss(model, batch, progress, horizon=horizon, loss=recipe.loss).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic() - begin

    seconds(0.0)
    return _StepTime(seconds(0.0), seconds(1.0))
