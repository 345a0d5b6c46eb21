"""Section 4.1: configurations of the segmentation model, and the builder of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from stremn.memory.fusion import FusionConfig, build_fusion
from stremn.memory.matching import Matching, Scale, Similarity
from stremn.memory.policies import Evidence, Learned, PlainEvidence
from stremn.memory.writing import Write, write
from stremn.moved import moved_names
from stremn.networks.backbones import Backbone, build_backbone
from stremn.networks.decoders import MaskDecoder
from stremn.networks.defaults import PUBLISHED, SHIPPED, SessionDefaults
from stremn.networks.encoders import (
    MASKS,
    FullMemoryEncoder,
    QueryEncoder,
    SharedStemMemoryEncoder,
)
from stremn.networks.hints import ObjectHint
from stremn.networks.model import Projection, STReMN
from stremn.networks.published import build_stcn, build_stm
from stremn.networks.working_size import Margins

MOST_CHANNELS = 16_384
"""Channels of a layer, at most: more is a damaged file."""

Channels = Annotated[int, Field(ge=1, le=MOST_CHANNELS)]


class SegmentationConfig(BaseModel):
    """Everything needed to rebuild a segmentation model; saved inside its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: Literal["stremn", "stm", "stcn"] = "stremn"
    """Whose network it is: the paper's, STM's or STCN's (see `stremn.networks.published`)."""
    backbone: str = "resnet50_gn"
    value_backbone: str | None = None
    """Of STCN's memory encoder; that of the others is the same as `backbone`."""
    memory_encoder: Literal["full", "shared-stem"] = "full"
    key: Channels = 128
    value: Channels = 512
    update_key: int = Field(default=128, ge=0, le=MOST_CHANNELS)
    """0: there are none, and Eq 1 compares keys."""
    decoder: tuple[Channels, Channels, Channels] = (256, 256, 256)
    skips: bool = False
    rates: tuple[Annotated[int, Field(ge=1, le=64)], ...] = (2, 4, 8)
    separable: bool = False
    scale: Scale = "sqrt"
    similarity: Similarity = "dot"
    top: int | None = Field(default=None, ge=1)
    """Number of best matches that the read uses; None: all."""
    margins: Margins = "edge"
    """What the frame is padded with (see `WorkingSize`)."""
    tau: float = Field(default=1.0, gt=0)
    summary: bool = False
    """Whether each object has a summary beside its slots: see `memory.summary`."""
    fusion: FusionConfig | None = None
    """Appendix B: for study alone; the paper's model has none."""

    @model_validator(mode="after")
    def _summary_fits(self) -> Self:
        if self.summary and self.family != "stremn":
            raise ValueError(f"summary = true goes with family 'stremn', got {self.family!r}")
        return self

    @property
    def matching(self) -> Matching:
        """How the memory is read."""
        return Matching(self.similarity, self.scale, self.top)

    @property
    def usual(self) -> SessionDefaults:
        """Default settings of sessions for weights of this family."""
        return SHIPPED if self.family == "stremn" else PUBLISHED

    @property
    def widths(self) -> dict[str, int]:
        """Channels of key, value and update key."""
        return {"key": self.key, "value": self.value, "update_key": self.update_key}


PRESETS: dict[str, SegmentationConfig] = {
    "resnet50": SegmentationConfig(),
    "small": SegmentationConfig(
        backbone="tf_efficientnet_lite0",
        memory_encoder="shared-stem",
        key=64,
        value=64,
        update_key=64,
        decoder=(128, 96, 48),
        skips=True,
        separable=True,
        scale="log",
        summary=True,
    ),
    "stm": SegmentationConfig(
        family="stm",
        backbone="resnet50",
        update_key=0,
        skips=True,
        margins="black",
    ),
    "stcn": SegmentationConfig(
        family="stcn",
        backbone="resnet50",
        value_backbone="resnet18",
        key=64,
        update_key=0,
        decoder=(512, 256, 256),
        skips=True,
        similarity="squared-l2",
        top=20,
        margins="mean",
    ),
}
"""The paper's model, one for CPUs and phones, and those that published weights are of."""


def build_model(
    config: SegmentationConfig,
    backbone: Backbone | None = None,
    value_backbone: Backbone | None = None,
) -> STReMN:
    """Return a model with fresh weights.

    Backbones, if given, bring their own (ImageNet's); `value_backbone` is STCN's second.
    """
    backbone = build_backbone(config.backbone) if backbone is None else backbone
    if config.family == "stremn":
        model = build_stremn(config, backbone)
    else:
        model = _build_published(config, backbone, value_backbone)
    return model.to(memory_format=torch.channels_last)


def _build_published(
    config: SegmentationConfig, backbone: Backbone, value_backbone: Backbone | None
) -> STReMN:
    """Build STM or STCN; their rules have no weights, so Eq 1 compares keys."""
    policies: dict[str, nn.Module] = {"learned": Learned(config.tau), "evidence": PlainEvidence()}
    if config.family == "stm":
        return build_stm(
            backbone,
            key=config.key,
            value=config.value,
            width=config.decoder[0],
            matching=config.matching,
            policies=policies,
            write=build_write(config),
            margins=config.margins,
        )
    if value_backbone is None:
        value_backbone = build_backbone(config.value_backbone or config.backbone)
    return build_stcn(
        backbone,
        value_backbone,
        key=config.key,
        value=config.value,
        widths=config.decoder,
        matching=config.matching,
        policies=policies,
        write=build_write(config),
        margins=config.margins,
    )


def build_stremn(config: SegmentationConfig, backbone: Backbone, masks: int = MASKS) -> STReMN:
    """Return the paper's network with fresh weights; frames are memorized under `masks` masks."""
    encoders = {"full": FullMemoryEncoder, "shared-stem": SharedStemMemoryEncoder}
    c4, c8, c16 = backbone.channels
    query_encoder = QueryEncoder(backbone)
    memory_encoder: FullMemoryEncoder | SharedStemMemoryEncoder = encoders[config.memory_encoder](
        backbone, masks=masks
    )
    decoder = MaskDecoder(
        2 * config.value,
        config.decoder,
        skips=(c4, c8) if config.skips else None,
        rates=config.rates,
        separable=config.separable,
    )
    query_key = Projection(c16, config.key)
    query_value = Projection(c16, config.value)
    memory_key = Projection(memory_encoder.width, config.key)
    with torch.no_grad():  # so that matching means something before any training
        memory_key.conv.weight[:, :c16].copy_(query_key.conv.weight)
    return STReMN(
        query_encoder=query_encoder,
        memory_encoder=memory_encoder,
        decoder=decoder,
        query_key=query_key,
        query_value=query_value,
        memory_key=memory_key,
        memory_value=Projection(memory_encoder.width, config.value),
        update_key=Projection(memory_encoder.width, config.update_key)
        if config.update_key
        else None,
        widths=config.widths,
        policies={"learned": Learned(config.tau), "evidence": Evidence(tau=config.tau)},
        matching=config.matching,
        write=build_write(config),
        margins=config.margins,
        hint=build_hint(config, backbone.channels) if config.summary else None,
    )


def build_hint(config: SegmentationConfig, channels: tuple[int, int, int]) -> ObjectHint:
    """Return what the decoder sees of summaries, with fresh weights.

    `channels` are those of the encoder at strides 4, 8 and 16.
    """
    c16 = channels[2]
    skip = config.decoder[1] if config.skips else 0
    return ObjectHint(c16 + config.key + skip + 1, 2 * config.value)


def build_write(config: SegmentationConfig) -> Write:
    """Return the function that stores templates: `memory.write`, or a new fusion module."""
    if config.fusion is None:
        return write
    return build_fusion(config.fusion, config.key + config.value + config.update_key)


def frozen_parameters(model: nn.Module) -> list[str]:
    """Return the names of parameters that training on a CPU freezes.

    They are the stem, and depthwise weights of the query encoder and of a memory encoder that
    starts at the query encoder's stem; a memory encoder with a backbone of its own is trained
    whole. ImageNet's weights are good as they are, and their gradients are the slow part of a
    backward pass.
    """
    return [
        name
        for name, weight in model.named_parameters()
        if name.startswith(STEM)
        or (name.startswith(BACKBONES) and weight.dim() == 4 and weight.shape[1] == 1)
    ]


STEM = "query_encoder.backbone.stem."
BACKBONES = ("query_encoder.backbone.", "memory_encoder.stage")


def measure(model: STReMN, frames: Float[Tensor, "b 3 height width"]) -> None:
    """Set the fixed standardization of the encoders' features from real frames in [0, 1].

    Once, before training starts from ImageNet weights.
    """
    model.query_encoder.measure(frames)
    with torch.no_grad():
        _, stem = model.query_encoder(frames)
        masks = torch.zeros_like(frames[:, :MASKS])
        model.memory_encoder.measure(frames, stem, masks)


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
