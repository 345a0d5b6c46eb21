"""Build a predictor with fresh weights from its configuration."""

from __future__ import annotations

from torch import nn

from stremn.prediction.config import PredictionConfig
from stremn.prediction.fine_keys import FrameKeys, StackKeys
from stremn.prediction.frame_coders import FrameDecoder, FrameEncoder
from stremn.prediction.model import FramePredictor
from stremn.prediction.motion import build_motion
from stremn.prediction.outputs import build_output
from stremn.prediction.recurrence import ConvLSTMCell
from stremn.prediction.rules import memory_rule


def build_predictor(config: PredictionConfig, *, training: bool = False) -> FramePredictor:
    """Build a predictor with fresh weights; `training` as in `memory_rule`."""
    widths, strides = config.widths, config.strides
    features, area = widths[-1], config.patch**2
    folded = config.shown * area
    outputs = build_output(config.output, config.channels, config.reach).logits
    outputs += 1 if config.copied else 0
    fine = build_fine_keys(config)
    return FramePredictor(
        FrameEncoder(
            folded,
            widths,
            strides,
            config.groups,
            config.slope,
            shortcuts=config.shortcuts,
        ),
        nn.Identity() if fine else nn.Conv2d(features, config.key, 3, padding=1),
        nn.Conv2d(features, config.value, 3, padding=1),
        nn.Identity() if fine else nn.Conv2d(features, config.update_key, 3, padding=1),
        FrameDecoder(
            config.stored_value + config.value + config.carried,
            outputs * area,
            widths,
            strides,
            config.groups,
            config.slope,
            head=3 if config.patch == 1 else 1,
            shortcuts=config.shortcuts,
            detail=config.detail,
        ),
        build_recurrence(config),
        build_motion(config.motion),
        fine,
        _detail(folded, config),
        memory_rule(config.policy, training=training, noise=config.noise),
        config,
    )


def build_fine_keys(config: PredictionConfig) -> nn.Module | None:
    """Build the module of pixel keys if the model moves whole templates, else None."""
    if config.reading != "displacements":
        return None
    key, value = config.key // config.fold**2, config.stored // config.fold**2
    side, slope, update_key = config.feature_stride, config.slope, config.update_key
    if config.matched == "frames":
        return FrameKeys(config.channels, config.fine, key, update_key, stride=side, slope=slope)
    inputs = config.stack * config.channels
    return StackKeys(
        inputs,
        config.fine,
        key,
        value,
        update_key,
        stride=side,
        slope=slope,
        dilation=config.dilation,
        copied=config.copied,
    )


def _detail(inputs: int, config: PredictionConfig) -> nn.Module | None:
    if not config.detail:
        return None
    return nn.Sequential(nn.Conv2d(inputs, config.detail, 3, 1, 1), nn.LeakyReLU(config.slope))


def build_recurrence(config: PredictionConfig) -> ConvLSTMCell | None:
    """Build the recurrent part if the model carries a state, else None.

    Each gate is normalized by itself: without that they saturate early in training.
    """
    if not config.carried:
        return None
    return ConvLSTMCell(config.widths[-1], config.carried, config.carried_kernel, groups=4)
