"""A recipe (TOML) -> model, data, clip loss, validation and `fit`: the place that composes.

    run_recipe(Path("recipes/small-still.toml"), ["train.steps=100"], Path("out/still"))
    print(train(Path("recipes/small-still.toml"), [], None, resume=False, dry_run=True))

Paths in a recipe are absolute or below the folder named by the variable STREMN_DATA.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch.utils.data import Subset

from stremn.data.clips.clip import Clip, ClipBatch, ClipDataset, Stage, collate
from stremn.networks.model import STReMN
from stremn.networks.pretrained import Pretrained
from stremn.training.config import overridden
from stremn.training.fit import CHECKPOINT, FitResult, Phase, fit
from stremn.training.segmentation.cost import estimate_cost
from stremn.training.segmentation.recipe_data import (
    OpenData,
    clip_dataset,
    clip_source,
    open_data,
    open_videos,
    used_sources,
)
from stremn.training.segmentation.recipe_format import Recipe, read_recipe
from stremn.training.segmentation.recipe_model import (
    StageLoss,
    blank_model,
    first_model,
    model_config,
)
from stremn.training.segmentation.validation import StreamedValidation

__all__ = ["phases", "probe_clips", "run_recipe", "train"]

PROBE_SEED = 2**64
"""Added to the training's seed. Not 2**32: numpy draws the same from (2**32 + s, 0) and (s, 1)."""


def train(
    path: Path, overrides: Sequence[str], out: Path | None, *, resume: bool, dry_run: bool
) -> str:
    """Run `stremn train` for segmentation; return the text to print at the end."""
    if dry_run:
        return str(estimate_cost(path, overrides))
    folder = out if out is not None else Path("runs") / path.stem
    result = run_recipe(path, overrides, folder, resume=resume)
    return f"{result}; weights and logs are in {folder}"


def run_recipe(
    path: Path, overrides: Sequence[str], out: Path, *, resume: bool = False
) -> FitResult:
    """Train as the recipe at `path` says; write everything into `out`.

    Keys given in `overrides` may differ from those of the run that is resumed.
    """
    recipe = read_recipe(path, overrides)
    torch.manual_seed(recipe.train.seed)
    # What was left out of the data must be left out again, or the clips would be others.
    check = not resume or recipe.data.check == "skip"
    data = open_data(recipe.data, used_sources(recipe), check=check)
    dataset = clip_dataset(recipe, data)
    config = model_config(recipe.model)
    restored = resume and (out / CHECKPOINT).exists()  # all weights come from there
    model = blank_model(recipe, config) if restored else first_model(recipe, config, dataset)
    validation = _validation(recipe, data, recipe.train.device)
    return fit(
        model,
        phases(recipe, dataset),
        recipe.train,
        out=out,
        validate=validation.scores if validation else None,
        pictures=validation.pictures if validation else None,
        export=lambda trained, file: Pretrained(cast(STReMN, trained), config).save(file),
        resume=resume,
        recipe=recipe.facts(),
        complete=recipe.completed,
        accept=overridden(overrides),
    )


def phases(recipe: Recipe, dataset: ClipDataset) -> list[Phase[Clip, ClipBatch]]:
    """Return the stages as `fit` wants them."""
    result, begin = [], 0
    for index, (stage, (first, last)) in enumerate(recipe.spans()):
        clips = (last - first) * stage.batch
        result.append(
            Phase(
                name=f"stage {index + 1}",
                steps=last - first,
                batch=stage.batch,
                dataset=Subset(dataset, range(begin, begin + clips)),
                collate=collate,
                clip_loss=StageLoss(stage, recipe.loss, recipe.train.seed),
            )
        )
        begin += clips
    return result


def _validation(recipe: Recipe, data: OpenData, device: str) -> StreamedValidation | None:
    section = recipe.validation
    if section is None:
        return None
    sequences = open_videos(section.videos)
    clips = probe_clips(recipe, data, section.probe_clips)
    return StreamedValidation(
        sequences.only(section.sequences) if section.sequences else sequences,
        device=device,
        short_side=section.short_side,
        slots=section.slots,
        policy=section.policy,
        frames=section.frames,
        clips=collate(clips) if clips else None,
    )


def probe_clips(recipe: Recipe, data: OpenData, count: int) -> list[Clip]:
    """Draw clips like the last stage's from a seed that training never uses."""
    if count == 0:
        return []
    stage = recipe.stages[-1]
    sources = {name: clip_source(recipe.data, name, data) for name in stage.sources}
    only = Stage(count, stage.frames, stage.size, stage.sources)
    dataset = ClipDataset(sources, [only], PROBE_SEED + recipe.train.seed)
    return [dataset[index] for index in range(count)]
