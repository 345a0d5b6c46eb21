"""Train a segmentation model from a recipe: model, data, clip loss and validation.

    TASK.run(Path("recipes/small-still.toml"), ["train.steps=100"], Path("out/still"))
    print(TASK.cost(Path("recipes/small-still.toml")))

Paths in a recipe are absolute or below the folder named by the variable STREMN_DATA.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from torch.utils.data import Subset

from stremn.data.clips.clip import Clip, ClipBatch, ClipDataset, Stage, collate
from stremn.moved import moved_names
from stremn.networks.model import STReMN
from stremn.networks.pretrained import Pretrained
from stremn.training.fit import CHECKPOINT, Phase
from stremn.training.segmentation.cost import TrainingCost, estimate_cost
from stremn.training.segmentation.data import (
    OpenData,
    clip_dataset,
    clip_source,
    open_data,
    used_sources,
    validation_videos,
)
from stremn.training.segmentation.model import (
    StageLoss,
    blank_model,
    first_model,
    model_config,
)
from stremn.training.segmentation.recipe import Recipe, check_probe
from stremn.training.segmentation.validation import StreamedValidation
from stremn.training.task import Plan, Task

PROBE_SEED = 2**64
"""Added to the training's seed. Not 2**32: numpy draws the same from (2**32 + s, 0) and (s, 1)."""


class SegmentationTask(Task[Recipe]):
    """Train the model that follows objects."""

    recipe = Recipe

    def read(self, path: Path, overrides: Sequence[str] = ()) -> Recipe:
        """Read a recipe and apply `overrides` ("train.lr=1e-4").

        Raises:
            StremnError: it cannot be read, says what the task does not know, or chooses the best
                weights by a score that its validation does not report.
        """
        recipe = super().read(path, overrides)
        # Not when a recipe is built: that of a checkpoint is completed with the monitor of the
        # resumed run, which another validation may report.
        check_probe(recipe)
        return recipe

    def plan(self, recipe: Recipe, path: Path, out: Path, *, resume: bool) -> Plan:
        """Open and check the data, and build the model; a resumed run has its weights in `out`."""
        # What was left out of the data must be left out again, or the clips would be others.
        restored = resume and (out / CHECKPOINT).exists()
        check = not restored or recipe.data.check == "skip"
        data = open_data(recipe.data, used_sources(recipe), check=check)
        dataset = clip_dataset(recipe, data)
        config = model_config(recipe.model)
        model = blank_model(recipe, config) if restored else first_model(recipe, config, dataset)
        validation = _validation(recipe, data, recipe.train.device)
        return Plan(
            model,
            phases(recipe, dataset),
            export=lambda trained, file: Pretrained(cast(STReMN, trained), config).save(file),
            validate=validation.scores if validation else None,
            pictures=validation.pictures if validation else None,
        )

    def estimate(self, recipe: Recipe, path: Path) -> TrainingCost:
        """Time a step of each stage on synthetic clips."""
        return estimate_cost(recipe)


TASK = SegmentationTask()


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
    section, videos = recipe.validation, validation_videos(recipe)
    if section is None or videos is None:
        return None
    clips = probe_clips(recipe, data, section.probe_clips)
    return StreamedValidation(
        videos,
        device=device,
        size=section.size,
        memory_slots=section.memory_slots,
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


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
