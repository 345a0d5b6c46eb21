"""The sections of a prompt recipe (TOML)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from stremn.core.config import Config
from stremn.training.config import TrainingRecipe


class PicturesSection(Config):
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


class DataSection(Config):
    """How the pictures are checked."""

    check: Literal["refuse", "skip", "off"] = "refuse"
    """Read everything before training: then refuse what is broken, or leave it out."""


class PromptRecipe(TrainingRecipe):
    """A complete recipe of the prompt network."""

    prompts: PromptsSection
    stills: dict[str, PicturesSection] = Field(min_length=1)
    data: DataSection = DataSection()
