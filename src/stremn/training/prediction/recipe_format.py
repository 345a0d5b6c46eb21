"""What a prediction recipe (TOML) says, and the model and clips it names.

Paths in a recipe are absolute or below the folder named by the variable STREMN_DATA.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt
from torch import nn

from stremn.core.config import Config, build, override, read_toml
from stremn.core.weights import fill
from stremn.data.readers.frame_clips import FrameClips, Split
from stremn.data.readers.prediction_sets import ClipsSection, open_clips
from stremn.errors import StremnError
from stremn.prediction.baselines import RecurrentConfig, build_baseline
from stremn.prediction.config import PRESETS, PredictionConfig
from stremn.prediction.model import FramePredictor, build_model
from stremn.prediction.weights import Predictor, load_predictor
from stremn.training.config import TrainingRecipe, name_starts_with
from stremn.training.prediction.rollout import HorizonConfig, LossConfig


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


class PredictionRecipe(TrainingRecipe):
    """Everything that decides a training."""

    task: Literal["prediction"]
    model: PredictorSection = PredictorSection()
    data: ClipsSection
    horizon: HorizonConfig = HorizonConfig()
    loss: LossConfig = LossConfig()
    batch: PositiveInt = 8
    validation: ValidationSection = ValidationSection()


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> PredictionRecipe:
    """Read a recipe and carry out `overrides` ("train.lr=1e-4"); raise `StremnError`."""
    return build(PredictionRecipe, override(read_toml(path), overrides), str(path))


def is_prediction_recipe(path: Path) -> bool:
    """Return whether the recipe at `path` says task = "prediction"."""
    return read_toml(path).get("task") == "prediction"


def first_model(recipe: PredictionRecipe) -> Predictor:
    """Return the model before its first step."""
    section = recipe.model
    if section.start is not None:
        return _started(section.start, section.fields)
    if section.kind != "stremn":
        values = {"kind": section.kind, "channels": recipe.data.channels} | section.fields
        return build_baseline(build(RecurrentConfig, values, "model.fields"))
    if section.preset not in PRESETS:
        raise StremnError(f"Unknown preset {section.preset!r}; known: {', '.join(PRESETS)}.")
    values = PRESETS[section.preset].model_dump() | section.fields
    config = build(PredictionConfig, values, "model.fields")
    if (config.size, config.channels) != (recipe.data.size, recipe.data.channels):
        raise StremnError(
            f"The model is for {config.size}x{config.size} frames of {config.channels} channel(s), "
            f"the clips are {recipe.data.size}x{recipe.data.size} of {recipe.data.channels}. "
            "Choose another preset, or set model.fields or data to fit."
        )
    return build_model(config, training=True)


def _started(path: Path, fields: dict[str, Any]) -> Predictor:
    """A trained predictor, with other numbers where its weights fit them all the same."""
    start = load_predictor(str(path))  # a name of shipped weights, or a file
    if not isinstance(start, FramePredictor):
        if fields:
            raise StremnError(f"{path} holds a baseline; model.fields cannot change it.")
        return start
    config = build(PredictionConfig, start.config.model_dump() | fields, "model.fields")
    model = build_model(config, training=True)
    same_rule = config.policy == start.config.policy
    carried = {n: x for n, x in start.state_dict().items() if same_rule or not _of_rule(n)}
    fresh = {n: x for n, x in model.state_dict().items() if _of_rule(n)}
    fill(model, fresh | carried, path)
    return model


def _of_rule(weight: str) -> bool:
    return name_starts_with(weight, "policy")


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable numbers."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def clips_of(recipe: PredictionRecipe, split: Split) -> FrameClips:
    """Return the clips of a split, as long as the recipe's horizon."""
    lengths = {
        "train": recipe.train.steps * recipe.batch,
        "val": recipe.validation.clips,
        "test": 1000,
    }
    return open_clips(
        recipe.data,
        split,
        observed=recipe.horizon.observed,
        future=recipe.horizon.future,
        length=lengths[split],
        seed=recipe.train.seed,
    )
