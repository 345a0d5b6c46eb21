"""A prediction recipe (TOML) -> model, clips, loss, validation, `fit`, averaging of checkpoints.

    train(Path("recipes/prediction-digits-64.toml"), [], Path("out"), resume=False, dry_run=False)

Paths in a recipe are absolute or below the folder named by the variable STREMN_DATA.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.utils.data import Dataset

from stremn.config import Config, build, override, read_toml
from stremn.data.frame_clips import FrameClips, Split, check_disjoint
from stremn.data.prediction_sets import ClipsSection, open_clips
from stremn.errors import StremnError
from stremn.prediction.baselines import RecurrentConfig, build_baseline
from stremn.prediction.config import PRESETS, PredictionConfig
from stremn.prediction.evaluation import Scores, as_predict, score
from stremn.prediction.metrics import METRICS
from stremn.prediction.model import FramePredictor, build_model
from stremn.prediction.training import (
    FrameBatch,
    HorizonConfig,
    LossConfig,
    clip_loss,
    collate,
)
from stremn.prediction.weights import Predictor, load_predictor, save_predictor
from stremn.training.averaging import Candidate, Soup, greedy_soup, uniform_soup
from stremn.training.config import TrainingRecipe, name_starts_with, overridden
from stremn.training.fit import FitResult, Phase, fit
from stremn.weights import fill

logger = logging.getLogger("stremn.training.fit")


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
    """Whether the recipe at `path` says task = "prediction"."""
    return read_toml(path).get("task") == "prediction"


def train(
    path: Path, overrides: Sequence[str], out: Path | None, *, resume: bool, dry_run: bool
) -> str:
    """Body of the command `stremn train` for prediction: returns the text to print at the end."""
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
    validation = _Validation(recipe, held_out, out)
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
        validation.average(cast(Predictor, result.model))
    return result


# ------------------------------------------------------------------------------------------ parts


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
    start = load_predictor(path)
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
    """Number of trainable numbers."""
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


class _Validation:
    """Scores on held-out clips; keeps the checkpoints that scored best, for averaging."""

    metrics = tuple(METRICS[name] for name in ("ssim", "mse", "psnr"))

    def __init__(self, recipe: PredictionRecipe, clips: FrameClips, out: Path) -> None:
        self.recipe, self.clips, self.folder = recipe, clips, out / "averaging"

    def scores(self, model: Predictor) -> Scores:
        horizon = self.recipe.horizon
        return score(
            "validation",
            as_predict(model),
            self.clips,
            horizon.observed,
            horizon.future,
            self.metrics,
            limit=self.recipe.validation.clips,
        )

    def __call__(self, model: nn.Module) -> Mapping[str, float]:
        scores = self.scores(cast(Predictor, model))
        result = {name: float(values.mean()) for name, values in scores.values.items()}
        result |= {
            "mse_first": float(scores.curve("mse")[0]),
            "mse_last": float(scores.curve("mse")[-1]),
        }
        if self.recipe.validation.average:
            self._keep(cast(Predictor, model), result["ssim"])
        return result

    def _keep(self, model: Predictor, ssim: float) -> None:
        """Keep the weights if they are among the best; the score is in the file's name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        number = time.time_ns()
        save_predictor(model, self.folder / f"{ssim:.6f}_{number}.safetensors")
        ranked = sorted(self.folder.glob("*_*.safetensors"), reverse=True)
        for path in ranked[self.recipe.validation.average :]:
            path.unlink()

    def average(self, model: Predictor) -> None:
        """Write `uniform.safetensors` and `greedy.safetensors`, and their scores beside the best's.

        Leaves the better of best single, uniform and greedy in `chosen.safetensors`.
        """
        out = self.folder.parent
        candidates = [
            Candidate(index, float(path.name.partition("_")[0]), load_predictor(path).state_dict())
            for index, path in enumerate(sorted(self.folder.glob("*_*.safetensors"), reverse=True))
        ]

        def ssim(weights: Mapping[str, Tensor]) -> float:
            model.load_state_dict(weights)
            return float(self.scores(model).values["ssim"].mean())

        single = Soup(dict(candidates[0].weights), (0,), candidates[0].score)
        soups = {
            "best": single,
            "uniform": uniform_soup(candidates, ssim, len(candidates)),
            "greedy": greedy_soup(candidates, ssim),
        }
        for name, soup in soups.items():
            model.load_state_dict(soup.weights)
            save_predictor(model, self.folder / f"{name}.safetensors")
        chosen = max(soups, key=lambda name: soups[name].score)
        model.load_state_dict(soups[chosen].weights)
        save_predictor(model, out / "chosen.safetensors")
        report = {name: {"ssim": s.score, "averaged": len(s.steps)} for name, s in soups.items()}
        text = json.dumps({"validation": report, "chosen": chosen}, indent=2)
        (out / "averaging.json").write_text(text + "\n", encoding="utf-8")
        logger.info("averaging: %s, chosen %s", report, chosen)


# ------------------------------------------------------------------------------------------- cost


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
