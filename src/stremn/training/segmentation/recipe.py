"""The sections of a segmentation recipe (TOML)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from stremn.core.config import Config
from stremn.errors import StremnError
from stremn.memory.policies import POLICIES
from stremn.moved import moved_names
from stremn.networks.defaults import PAPER
from stremn.training.config import TrainingRecipe


class ModelSection(Config):
    """Which model, and what it starts from."""

    preset: str
    fields: dict[str, Any] = Field(default_factory=dict)
    """Fields of the model's configuration that differ from the preset."""
    imagenet: Literal["none", "package", "timm"] = "none"
    """Where the backbone's first weights come from; "timm" downloads them."""
    start: str | None = None
    """Weights to start from: a file of an earlier training, a preset with weights, or a hub id."""
    reinit: tuple[str, ...] = ()
    """Parts of `start` to initialize again from the seed, such as "policies.evidence"."""
    freeze: Literal["nothing", "stem-and-depthwise"] = "nothing"

    @model_validator(mode="after")
    def _only_what_is_loaded_is_drawn_again(self) -> Self:
        if self.reinit and self.start is None:
            raise ValueError(
                f"reinit names {', '.join(self.reinit)}, parts of the weights to start from, but "
                "there is no start: all weights are drawn from the seed"
            )
        return self


class StillsSection(Config):
    """A folder of still images with masks."""

    path: str
    kind: Literal["binary", "instances", "parts"] = "binary"
    layout: str = "folder"
    weight: PositiveFloat | None = None


class VideosSection(Config):
    """A data set of videos with label maps."""

    path: str
    layout: Literal["davis", "youtube-vos", "folders"] = "davis"
    split: str = "train"
    year: PositiveInt = 2016
    names: tuple[str, ...] = ()
    """Only the videos of these names; none given: all of the split."""


class SourceSection(Config):
    """A kind of clip, made from some of the stills and videos."""

    kind: Literal["stills", "videos", "composed", "rendered"]
    stills: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    gaps: tuple[tuple[float, PositiveInt], ...] | None = None
    """(progress, largest gap between frames of a video) pairs; progress as a share of the clips,
    not of the steps: stages of larger batches have more of it."""
    parameters: dict[str, Any] = Field(default_factory=dict)


class DataSection(Config):
    """Where pictures and videos are, and the kinds of clips made from them."""

    stills: dict[str, StillsSection] = Field(default_factory=dict)
    videos: dict[str, VideosSection] = Field(default_factory=dict)
    sources: dict[str, SourceSection]
    check: Literal["refuse", "skip", "off"] = "refuse"
    """Read everything before training: then refuse what is broken, or leave it out."""
    cache: PositiveInt = 512
    """Decoded video frames that each worker keeps, in MiB a data set: what fits is decoded once."""


class StageSection(Config):
    """A part of the training, with the memory's slots and policy in it."""

    until: float = Field(gt=0, le=1)
    """Share of the steps at which it ends."""
    frames: int = Field(ge=2)
    size: int = Field(ge=32, multiple_of=16)
    batch: PositiveInt
    memory_slots: PositiveInt | tuple[PositiveInt, ...]
    """Several: one of them is drawn for each batch."""
    policy: str | dict[str, PositiveFloat]
    """Several with weights: one of them is drawn for each batch."""
    sources: dict[str, PositiveFloat]

    @property
    def rules(self) -> dict[str, float]:
        """Names of the rules, with weights."""
        return {self.policy: 1.0} if isinstance(self.policy, str) else dict(self.policy)


PROBE_SCORES = (
    "probe_right", "probe_wrong", "probe_empty", "eviction_stake", "evictions_that_matter",
)  # fmt: skip
"""What validation reports of its probe clips."""

SCORES = ("J", *PROBE_SCORES)
"""What validation reports, beside J of each sequence."""


class LossSection(Config):
    """Cross entropy; `bootstrap` below 1 keeps that share of the pixels from `ramp[1]` on.

    `dice` and `lovasz` are weights of losses that are added to it.
    """

    dice: NonNegativeFloat = 0.0
    lovasz: NonNegativeFloat = 0.0
    bootstrap: float = Field(default=1.0, gt=0, le=1)
    ramp: tuple[float, float] = (0.2, 0.7)
    imitate: str | None = None
    """Train a rule to choose as this hand-made rule does, and nothing else, on what random eviction
    leads to; the stages' policies then have no part in it."""
    taught: Literal["evidence", "learned"] = "evidence"
    """Which rule imitates: the one with evidence, or the paper's, whose update keys then learn."""


class ValidationSection(Config):
    """J on sequences by streaming, and the memory probe."""

    videos: VideosSection
    sequences: tuple[str, ...] = ()
    """Names; none means all."""
    size: PositiveInt = PAPER.size
    memory_slots: PositiveInt = PAPER.memory_slots
    policy: str = PAPER.policy
    frames: PositiveInt | None = None
    """Number of frames of each sequence to use; None: all."""
    probe_clips: int = Field(default=16, ge=0)


class Recipe(TrainingRecipe):
    """A complete segmentation recipe."""

    task: Literal["segmentation"] = "segmentation"
    model: ModelSection
    data: DataSection
    stages: tuple[StageSection, ...] = Field(min_length=1)
    loss: LossSection = LossSection()
    validation: ValidationSection | None = None

    @model_validator(mode="after")
    def _stages_fill_the_training(self) -> Self:
        ends = [stage.until for stage in self.stages]
        if ends != sorted(set(ends)) or ends[-1] != 1:
            raise ValueError(f"stages must end one after the other, the last at 1, got {ends}")
        for stage in self.stages:
            for name in stage.sources:
                _known("source", name, self.data.sources)
        for source in self.data.sources.values():
            for name in source.stills:
                _known("stills", name, self.data.stills)
            for name in source.videos:
                _known("videos", name, self.data.videos)
        return self

    @model_validator(mode="after")
    def _rules_and_scores_are_known(self) -> Self:
        rules = [name for stage in self.stages for name in stage.rules]
        rules += [self.validation.policy] if self.validation else []
        rules += [self.loss.imitate] if self.loss.imitate else []
        for name in rules:
            if name not in POLICIES:
                raise ValueError(f"There is no policy {name!r}; known: {', '.join(POLICIES)}")
        monitor = self.train.monitor
        if self.validation and monitor not in SCORES and not monitor.startswith("J_"):
            raise ValueError(
                f"train.monitor is {monitor!r}, but validation reports {', '.join(SCORES)} and "
                "J_<sequence>"
            )
        return self

    def spans(self) -> list[tuple[StageSection, tuple[int, int]]]:
        """Return each stage with its first step and the one after its last; empty ones are left
        out."""
        ends = [round(stage.until * self.train.steps) for stage in self.stages]
        found = zip(self.stages, zip([0, *ends[:-1]], ends, strict=True), strict=True)
        return [(stage, span) for stage, span in found if span[0] < span[1]]


def check_probe(recipe: Recipe) -> None:
    """Raise StremnError if train.monitor is a score of probe clips and there are none."""
    section, monitor = recipe.validation, recipe.train.monitor
    if section is not None and section.probe_clips == 0 and monitor in PROBE_SCORES:
        raise StremnError(
            f"train.monitor is {monitor!r}, a score of probe clips, but validation.probe_clips is "
            "0. Set it to 16, or choose J or J_<sequence>."
        )


def _known(kind: str, name: str, entries: Mapping[str, Any]) -> None:
    if name not in entries:
        raise ValueError(f"there are no {kind} {name!r} under data; known: {', '.join(entries)}")


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
