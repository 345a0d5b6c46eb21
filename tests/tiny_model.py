"""A segmentation model of a few thousand weights, and clips of squares that move over noise."""

import numpy as np
import torch
from torch import nn

from stremn.data.clips.clip import ClipBatch
from stremn.networks.backbones import Backbone
from stremn.networks.model import STReMN
from stremn.networks.presets import SegmentationConfig, build_model, measure

MEAN = (0.5, 0.45, 0.4)
STD = (0.25, 0.25, 0.3)


def tiny_config(**changes) -> SegmentationConfig:
    """The widths of the tiny model; its backbone is not timm's."""
    settings = {
        "memory_encoder": "shared-stem",
        "key": 6,
        "value": 10,
        "update_key": 5,
        "decoder": (8, 8, 8),
        "skips": True,
        "rates": (1, 2),
    }
    return SegmentationConfig(**(settings | changes))


def tiny_backbone() -> Backbone:
    """Image -> 8 channels at stride 4 -> 12 at 8 -> 16 at 16."""

    def stage(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU())

    stem = nn.Sequential(*stage(3, 8), *stage(8, 8))
    return Backbone(stem, stage(8, 12), stage(12, 16), channels=(8, 12, 16), mean=MEAN, std=STD)


def tiny_model(seed: int = 1, **changes) -> STReMN:
    """Random weights, standardized on noise; large last weights, so that masks are not all 0.5."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(tiny_config(**changes), tiny_backbone())
        measure(model, torch.rand(2, 3, 64, 64))
        with torch.no_grad():
            for projection in (model.query_key, model.memory_key):
                projection.conv.weight *= 3
            model.decoder.logit.weight *= 8
            if model.hint is not None:  # fresh, it would add nothing
                nn.init.normal_(model.hint[-1].weight)
    return model.eval()


def square_clips(
    given: list[list[int]], frames: int = 6, size: int = 64, seed: int = 0
) -> ClipBatch:
    """Clips of noise in which object j is a square in row j that moves right; `given` as ClipBatch.

    An object is in the pictures from the first frame on, whenever it is given.
    """
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (len(given), frames, 3, size, size), dtype=np.uint8)
    labels = np.zeros((len(given), frames, size, size), dtype=np.uint8)
    side = size // 4
    for clip, when in enumerate(given):
        for number, first in enumerate(when, start=1):
            if first < 0:
                continue
            color = rng.integers(150, 255, 3, dtype=np.uint8)
            for t in range(frames):
                x, y = 3 * t + 5 * clip, (number - 1) * side + 2
                labels[clip, t, y : y + side - 4, x : x + side] = number
                images[clip, t][:, labels[clip, t] == number] = color[:, None]
    return ClipBatch(
        torch.from_numpy(images), torch.from_numpy(labels), torch.tensor(given, dtype=torch.int64)
    )
