"""A recipe (TOML) -> model, data, clip loss, validation and `fit`: the place that composes.

    run_recipe(Path("recipes/small-still.toml"), ["train.steps=100"], Path("out/still"))
    print(estimate_cost(Path("recipes/small-still.toml"), []))

Paths in a recipe are absolute or below the folder named by the variable STREMN_DATA.
"""

from __future__ import annotations

import json
import logging
import os
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, cast, get_type_hints

import numpy as np
import torch
from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    model_validator,
)
from torch import nn
from torch.utils.data import Subset

from stremn.clip_training import ClipLoss
from stremn.config import Config, build, differences, override, read_toml
from stremn.data.clips import Clip, ClipBatch, ClipDataset, ClipSource, Stage, collate
from stremn.data.composed import ComposedClipParameters, ComposedClips
from stremn.data.segmentation import SequenceSet, read_davis, read_folders, read_youtube_vos
from stremn.data.still_images import StillClipParameters, StillImageClips
from stremn.data.still_sets import (
    StillImages,
    check_pairing,
    check_stills,
    open_stills,
    refuse,
    without,
)
from stremn.data.video_clips import (
    GapSchedule,
    VideoClipParameters,
    VideoClips,
    VideoReader,
    check_videos,
)
from stremn.encoders import build_backbone
from stremn.errors import StremnError
from stremn.imagenet import packaged_backbone
from stremn.losses import LossReport
from stremn.memory import UpdatePolicy
from stremn.model import STReMN
from stremn.policies import RandomDrop, RandomSelect, build_policy
from stremn.policy_training import Imitation
from stremn.pretrained import Pretrained, load_model
from stremn.segmentation import (
    PRESETS,
    SegmentationConfig,
    build_model,
    frozen_parameters,
    measure,
)
from stremn.training import FitResult, Phase, TrainConfig, fit
from stremn.validation import StreamedValidation

__all__ = ["Cost", "Recipe", "estimate_cost", "read_recipe", "run_recipe", "train"]

logger = logging.getLogger("stremn.training")

DATA_VARIABLE = "STREMN_DATA"
ParametersT = TypeVar("ParametersT")


# --- the recipe ------------------------------------------------------------------------------


class ModelSection(Config):
    """Which model, and what it starts from."""

    preset: str
    fields: dict[str, Any] = Field(default_factory=dict)
    """Fields of the model's configuration that differ from the preset."""
    imagenet: Literal["none", "package", "timm"] = "none"
    """Where the backbone's first weights come from; "timm" downloads them."""
    start: str | None = None
    """Weights to start from: a file of an earlier training, a preset with weights, or a hub id."""
    freeze: Literal["nothing", "stem-and-depthwise"] = "nothing"


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


class SourceSection(Config):
    """A kind of clip, made from some of the stills and videos."""

    kind: Literal["stills", "videos", "composed"]
    stills: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    gaps: tuple[tuple[float, PositiveInt], ...] | None = None
    """(progress, largest gap between frames of a video) pairs."""
    parameters: dict[str, Any] = Field(default_factory=dict)


class DataSection(Config):
    """Where pictures and videos are, and the kinds of clips made from them."""

    stills: dict[str, StillsSection] = Field(default_factory=dict)
    videos: dict[str, VideosSection] = Field(default_factory=dict)
    sources: dict[str, SourceSection]
    check: Literal["refuse", "skip", "off"] = "refuse"
    """Read everything before training: then refuse what is broken, or leave it out."""


class StageSection(Config):
    """A stretch of the training. `slots` and `policy` are those of the memory meanwhile."""

    until: float = Field(gt=0, le=1)
    """Share of the steps at which it ends."""
    frames: int = Field(ge=2)
    size: int = Field(ge=32, multiple_of=16)
    batch: PositiveInt
    slots: PositiveInt | tuple[PositiveInt, ...]
    """Several: one of them is drawn for each batch."""
    policy: str | dict[str, PositiveFloat]
    """Several with weights: one of them is drawn for each batch."""
    sources: dict[str, PositiveFloat]


class LossSection(Config):
    """Cross entropy; `bootstrap` below 1 keeps that share of the pixels from `ramp[1]` on."""

    dice: NonNegativeFloat = 0.0
    bootstrap: float = Field(default=1.0, gt=0, le=1)
    ramp: tuple[float, float] = (0.2, 0.7)
    imitate: str | None = None
    """Train the rule "evidence" to choose as this hand-made rule does, and nothing else, on what
    random eviction leads to; the stages' policies then have no part in it."""


class ValidationSection(Config):
    """J on sequences by streaming, and the memory probe."""

    videos: VideosSection
    sequences: tuple[str, ...] = ()
    """Names; none means all."""
    short_side: PositiveInt = 480
    slots: PositiveInt = 6
    policy: str = "learned"
    frames: PositiveInt | None = None
    """Only the first so many frames of each sequence."""
    probe_clips: int = Field(default=16, ge=0)


class Recipe(Config):
    """Everything that decides a training."""

    task: Literal["segmentation"] = "segmentation"
    model: ModelSection
    data: DataSection
    stages: tuple[StageSection, ...] = Field(min_length=1)
    loss: LossSection = LossSection()
    train: TrainConfig
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


def _known(kind: str, name: str, entries: Mapping[str, Any]) -> None:
    if name not in entries:
        raise ValueError(f"there are no {kind} {name!r} under data; known: {', '.join(entries)}")


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and carry out `overrides` ("train.lr=1e-4"); raise `StremnError`."""
    return build(Recipe, override(read_toml(path), overrides), str(path))


# --- the verbs -------------------------------------------------------------------------------


def train(
    path: Path, overrides: Sequence[str], out: Path | None, *, resume: bool, dry_run: bool
) -> str:
    """Body of the command `stremn train`: returns the text to print at the end."""
    if dry_run:
        return str(estimate_cost(path, overrides))
    folder = out if out is not None else Path("runs") / path.stem
    result = run_recipe(path, overrides, folder, resume=resume)
    best = "" if result.best is None else f", best score {result.best:.4f}"
    return f"{result.stopped} at step {result.step}{best}; weights and logs are in {folder}"


def run_recipe(
    path: Path, overrides: Sequence[str], out: Path, *, resume: bool = False
) -> FitResult:
    """Train as the recipe at `path` says; write everything into `out`.

    Keys given in `overrides` may differ from those of the run that is resumed.
    """
    recipe = read_recipe(path, overrides)
    torch.manual_seed(recipe.train.seed)
    data = open_data(recipe.data, _used_sources(recipe), check=not resume)
    dataset = clip_dataset(recipe, data)
    config = model_config(recipe.model)
    model = first_model(recipe, config, dataset)
    facts = recipe.model_dump(mode="json")
    validation = _validation(recipe, data, recipe.train.device)
    logger.info("%s", _size_of(model))
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return fit(
        model,
        phases(recipe, dataset),
        recipe.train,
        out=out,
        validate=validation.scores if validation else None,
        pictures=validation.pictures if validation else None,
        export=lambda trained, file: Pretrained(cast(STReMN, trained), config).save(file),
        resume=resume,
        recipe=_without_train(facts),
        complete=lambda old: _without_train(
            Recipe(**old, train=recipe.train).model_dump(mode="json")
        ),
        accept=[request.partition("=")[0].strip() for request in overrides],
    )


def _without_train(facts: dict[str, Any]) -> dict[str, Any]:
    """`fit` keeps the train section itself."""
    return {key: value for key, value in facts.items() if key != "train"}


@dataclass(frozen=True)
class StageCost:
    """What a stage will take: seconds a step, steps, and milliseconds to make a clip."""

    name: str
    steps: int
    seconds: float


@dataclass(frozen=True)
class Cost:
    """What a full run will take on this machine."""

    parameters: int
    trainable: int
    stages: tuple[StageCost, ...]
    peak_bytes: int
    data: str

    @property
    def hours(self) -> float:
        """Whole training without validation."""
        return sum(stage.seconds * stage.steps for stage in self.stages) / 3600

    def __str__(self) -> str:
        lines = [f"{self.parameters:,} parameters, {self.trainable:,} of them trained"]
        lines += [f"{s.name}: {s.steps} steps of {s.seconds:.2f} s" for s in self.stages]
        lines.append(f"peak memory {self.peak_bytes / 2**30:.2f} GiB")
        lines.append(self.data)
        lines.append(f"a full run will take about {self.hours:.1f} hours, validation apart")
        return "\n".join(lines)


def estimate_cost(path: Path, overrides: Sequence[str]) -> Cost:
    """Build everything, take two steps of each stage on synthetic clips, and time the second.

    Needs no data. If the recipe's data is there, the time to make clips is measured too.
    """
    from accelerate import Accelerator

    recipe = read_recipe(path, overrides)
    device = Accelerator(mixed_precision="no", cpu=recipe.train.device == "cpu").device
    config = model_config(recipe.model)
    model = first_model(recipe, config, None).to(device).train()
    stages = tuple(
        StageCost(
            f"stage {index + 1} ({stage.frames} frames of {stage.size} px, batch {stage.batch})",
            last - first,
            _seconds_a_step(recipe, stage, model, device),
        )
        for index, (stage, (first, last)) in enumerate(_spans(recipe))
    )
    return Cost(
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        stages=stages,
        peak_bytes=_peak_bytes(device),
        data=_time_of_clips(recipe),
    )


# --- model -----------------------------------------------------------------------------------


def model_config(section: ModelSection) -> SegmentationConfig:
    """Return the preset with the recipe's changes."""
    if section.preset not in PRESETS:
        raise StremnError(f"Unknown preset {section.preset!r}; known: {', '.join(PRESETS)}.")
    values = PRESETS[section.preset].model_dump() | section.fields
    return build(SegmentationConfig, values, "model.fields")


def first_model(recipe: Recipe, config: SegmentationConfig, dataset: ClipDataset | None) -> STReMN:
    """Return the model before its first step; `dataset` None leaves features unmeasured."""
    section = recipe.model
    if section.start is not None:
        model = _started(section.start, config)
    else:
        backbones = {
            "none": lambda: None,
            "package": lambda: packaged_backbone(config.backbone),
            "timm": lambda: build_backbone(config.backbone, pretrained=True),
        }
        model = build_model(config, backbones[section.imagenet]())
        if dataset is not None:
            count = min(32, len(dataset))
            frames = np.stack([dataset[index].frames[0] for index in range(count)])
            measure(model, torch.from_numpy(frames).float() / 255)
    if section.freeze == "stem-and-depthwise":
        frozen = set(frozen_parameters(model))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in frozen)
    return model


def _started(source: str, config: SegmentationConfig) -> STReMN:
    """Load the weights to start from; they must be of the model that the recipe describes."""
    found = load_model(source)
    if found.config.fusion is None and config.fusion is not None:
        found = found.with_fusion(config.fusion)  # Appendix B: trained on top of a finished model
    changes = differences(found.config.model_dump(), config.model_dump())
    if changes:
        raise StremnError(
            f"{source} holds another model than the recipe describes: "
            + "; ".join(str(change) for change in changes)
            + ". Change model.preset or model.fields."
        )
    return found.model


def _size_of(model: nn.Module) -> str:
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return f"{total:,} parameters, {trained:,} of them trained"


# --- data ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OpenData:
    """The opened sets by name; each is opened once, so that sources share what is cached."""

    stills: dict[str, StillImages]
    readers: dict[str, VideoReader]


def open_data(data: DataSection, sources: Collection[str], *, check: bool) -> OpenData:
    """Open what `sources` need; with `check`, read it all and treat problems as the recipe says.

    Raises `StremnError` that lists every problem of every set together.
    """
    used = [data.sources[name] for name in sources]
    stills: dict[str, StillImages] = {
        name: open_stills(_place(section.path), section.kind, section.layout)
        for name, section in data.stills.items()
        if any(name in source.stills for source in used)
    }
    videos = {
        name: list(_videos(section))
        for name, section in data.videos.items()
        if any(name in source.videos for source in used)
    }
    if check and data.check != "off":
        problems = [problem for each in stills.values() for problem in check_stills(each)]
        for name in stills:
            problems += check_pairing(_place(data.stills[name].path), data.stills[name].layout)
        problems += [problem for each in videos.values() for problem in check_videos(each)]
        if data.check == "refuse":
            refuse(problems)
        for problem in problems:
            logger.warning("left out: %s: %s", problem.where, problem.reason)
        bad = {problem.where for problem in problems}
        stills = {name: without(each, problems) for name, each in stills.items()}
        videos = {name: [v for v in each if v.name not in bad] for name, each in videos.items()}
    return OpenData(stills, {name: VideoReader(each) for name, each in videos.items()})


def _used_sources(recipe: Recipe) -> list[str]:
    return sorted({name for stage in recipe.stages for name in stage.sources})


def clip_dataset(recipe: Recipe, data: OpenData) -> ClipDataset:
    """Return all clips of the training, numbered through its stages."""
    sources = {name: _source(recipe.data, name, data) for name in _used_sources(recipe)}
    stages = [
        Stage((last - first) * stage.batch, stage.frames, stage.size, stage.sources)
        for stage, (first, last) in _spans(recipe)
    ]
    return ClipDataset(sources, {}, stages, recipe.train.seed)


def phases(recipe: Recipe, dataset: ClipDataset) -> list[Phase[Clip, ClipBatch]]:
    """Return the stages as `fit` wants them."""
    result, begin = [], 0
    for index, (stage, (first, last)) in enumerate(_spans(recipe)):
        clips = (last - first) * stage.batch
        result.append(
            Phase(
                name=f"stage {index + 1}",
                steps=last - first,
                batch=stage.batch,
                dataset=Subset(dataset, range(begin, begin + clips)),
                collate=collate,
                clip_loss=_StageLoss(stage, recipe.loss),
            )
        )
        begin += clips
    return result


def _spans(recipe: Recipe) -> list[tuple[StageSection, tuple[int, int]]]:
    """Each stage with its first step and the one after its last."""
    ends = [round(stage.until * recipe.train.steps) for stage in recipe.stages]
    spans = list(zip([0, *ends[:-1]], ends, strict=True))
    return [(s, span) for s, span in zip(recipe.stages, spans, strict=True) if span[0] < span[1]]


def _source(data: DataSection, name: str, opened: OpenData) -> ClipSource:
    section = data.sources[name]
    stills = [opened.stills[each] for each in section.stills]
    given = [data.stills[each].weight for each in section.stills]
    weights = [float(w) for w in given if w is not None] or None
    if weights is not None and len(weights) != len(given):
        raise StremnError(f"data.sources.{name}: give every set of stills a weight, or none.")
    reader = _joined([opened.readers[each] for each in section.videos])
    gaps = GapSchedule(section.gaps) if section.gaps is not None else None
    where = f"data.sources.{name}.parameters"
    if section.kind == "stills":
        return StillImageClips(
            stills, weights, _parameters(StillClipParameters, section.parameters, where)
        )
    if section.kind == "composed":
        parameters = _parameters(ComposedClipParameters, section.parameters, where)
        return ComposedClips(stills, reader, gaps, parameters, weights)
    if reader is None:
        raise StremnError(f"data.sources.{name} makes clips of videos, but names none.")
    return VideoClips(reader, gaps, _parameters(VideoClipParameters, section.parameters, where))


def _joined(readers: Sequence[VideoReader]) -> VideoReader | None:
    """One reader for several sets; a single one is used as it is, with what it has cached."""
    if len(readers) <= 1:
        return readers[0] if readers else None
    return VideoReader([video for reader in readers for video in reader.videos])


def _videos(section: VideosSection) -> SequenceSet:
    root = _place(section.path)
    readers: dict[str, Callable[[], SequenceSet]] = {
        "davis": lambda: read_davis(root, section.split, section.year),
        "youtube-vos": lambda: read_youtube_vos(root, section.split),
        "folders": lambda: read_folders(root / "JPEGImages", root / "Annotations"),
    }
    return readers[section.layout]()


def _place(path: str) -> Path:
    """Resolve a recipe's path: absolute, or below the folder named by STREMN_DATA."""
    place = Path(path).expanduser()
    if place.is_absolute() or place.exists():
        return place
    root = os.environ.get(DATA_VARIABLE)
    if root is None:
        raise StremnError(
            f"The recipe's path {path!r} is relative: set the variable {DATA_VARIABLE} to the "
            "folder that holds the data, or give an absolute path with --set."
        )
    return Path(root) / path


def _parameters(kind: type[ParametersT], values: Mapping[str, Any], where: str) -> ParametersT:
    """Build the parameters of a clip source; a key that it does not have is an error."""
    _refuse_unknown(kind, values, where)
    return TypeAdapter(kind).validate_python(dict(values))


def _refuse_unknown(kind: Any, values: Mapping[str, Any], where: str) -> None:
    known = {field.name for field in fields(kind)}
    hints = get_type_hints(kind)
    for key, value in values.items():
        if key not in known:
            raise StremnError(
                f"Unknown key {key!r} in {where}. Known keys: {', '.join(sorted(known))}."
            )
        if is_dataclass(hints[key]) and isinstance(value, Mapping):
            _refuse_unknown(hints[key], value, f"{where}.{key}")


# --- loss and validation ---------------------------------------------------------------------


class _StageLoss:
    """The clip loss of a stage: draws slots and policy for each batch where there are several."""

    def __init__(self, stage: StageSection, loss: LossSection) -> None:
        self.stage = stage
        self.loss = loss

    def __call__(self, model: nn.Module, batch: ClipBatch, progress: float) -> LossReport:
        # `random` is seeded for each step, so a resumed run draws the same.
        slots = self.stage.slots
        chosen = slots if isinstance(slots, int) else random.choice(slots)
        network = cast(STReMN, model)
        if self.loss.imitate is not None:
            teacher = build_policy(self.loss.imitate)
            return Imitation(slots=chosen, teacher=teacher)(network, batch, progress)
        loss = ClipLoss(
            slots=chosen,
            policy=_training_policy(network, self._draw_policy()),
            dice=self.loss.dice,
            bootstrap=self.loss.bootstrap,
            ramp=self.loss.ramp,
        )
        return loss(network, batch, progress)

    def _draw_policy(self) -> str:
        policy = self.stage.policy
        if isinstance(policy, str):
            return policy
        return random.choices(list(policy), list(policy.values()))[0]


def _training_policy(model: STReMN, name: str) -> UpdatePolicy:
    """Return a rule for training: the model's own if it has weights, fresh draws if random."""
    if name in model.policies:
        return cast(UpdatePolicy, model.policies[name])
    random_rules: dict[str, UpdatePolicy] = {
        "random-drop": RandomDrop(seed=None),
        "random-select": RandomSelect(seed=None),
    }
    return random_rules.get(name) or build_policy(name)


def _validation(recipe: Recipe, data: OpenData, device: str) -> StreamedValidation | None:
    section = recipe.validation
    if section is None:
        return None
    sequences = _videos(section.videos)
    clips = _probe_clips(recipe, data, section.probe_clips)
    return StreamedValidation(
        sequences.only(section.sequences) if section.sequences else sequences,
        device=device,
        short_side=section.short_side,
        slots=section.slots,
        policy=section.policy,
        frames=section.frames,
        clips=collate(clips) if clips else None,
    )


def _probe_clips(recipe: Recipe, data: OpenData, count: int) -> list[Clip]:
    """Clips such as the last stage's, with numbers of their own that training never draws."""
    if count == 0:
        return []
    stage = recipe.stages[-1]
    sources = {name: _source(recipe.data, name, data) for name in stage.sources}
    only = [Stage(count, stage.frames, stage.size)]
    seed = 2**32 + recipe.train.seed
    return [ClipDataset(sources, stage.sources, only, seed)[index] for index in range(count)]


# --- cost ------------------------------------------------------------------------------------


def _seconds_a_step(
    recipe: Recipe, stage: StageSection, model: STReMN, device: torch.device
) -> float:
    """Time the second of two steps on one micro-batch of synthetic clips, scaled to the batch."""
    micro = min(recipe.train.micro_batch or stage.batch, stage.batch)
    batch = collate([_moving_square(stage, seed) for seed in range(micro)]).to(device)
    loss = _StageLoss(stage, recipe.loss)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.0)
    seconds = 0.0
    for _ in range(2):
        begin = time.monotonic()
        with torch.autocast(
            device.type, torch.bfloat16, enabled=recipe.train.precision == "bfloat16"
        ):
            report = loss(model, batch, 0.0)
        report.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.monotonic() - begin
    return seconds * stage.batch / micro


def _moving_square(stage: StageSection, seed: int) -> Clip:
    """A clip of a bright square that moves over noise."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 128, (stage.frames, 3, stage.size, stage.size), dtype=np.uint8)
    labels = np.zeros((stage.frames, stage.size, stage.size), dtype=np.uint8)
    side = stage.size // 4
    for t in range(stage.frames):
        x = t * (stage.size - side) // stage.frames
        frames[t, :, side : 2 * side, x : x + side] += 100
        labels[t, side : 2 * side, x : x + side] = 1
    return Clip(frames, labels, np.array([0]))


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _time_of_clips(recipe: Recipe, count: int = 8) -> str:
    try:
        data = open_data(recipe.data, _used_sources(recipe), check=False)
        dataset = clip_dataset(recipe, data)
        begin = time.monotonic()
        for index in range(0, len(dataset), max(1, len(dataset) // count)):
            dataset[index]
        each = (time.monotonic() - begin) / count
    except StremnError as error:
        return f"the data is not there, so reading it was not timed: {error}"
    return f"making a clip takes {each * 1000:.0f} ms on one core"
