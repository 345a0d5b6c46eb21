"""Baselines: black, the last frame, the mean frame, optical flow, ConvLSTM, PredRNN.

The recurrent networks are trained by the same `fit`, on the same clips, with the same loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from stremn.core.config import Config
from stremn.prediction.motion import (
    Motion,
    carried_motion,
    carry_forward,
    compose,
    dis_motion,
    redraw,
)
from stremn.prediction.outputs import BuiltOutput, OutputName, build_output, observed_frame
from stremn.prediction.recurrence import ConvLSTMStack, OddKernel, PredRNNStack
from stremn.prediction.rollouts import Rollout, check_frames

Predict = Callable[[Float[Tensor, "b t c height width"], int], Float[Tensor, "b n c height width"]]
"""Observed frames in [0, 1] and a number of frames to the predicted frames."""


def predict_zero(
    observed: Float[Tensor, "b t c height width"], frames: int
) -> Float[Tensor, "b n c height width"]:
    """Predict black frames; on Moving MNIST they beat copying the last one."""
    return torch.zeros_like(observed[:, :1]).expand(-1, frames, -1, -1, -1)


def predict_last(
    observed: Float[Tensor, "b t c height width"], frames: int
) -> Float[Tensor, "b n c height width"]:
    """Predict the last frame again and again."""
    return observed[:, -1:].expand(-1, frames, -1, -1, -1)


def predict_mean(
    observed: Float[Tensor, "b t c height width"], frames: int
) -> Float[Tensor, "b n c height width"]:
    """Predict the mean of the observed frames."""
    return observed.mean(1, keepdim=True).expand(-1, frames, -1, -1, -1)


def predict_flow(
    observed: Float[Tensor, "b t c height width"], frames: int
) -> Float[Tensor, "b n c height width"]:
    """Predict the last frame, moved by the optical flow of the last two frames.

    See `dis_motion`. Each prediction is sampled from the last frame itself, by the flow of all
    steps so far: sampling from predictions would blur them a little more each time.
    """
    return _moved_on(observed, frames, dis_motion)


def predict_fine_flow(
    observed: Float[Tensor, "b t c height width"], frames: int
) -> Float[Tensor, "b n c height width"]:
    """Predict as `predict_flow` does, with a flow of full resolution: see `carried_motion`."""
    return _moved_on(observed, frames, carried_motion)


def _moved_on(
    observed: Float[Tensor, "b t c height width"], frames: int, motion: Motion
) -> Float[Tensor, "b n c height width"]:
    if observed.shape[1] < 2:
        return predict_last(observed, frames)
    flow, last = motion(observed[:, -2:]), observed[:, -1]
    travel = torch.zeros_like(flow)
    predicted = []
    for _ in range(frames):
        travel, flow = compose(flow, travel), carry_forward(flow)
        predicted.append(redraw(last, travel))
    return torch.stack(predicted, dim=1)


TRIVIAL: dict[str, Predict] = {
    "zero": predict_zero,
    "copy-last": predict_last,
    "mean": predict_mean,
    "flow": predict_flow,
    "fine-flow": predict_fine_flow,
}
"""The baselines without weights, by name."""


class RecurrentConfig(Config):
    """Numbers of a recurrent baseline.

    `patch` x `patch` pixels are folded into channels before the first layer, as is usual.
    `output` and `reach` as of our predictor; any output but "sigmoid" makes it a control.
    """

    kind: Literal["convlstm", "predrnn"]
    channels: Literal[1, 3] = 1
    hidden: int = Field(default=30, gt=0, le=16_384)
    layers: int = Field(default=2, gt=0, le=64)
    kernel: OddKernel = 5
    patch: int = Field(default=4, gt=0, le=64)
    output: OutputName = "sigmoid"
    reach: int = Field(default=2, gt=0, le=64)
    groups: int = Field(default=0, ge=0, le=16_384)
    """Of ConvLSTM only: groups of a GroupNorm on the gates, before they are squashed; 4 normalizes
    each gate by itself. 0, none, is the paper's."""

    @model_validator(mode="after")
    def _groups_are_of_convlstm(self) -> RecurrentConfig:
        if self.groups and (self.kind != "convlstm" or 4 * self.hidden % self.groups):
            raise ValueError(
                f"groups = {self.groups} normalizes the gates of a ConvLSTM and must divide their "
                f"{4 * self.hidden} channels; leave it out, or 0, for kind {self.kind!r}"
            )
        return self

    @property
    def inputs(self) -> int:
        """Channels of a frame whose patches are folded."""
        return self.channels * self.patch**2


class RecurrentPredictor(nn.Module):
    """Folds patches into channels, runs a recurrent stack, reads out the next frame.

    Args:
        stack: a `ConvLSTMStack` or `PredRNNStack` over patch*patch*channels inputs.
        output: what makes a frame of the read-out, and how many logits a pixel it needs.
        config: the numbers; saved with the weights.
    """

    def __init__(
        self, stack: ConvLSTMStack | PredRNNStack, output: BuiltOutput, config: RecurrentConfig
    ) -> None:
        super().__init__()
        self.stack, self.config = stack, config
        self.output = nn.Conv2d(stack.features, output.logits * config.patch**2, 1)
        self.to_frame = output.apply

    def rollout(
        self,
        frames: Float[Tensor, "b t c height width"],
        observed: int,
        future: int,
        silent: int = 0,
    ) -> Rollout:
        """Predict frames as `Forecaster.rollout`; the first one predicted is the second."""
        check_frames(frames[:, :observed], 1, self.config.channels)
        patch = self.config.patch
        last = frames[:, 0]
        states = self.stack.start(F.pixel_unshuffle(last, patch))
        predictions: list[Tensor] = []
        for time in range(observed + future - 1):
            last = frames[:, time] if time < observed else predictions[-1]
            features, states = self.stack(F.pixel_unshuffle(last, patch), states)
            logits = F.pixel_shuffle(self.output(features), patch)
            traced = observed_frame(last, last[:, :0])
            predictions.append(self.to_frame(logits, traced, traced.travel).frame)
        silent = min(silent, observed - 1)
        return Rollout(torch.stack(predictions[silent:], dim=1), 1 + silent)


def build_baseline(config: RecurrentConfig) -> RecurrentPredictor:
    """Build a recurrent baseline with fresh weights."""
    return RecurrentPredictor(
        STACKS[config.kind](config),
        build_output(config.output, config.channels, config.reach),
        config,
    )


def _convlstm(config: RecurrentConfig) -> ConvLSTMStack:
    return ConvLSTMStack(config.inputs, config.hidden, config.layers, config.kernel, config.groups)


def _predrnn(config: RecurrentConfig) -> PredRNNStack:
    return PredRNNStack(config.inputs, config.hidden, config.layers, config.kernel)


STACKS: dict[str, Callable[[RecurrentConfig], ConvLSTMStack | PredRNNStack]] = {
    "convlstm": _convlstm,
    "predrnn": _predrnn,
}
"""What builds the recurrent layers of each kind."""
