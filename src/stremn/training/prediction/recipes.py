"""A prediction recipe (TOML) -> model, clips, loss, validation, `fit`, averaging of checkpoints.

train(Path("recipes/prediction-digits-64.toml"), [], Path("out"), resume=False, dry_run=False)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from stremn.core.atomic_files import output_folder
from stremn.data.readers.frame_clips import FrameClips, check_disjoint
from stremn.prediction.weights import Predictor, save_predictor
from stremn.training.config import overridden
from stremn.training.fit import FitResult, Phase, fit
from stremn.training.prediction.cost import estimate_cost
from stremn.training.prediction.recipe_format import (
    clips_of,
    first_model,
    is_prediction_recipe,
    read_recipe,
)
from stremn.training.prediction.rollout import (
    clip_loss,
    collate,
)
from stremn.training.prediction.validation import Validation

__all__ = ["is_prediction_recipe", "run_recipe", "train"]


def train(
    path: Path, overrides: Sequence[str], out: Path | None, *, resume: bool, dry_run: bool
) -> str:
    """Run `stremn train` for prediction; return the text to print at the end."""
    if dry_run:
        return estimate_cost(path, overrides)
    folder = out if out is not None else Path("runs") / path.stem
    result = run_recipe(path, overrides, folder, resume=resume)
    return f"{result}; weights and logs are in {folder}"


def run_recipe(
    path: Path, overrides: Sequence[str], out: Path, *, resume: bool = False
) -> FitResult:
    """Train as the recipe at `path` says; write everything into `out`."""
    recipe = read_recipe(path, overrides)
    torch.manual_seed(recipe.train.seed)
    clips, held_out = clips_of(recipe, "train"), clips_of(recipe, "val")
    check_disjoint({"train": clips, "val": held_out})
    model = first_model(recipe)
    validation = Validation(recipe, held_out, out)
    phase = Phase(
        "clips",
        recipe.train.steps,
        recipe.batch,
        _Numbered(clips, recipe.train.steps * recipe.batch, recipe.train.seed),
        collate,
        partial(clip_loss, horizon=recipe.horizon, loss=recipe.loss),
    )
    result = fit(
        model,
        [phase],
        recipe.train,
        out=out,
        validate=validation,
        export=lambda trained, file: save_predictor(cast(Predictor, trained), file),
        resume=resume,
        recipe=recipe.facts(),
        complete=recipe.completed,
        accept=overridden(overrides),
    )
    if result.stopped == "finished" and recipe.validation.average:
        with output_folder(out):
            validation.average(cast(Predictor, result.model))
    return result


class _Numbered(Dataset[Tensor]):
    """As many samples as the training needs: sources that are shorter are drawn from again.

    Sample i is clip i where the source has that many, else a clip drawn with (seed, i).
    """

    def __init__(self, clips: FrameClips, length: int, seed: int) -> None:
        self.clips, self.length, self.seed = clips, length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        if len(self.clips) >= self.length:
            return self.clips[index]
        words = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        return self.clips[int(torch.randint(len(self.clips), (), generator=words))]
