"""Build the predictor of a recipe before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from stremn.core.config import build
from stremn.core.weights import fill
from stremn.errors import StremnError
from stremn.moved import with_current_keys
from stremn.prediction.baselines import RecurrentConfig, build_baseline
from stremn.prediction.building import build_predictor
from stremn.prediction.config import PREDICTOR_PRESETS, PredictionConfig
from stremn.prediction.model import FramePredictor
from stremn.prediction.weights import Predictor, load_predictor
from stremn.training.config import name_starts_with
from stremn.training.prediction.recipe import PredictionRecipe


def first_model(recipe: PredictionRecipe, own: Path | None = None) -> Predictor:
    """Return the model before its first step.

    `own` are weights of the run itself, which goes on: they stand for those that it started from,
    which may be gone.
    """
    section = recipe.model
    if section.start is not None:
        return _started(own or section.start, section.fields)
    if section.kind != "stremn":
        values = {"kind": section.kind, "channels": recipe.data.channels} | section.fields
        return build_baseline(build(RecurrentConfig, values, "model.fields"))
    if section.preset not in PREDICTOR_PRESETS:
        raise StremnError(
            f"Unknown preset {section.preset!r}; known: {', '.join(PREDICTOR_PRESETS)}."
        )
    values = PREDICTOR_PRESETS[section.preset].model_dump() | with_current_keys(
        section.fields, "model.fields"
    )
    config = build(PredictionConfig, values, "model.fields")
    if (config.size, config.channels) != (recipe.data.size, recipe.data.channels):
        raise StremnError(
            f"The model is for {config.size}x{config.size} frames of {config.channels} channel(s), "
            f"the clips are {recipe.data.size}x{recipe.data.size} of {recipe.data.channels}. "
            "Choose another preset, or set model.fields or data to fit."
        )
    return build_predictor(config, training=True)


def _started(path: Path, fields: dict[str, Any]) -> Predictor:
    """Load a trained predictor, with other settings where its weights still fit."""
    start = load_predictor(str(path))  # a name of shipped weights, or a file
    if not isinstance(start, FramePredictor):
        if fields:
            raise StremnError(f"{path} holds a baseline; model.fields cannot change it.")
        return start
    config = build(
        PredictionConfig,
        start.config.model_dump() | with_current_keys(fields, "model.fields"),
        "model.fields",
    )
    model = build_predictor(config, training=True)
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
