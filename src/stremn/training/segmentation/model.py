"""Build the model of a recipe before the first step, and the loss of each stage."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import nn

from stremn.core.config import build, differences
from stremn.data.clips.clip import ClipBatch, ClipDataset
from stremn.errors import StremnError
from stremn.memory.choices import UpdatePolicy
from stremn.memory.policies import Evidence, Learned, RandomDrop, RandomSelect, build_policy
from stremn.networks.backbones import build_backbone
from stremn.networks.imagenet import packaged_backbone
from stremn.networks.model import STReMN
from stremn.networks.presets import (
    PRESETS,
    SegmentationConfig,
    build_model,
    frozen_parameters,
    measure,
)
from stremn.networks.pretrained import load_model
from stremn.training.loss_report import LossReport
from stremn.training.segmentation.agreement import Watched
from stremn.training.segmentation.imitation import Imitation
from stremn.training.segmentation.recipe import (
    LossSection,
    ModelSection,
    Recipe,
    StageSection,
)
from stremn.training.segmentation.rollout import ClipLoss

WATCHED = ("oldest", "newest", "most-similar", "spread", "empty-first")
"""Hand-made rules with which a learned rule's choices are compared in the log."""


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
        _draw_again(model, section.reinit, config)
    else:
        backbones = {
            "none": lambda: None,
            "package": lambda: packaged_backbone(config.backbone),
            "timm": lambda: build_backbone(config.backbone, pretrained=True),
        }
        model = build_model(config, backbones[section.imagenet]())
        if dataset is not None:
            frames = np.stack([dataset[n].frames[0] for n in range(_clips_to_measure(recipe))])
            measure(model, torch.from_numpy(frames).float() / 255)
    _freeze(model, section)
    return model


def _clips_to_measure(recipe: Recipe) -> int:
    """Return how many of the first clips features are measured on.

    Of the first stage only: clips of the next one may have another size.
    """
    stage, (first, last) = recipe.spans()[0]
    return min(32, (last - first) * stage.batch)


def blank_model(recipe: Recipe, config: SegmentationConfig) -> STReMN:
    """Return the model without reading weights: they come from elsewhere, or do not matter."""
    model = build_model(config)
    _freeze(model, recipe.model)
    return model


def _freeze(model: STReMN, section: ModelSection) -> None:
    if section.freeze == "stem-and-depthwise":
        frozen = set(frozen_parameters(model))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in frozen)


def _started(source: str, config: SegmentationConfig) -> STReMN:
    """Load the weights to start from; they must be of the model that the recipe describes.

    But for tau (Eq 3), which is no part of them: training alone uses it, so the recipe says it.
    """
    found = load_model(source)
    if found.config.fusion is None and config.fusion is not None:
        found = found.with_fusion(config.fusion)  # Appendix B: trained on top of a finished model
    if config.summary and not found.config.summary:
        found = found.with_summary()
    theirs, ours = (c.model_dump(exclude={"tau"}) for c in (found.config, config))
    changes = differences(theirs, ours)
    if changes:
        raise StremnError(
            f"{source} holds another model than the recipe describes: "
            + "; ".join(str(change) for change in changes)
            + ". Change model.preset or model.fields."
        )
    for policy in found.model.policies.values():
        cast(Learned | Evidence, policy).tau = config.tau
    return found.model


def _draw_again(model: STReMN, parts: Sequence[str], config: SegmentationConfig) -> None:
    """Initialize the named parts again, as without a start."""
    if not parts:
        return
    fresh = build_model(config)
    known = {name: part for name, part in model.named_modules() if name and part.state_dict()}
    for name in parts:
        if name not in known:
            raise StremnError(
                f"model.reinit names {name!r}, which is no part of the model. Parts: "
                f"{', '.join(part for part in known if part.count('.') < 2)}."
            )
        known[name].load_state_dict(fresh.get_submodule(name).state_dict())


class StageLoss:
    """The clip loss of a stage: draws slots and policy for each batch where there are several."""

    def __init__(self, stage: StageSection, loss: LossSection, seed: int = 0) -> None:
        self.stage = stage
        self.loss = loss
        self.seed = seed

    def __call__(self, model: nn.Module, batch: ClipBatch, progress: float) -> LossReport:
        """Return the loss of a batch of clips at `progress` in [0, 1] of the training."""
        # Of seed and step alone: a resumed run draws the same, and so do all parts of a batch.
        draw = random.Random(f"{self.seed} {progress}")
        counts = self.stage.memory_slots
        chosen = counts if isinstance(counts, int) else draw.choice(counts)
        network = cast(STReMN, model)
        if self.loss.imitate is not None:
            teacher = build_policy(self.loss.imitate)
            lesson = Imitation(chosen, teacher, self.loss.taught)
            return lesson(network, batch, progress)
        rules = self.stage.rules
        name = draw.choices(list(rules), list(rules.values()))[0]
        policy = training_policy(network, name)
        watched = Watched(policy, {rule: build_policy(rule) for rule in WATCHED})
        learns = name in network.policies
        loss = ClipLoss(
            memory_slots=chosen,
            policy=watched if learns else policy,
            dice=self.loss.dice,
            lovasz=self.loss.lovasz,
            bootstrap=self.loss.bootstrap,
            ramp=self.loss.ramp,
        )
        report = loss(network, batch, progress)
        return LossReport(report.loss, report.scalars | watched.scalars())


def training_policy(model: STReMN, name: str) -> UpdatePolicy:
    """Return a rule for training: the model's own if it has weights, fresh draws if random."""
    if name in model.policies:
        return cast(UpdatePolicy, model.policies[name])
    random_rules: dict[str, UpdatePolicy] = {
        "random-drop": RandomDrop(seed=None),
        "random-select": RandomSelect(seed=None),
    }
    return random_rules.get(name) or build_policy(name)
