"""Configurations of the published SAM models and of toys, with random weights, for measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from stremn.sam.models import FAMILIES, SamModel, check_transformers, of_network
from stremn.sam.toys import toy_config


def _sam2(stage: Mapping[str, Any] | None = None) -> Any:
    import transformers

    if stage is None:  # transformers' own numbers are those of the tiny one
        return transformers.Sam2VideoConfig()
    widths = stage["embed_dim_per_stage"]
    backbone = {"model_type": "sam2_hiera_det_model", "hidden_size": widths[0], **stage}
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": backbone,
        "backbone_channel_list": widths[::-1],
    }
    return transformers.Sam2VideoConfig(vision_config=vision)


def _small() -> Any:
    return _sam2(
        {
            "blocks_per_stage": [1, 2, 11, 2],
            "embed_dim_per_stage": [96, 192, 384, 768],
            "global_attention_blocks": [7, 10, 13],
        }
    )


def _base_plus() -> Any:
    return _sam2(
        {
            "blocks_per_stage": [2, 3, 16, 3],
            "embed_dim_per_stage": [112, 224, 448, 896],
            "num_attention_heads": 2,
            "num_attention_heads_per_stage": [2, 4, 8, 16],
            "global_attention_blocks": [12, 16, 20],
            "window_positional_embedding_background_size": [14, 14],
        }
    )


def _large() -> Any:
    return _sam2(
        {
            "blocks_per_stage": [2, 6, 36, 4],
            "embed_dim_per_stage": [144, 288, 576, 1152],
            "num_attention_heads": 2,
            "num_attention_heads_per_stage": [2, 4, 8, 16],
            "window_size_per_stage": [8, 4, 16, 8],
            "global_attention_blocks": [23, 33, 43],
        }
    )


def _edgetam() -> Any:
    import transformers

    stages = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    backbone = transformers.TimmWrapperConfig(architecture="repvit_m1", model_args=stages)
    vision = transformers.EdgeTamVisionConfig(backbone_config=backbone)
    return transformers.EdgeTamVideoConfig(vision_config=vision)


def _sam3() -> Any:
    import transformers

    return transformers.Sam3TrackerVideoConfig()


SHAPES: dict[str, Callable[[], Any]] = {
    "sam2.1-hiera-tiny": _sam2,
    "sam2.1-hiera-small": _small,
    "sam2.1-hiera-base-plus": _base_plus,
    "sam2.1-hiera-large": _large,
    "edgetam": _edgetam,
    "sam3-tracker": _sam3,
    "sam2.1-toy": lambda: toy_config("sam2_video"),
    "edgetam-toy": lambda: toy_config("edgetam_video"),
    "sam3-tracker-toy": lambda: toy_config("sam3_tracker_video"),
}
"""What makes a configuration, by name. Toys see 64x64 pixels and have a million weights."""


def random_sam(name: str, seed: int = 0) -> SamModel:
    """Return a model of `SHAPES` with random weights: as fast as the real one, and as large.

    Raises:
        MissingExtraError: transformers is not installed.
    """
    check_transformers()
    return of_network(random_network(SHAPES[name](), seed))


def random_network(config: Any, seed: int = 0) -> nn.Module:
    """Return transformers' model of a configuration, with random weights that are not zero."""
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = getattr(transformers, FAMILIES[config.model_type])(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.parameters():
            scale = 0.1 if value.dim() < 2 else 1.5 * value[0].numel() ** -0.5
            noise = torch.randn(value.shape, generator=generator) * scale
            value.copy_(value + noise if value.dim() < 2 else noise)
    return network.eval()
