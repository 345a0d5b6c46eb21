"""Estimate the cost of a training run on this machine from two steps on synthetic clips."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from stremn.core.machine import measure_machine
from stremn.data.clips.clip import Clip, collate
from stremn.errors import StremnError
from stremn.moved import moved_names
from stremn.training.optimization import parameter_groups
from stremn.training.segmentation.data import (
    clip_dataset,
    clip_parameters,
    open_data,
    used_sources,
    validation_videos,
)
from stremn.training.segmentation.model import StageLoss, blank_model, model_config
from stremn.training.segmentation.recipe import (
    Recipe,
    SourceSection,
    StageSection,
)
from stremn.training.step_time import StepTimer, seconds_per_item

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageCost:
    """Cost of a stage: its steps, and seconds, clips and arithmetic of one of them."""

    name: str
    steps: int
    seconds: float
    clips: int
    flops: float
    """Forward and backward, counted; a multiplication and an addition are two."""

    def describe(self, rate: float | None) -> str:
        """Return one line; `rate` is the machine's measured rate in operations per second."""
        line = (
            f"{self.name}: {self.steps} steps of {self.seconds:.2f} s, "
            f"{self.clips / self.seconds:.2f} clips/s, {self.flops / 1e12:.2f} TFLOP per step"
        )
        if rate is None:
            return line
        return f"{line}, {self.flops / rate / self.seconds:.0%} of the machine's matrix rate"


@dataclass(frozen=True)
class TrainingCost:
    """Cost of a full run on this machine."""

    parameters: int
    trainable: int
    stages: tuple[StageCost, ...]
    peak_bytes: int | None
    """None where the system does not say."""
    data: str
    rate: float | None = None
    """Operations a second of the machine's large matrix products in the recipe's precision."""

    @property
    def hours(self) -> float:
        """Hours of the whole training without validation."""
        return sum(stage.seconds * stage.steps for stage in self.stages) / 3600

    def __str__(self) -> str:
        lines = [f"{self.parameters:,} parameters, {self.trainable:,} of them trained"]
        lines += [stage.describe(self.rate) for stage in self.stages]
        if self.peak_bytes is not None:
            lines.append(f"peak memory {self.peak_bytes / 2**30:.2f} GiB")
        lines.append(self.data)
        lines.append(f"a full run takes about {self.hours:.1f} hours, without validation")
        return "\n".join(lines)


def estimate_cost(recipe: Recipe) -> TrainingCost:
    """Check the data, then time the second of two steps of each stage on synthetic clips.

    What is wrong with the data is logged first and does not stop the estimate: a step costs the
    same with any clips of as many objects. The synthetic clips hold from one object up to the most
    that a source may have, in turn. If the data is there, the time to make clips is measured too.
    """
    data = _time_of_clips(recipe)
    logger.info("%s", data)
    model = blank_model(recipe, model_config(recipe.model))
    timer = StepTimer(model, recipe.train)
    device, precision = timer.device, timer.precision
    parameter_groups(model, recipe.train)  # freezes what the recipe does not train
    stages = []
    for index, (stage, (first, last)) in enumerate(recipe.spans()):
        name = f"stage {index + 1} ({stage.frames} frames of {stage.size} px, batch {stage.batch})"
        seconds, flops = _cost_of_a_step(recipe, stage, timer)
        stages.append(StageCost(name, last - first, seconds, stage.batch, flops))
    return TrainingCost(
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        stages=tuple(stages),
        peak_bytes=_peak_bytes(device),
        data=data,
        rate=measure_machine([precision]).flops[precision] if device.type == "cpu" else None,
    )


def gradient_flops(
    grad_shape: Sequence[int],
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    _bias: object,
    _stride: object,
    _padding: object,
    _dilation: object,
    transposed: bool,
    _output_padding: object,
    _groups: int,
    wanted: Sequence[bool],
    out_shape: object = None,
) -> int:
    """Count the operations of a convolution's gradients: as many for input or weight as forward.

    PyTorch's own count takes the weight's gradient of a depthwise convolution for a dense one's,
    hundreds of times too many. The arguments are those of `aten::convolution_backward`.
    """
    places = x_shape if transposed else grad_shape
    forward = 2 * places[0] * math.prod(places[2:]) * math.prod(weight_shape)
    return forward * sum(wanted[:2])


def _cost_of_a_step(recipe: Recipe, stage: StageSection, timer: StepTimer) -> tuple[float, float]:
    """Count the first and time the second of two steps on synthetic clips: seconds, FLOPs.

    One micro-batch of each step is made; both figures are scaled to the batch.
    """
    micro = min(recipe.train.micro_batch or stage.batch, stage.batch)
    most = max(most_objects(recipe.data.sources[name], name) for name in stage.sources)
    clips = [moving_square(stage, seed, 1 + seed % most) for seed in range(micro)]
    batch, stage_loss = collate(clips).to(timer.device), StageLoss(stage, recipe.loss)

    def loss() -> Tensor:
        return stage_loss(timer.model, batch, 0.0).loss

    formulas = {torch.ops.aten.convolution_backward: gradient_flops}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        timer.seconds(loss)
    scale = stage.batch / micro
    return timer.seconds(loss) * scale, counter.get_total_flops() * scale


def most_objects(source: SourceSection, name: str) -> int:
    """Return objects that a clip of a source may hold; composed clips hold seldom more than two."""
    return getattr(clip_parameters(source, name), "objects", 2)


def moving_square(stage: StageSection, seed: int, objects: int = 1) -> Clip:
    """Return a clip of bright squares that move over noise, one below the other."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 128, (stage.frames, 3, stage.size, stage.size), dtype=np.uint8)
    labels = np.zeros((stage.frames, stage.size, stage.size), dtype=np.uint8)
    side = stage.size // 4
    for t in range(stage.frames):
        x = t * (stage.size - side) // stage.frames
        for number in range(1, objects + 1):
            y = number * (stage.size - side) // (objects + 1)
            frames[t, :, y : y + side // 2, x : x + side] += 50
            labels[t, y : y + side // 2, x : x + side] = number
    return Clip(frames, labels, np.zeros(objects, dtype=np.int64))


def _peak_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _time_of_clips(recipe: Recipe, count: int = 8) -> str:
    """Check the data as a training does, and time about `count` clips spread over the run.

    Returns either in words.
    """
    try:
        data = open_data(recipe.data, used_sources(recipe), check=True)
        validation_videos(recipe)
        dataset = clip_dataset(recipe, data)
        each = seconds_per_item(dataset, len(dataset), count)
    except StremnError as error:
        return f"The data cannot be used, so training cannot start yet: {error}"
    return f"making a clip takes {each * 1000:.0f} ms on one core"


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
