"""A prompt recipe (TOML) -> network, pictures, loss, `fit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from stremn.core.config import Config, build, override, read_toml
from stremn.data.readers.paths import place
from stremn.data.readers.still_sets import open_stills
from stremn.data.readers.stills import SelectedStills, StillImages
from stremn.errors import StremnError
from stremn.networks.pretrained import load_model
from stremn.prompting.network import PromptNetwork, build_prompt_network, start_from
from stremn.prompting.weights import save_prompt_network
from stremn.training.config import TrainingRecipe, overridden
from stremn.training.fit import FitResult, Phase, fit
from stremn.training.prompting.loss import PromptLoss
from stremn.training.prompting.samples import PromptSamples, collate


class StillsSection(Config):
    """A set of pictures with masks."""

    path: str
    kind: Literal["binary", "instances"] = "binary"
    layout: str = "folder"
    weight: PositiveFloat = 1.0


class PromptsSection(Config):
    """Which samples are drawn, and how they are answered."""

    start: str = "small"
    """The video network whose weights the prompt network starts from."""
    batch: PositiveInt = 16
    side: PositiveInt = Field(default=320, multiple_of=16)
    pasted: float = Field(default=0.45, ge=0, le=1)
    """Share of samples in which the object of another picture is pasted."""
    rounds: NonNegativeInt = 3
    """Corrections of a first prompt, at most."""
    held_out: str | None = None
    """File with names (one a line, no ending) of pictures that are never trained on."""


class PromptRecipe(TrainingRecipe):
    """All that a training of the prompt network needs."""

    prompts: PromptsSection
    stills: dict[str, StillsSection] = Field(min_length=1)


def is_prompt_recipe(path: Path) -> bool:
    """Return whether a recipe trains the prompt network."""
    return "prompts" in read_toml(path)


def train(
    path: Path, overrides: Sequence[str], out: Path | None, *, resume: bool, dry_run: bool
) -> str:
    """Run `stremn train` for prompts; return the text to print at the end."""
    if dry_run:
        recipe = _read(path, overrides)
        sets = ", ".join(f"{name} {len(s)}" for name, s in _open(recipe, path).items())
        return f"{recipe.train.steps} steps of {recipe.prompts.batch} pictures from {sets}."
    folder = out if out is not None else Path("runs") / path.stem
    result = run_recipe(path, overrides, folder, resume=resume)
    return f"{result}; weights and logs are in {folder}"


def run_recipe(
    path: Path, overrides: Sequence[str], out: Path, *, resume: bool = False
) -> FitResult:
    """Train as the recipe at `path` says; write everything into `out`.

    Raises:
        StremnError: a wrong recipe, missing data or weights, or another run in `out`.
    """
    recipe = _read(path, overrides)
    torch.manual_seed(recipe.train.seed)
    section = recipe.prompts
    stills = _open(recipe, path)
    video = load_model(section.start)
    network = build_prompt_network(video.config)
    start_from(network, video.model)
    samples = PromptSamples(
        list(stills.values()),
        [recipe.stills[name].weight for name in stills],
        recipe.train.steps * section.batch,
        section.side,
        recipe.train.seed,
        section.pasted,
    )
    phase = Phase(
        "prompts", recipe.train.steps, section.batch, samples, collate, PromptLoss(section.rounds)
    )
    return fit(
        network,
        [phase],
        recipe.train,
        out=out,
        export=lambda trained, file: save_prompt_network(
            cast(PromptNetwork, trained), video.config, file
        ),
        resume=resume,
        recipe=recipe.facts(),
        complete=recipe.completed,
        accept=overridden(overrides),
    )


def _read(path: Path, overrides: Sequence[str]) -> PromptRecipe:
    return build(PromptRecipe, override(read_toml(path), overrides), str(path))


def _open(recipe: PromptRecipe, path: Path) -> dict[str, StillImages]:
    """Open the sets, without the pictures that are held out."""
    held: set[str] = set()
    if recipe.prompts.held_out is not None:
        names = path.parent / recipe.prompts.held_out
        try:
            held = set(names.read_text(encoding="utf-8").split())
        except OSError as error:
            raise StremnError(f"{names} (prompts.held_out) cannot be read: {error}.") from error
    opened: dict[str, StillImages] = {}
    for name, section in recipe.stills.items():
        stills = open_stills(place(section.path), section.kind, section.layout)
        kept = [i for i in range(len(stills)) if Path(stills.name(i)).stem not in held]
        opened[name] = SelectedStills(stills, kept)
    return opened
