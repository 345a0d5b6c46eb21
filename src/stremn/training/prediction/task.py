"""Train a predictor from a recipe: model, clips, loss, validation, averaging of checkpoints."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from torch import nn

from stremn.core.atomic_files import output_folder
from stremn.moved import moved_names
from stremn.prediction.weights import Predictor, save_predictor
from stremn.training.fit import CHECKPOINT, LAST, Phase
from stremn.training.prediction.cost import estimate_cost
from stremn.training.prediction.data import NumberedClips, collate, training_clips
from stremn.training.prediction.model import first_model
from stremn.training.prediction.recipe import PredictionRecipe
from stremn.training.prediction.rollout import clip_loss
from stremn.training.prediction.validation import Validation
from stremn.training.task import Plan, Task

__all__ = ["TASK", "PredictionTask"]


class PredictionTask(Task[PredictionRecipe]):
    """Train a model that predicts frames."""

    recipe = PredictionRecipe

    def plan(self, recipe: PredictionRecipe, path: Path, out: Path, *, resume: bool) -> Plan:
        """Open the clips, build the model; at the end the best checkpoints are averaged."""
        clips, held_out = training_clips(recipe)
        restored = resume and (out / CHECKPOINT).exists()
        model = first_model(recipe, out / LAST if restored else None)
        validation = Validation(recipe, held_out, out)
        samples = NumberedClips(clips, recipe.train.steps * recipe.batch, recipe.train.seed)
        loss = partial(clip_loss, horizon=recipe.horizon, loss=recipe.loss)

        def average(trained: nn.Module) -> None:
            with output_folder(out):
                validation.average(cast(Predictor, trained))

        return Plan(
            model,
            [Phase("clips", recipe.train.steps, recipe.batch, samples, collate, loss)],
            export=lambda trained, file: save_predictor(cast(Predictor, trained), file),
            validate=validation,
            finish=average if recipe.validation.average else None,
        )

    def estimate(self, recipe: PredictionRecipe, path: Path) -> str:
        """Check the data, and time steps on random clips."""
        return estimate_cost(recipe)


TASK = PredictionTask()


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
