"""Configuration of a predictor, and the presets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from stremn.core.config import Config
from stremn.memory.matching import Matching, Pooling, Scale
from stremn.moved import moved_names
from stremn.prediction.motion import MotionName
from stremn.prediction.outputs import OutputName
from stremn.prediction.recurrence import OddKernel

Matched = Literal["stack", "frames"]
Compared = Literal["update-keys", "keys"]
Channels = Annotated[int, Field(ge=1, le=16_384)]


class PredictionConfig(Config):
    """Configuration of a `FramePredictor`; see `PREDICTOR_PRESETS`."""

    kind: Literal["stremn"] = "stremn"
    channels: Literal[1, 3] = 1
    size: int = Field(default=64, gt=0, le=4096)
    stack: int = Field(default=3, gt=0, le=256)
    widths: tuple[Channels, ...] = (32, 32, 64, 64, 128, 128)
    strides: tuple[Annotated[int, Field(ge=1, le=16)], ...] = (2, 1, 2, 1, 1, 1)
    key: Channels = 64
    value: Channels = 256
    update_key: Channels = 64
    stored: int = Field(default=0, ge=0, le=16_384)
    """Of the reading "displacements": channels of the stored value, of all pixels of a position;
    `value` counts the query's own alone. Else 0: the value is what is stored."""
    memory_slots: int = Field(default=5, gt=0, le=65_536)
    policy: str = "learned"
    compared: Compared = "update-keys"
    """What Eq 1 compares for the rules by similarity: the paper's update keys, or the keys that are
    read, so that a template stays if it is matched otherwise than those that follow."""
    noise: float = Field(default=1.0, ge=0, le=100)
    """Of the rule "learned": size of its noise in training; 1 is the paper's."""
    growth: int = Field(default=0, ge=0, le=65_536)
    """Slots added whenever all are taken; for the rule "growing" only."""
    scale: Scale = "sqrt"
    patch: int = Field(default=1, gt=0, le=64)
    """patch x patch pixels are folded into channels before the encoder and unfolded behind the
    decoder, as is usual for ConvLSTM. 1, nothing folded, is the paper's."""
    shortcuts: bool = False
    """A block's input is added to its output where shapes agree: not in the paper, whose blocks
    learn more slowly."""
    output: OutputName = "sigmoid"
    reach: int = Field(default=2, gt=0, le=64)
    """Of the outputs "moved" only: pixels that a thing may go from one frame to the next."""
    motion: MotionName = "none"
    """What estimates the motion of a stack; "dis" feeds the flow, the frame it leads to and how
    well it explained the last one to the encoder, and moves pixels with it in the outputs "flow"
    and "paced-flow". "carried" estimates it of observed frames alone, at full resolution, and also
    shows how far pixels have come since they were observed. None of it is in the paper."""
    smoothness: float = Field(default=0.0, ge=0, le=0.25)
    """Of the output "paced-flow" only: standard deviation of the Gaussian that the flow is smoothed
    with, as a share of the frame's shorter side."""
    detail: int = Field(default=0, ge=0, le=16_384)
    """Channels that go past the encoder at the resolution of the patches, to the decoder's head:
    edges that the feature maps are too coarse for. 0, none, is the paper's."""
    any_size: bool = False
    """Frames keep their size and shape, padded to multiples of the feature stride; else they are
    resized to `size` x `size`."""
    groups: int = Field(default=8, gt=0, le=16_384)
    slope: float = Field(default=0.2, ge=0, le=1e6)
    reading: Pooling = "positions"
    """How the memory is read: by Eq 5; with templates that are moved as a whole, not in the paper
    (see `memory.displacements`)."""
    unread: bool = False
    """Whether zeros stand in for what was read, in training too: the control without a memory."""
    matched: Matched = "stack"
    """Of the reading "displacements": what keys are made of (see `fine_keys`), whole stacks or
    single frames. Keys are of pixels then: `key` counts those of all pixels of a position."""
    fine: int = Field(default=16, gt=0, le=16_384)
    """Of the reading "displacements": channels inside of what makes keys."""
    copied: bool = False
    """Of the reading "displacements": whether pixels are stored too, so that the output can copy
    what is read of them: the last frame's, or with keys of stacks the first frame's."""
    dilation: int = Field(default=1, gt=0, le=64)
    """Of keys of stacks: dilation of the second convolution that makes them."""
    carried: int = Field(default=0, ge=0, le=16_384)
    """Channels of a ConvLSTM state that is carried from stack to stack and decoded together with
    what was read. 0, none, is the paper's: see `FramePredictor`."""
    carried_kernel: OddKernel = 3
    """Of that ConvLSTM: the width of its convolution."""

    @model_validator(mode="after")
    def _size_fits_strides(self) -> PredictionConfig:
        if self.size % self.feature_stride:
            raise ValueError(
                f"size {self.size} must be a multiple of {self.feature_stride}, the product of the "
                "patch and the strides"
            )
        return self

    @model_validator(mode="after")
    def _flow_has_a_motion(self) -> PredictionConfig:
        if self.output in ("flow", "paced-flow") and self.motion == "none":
            raise ValueError(
                f'the output "{self.output}" moves pixels by a motion: set motion = "dis" too'
            )
        if self.motion != "none" and self.stack < 2:
            raise ValueError("a motion is that of two frames: set stack to 2 or more")
        return self

    @model_validator(mode="after")
    def _growing_memory_grows(self) -> PredictionConfig:
        if (self.policy == "growing") != (self.growth > 0):
            raise ValueError(
                'growth goes with policy = "growing": give both, as in policy = "growing", '
                "growth = 8, or neither"
            )
        return self

    @model_validator(mode="after")
    def _displacements_are_of_pixels(self) -> PredictionConfig:
        if self.reading == "positions":
            if self.stored or self.copied:
                raise ValueError('stored and copied go with reading = "displacements"')
            if self.matched != "stack":
                raise ValueError('matched = "frames" goes with reading = "displacements"')
            return self
        if self.matched == "frames" and self.stored:
            raise ValueError("keys of frames store only pixels: set stored = 0 and copied = true")
        area = self.fold**2
        for name, channels in (("key", self.key), ("stored", self.stored)):
            if channels % area:
                raise ValueError(
                    f"{name} = {channels} must be a multiple of {area}: a position holds "
                    f"{self.fold}x{self.fold} pixels"
                )
        if self.matched == "stack" and not self.stored:
            raise ValueError(f"keys of stacks need a stored value: set stored, such as {area}")
        if self.matched == "frames" and not self.copied:
            raise ValueError("keys of frames store only pixels: set copied = true")
        return self

    @property
    def shown(self) -> int:
        """Channels that the encoder is shown: a stack, and what its motion explains."""
        explained = {"none": 0, "dis": 3 + self.channels, "carried": 5 + self.channels}
        return self.stack * self.channels + explained[self.motion]

    @property
    def matching(self) -> Matching:
        """How a read compares queries with keys."""
        return Matching(scale=self.scale, pooling=self.reading, fold=self.fold)

    @property
    def fold(self) -> int:
        """Finer positions along each axis that keys and stored values of a position hold."""
        return 1 if self.reading == "positions" else self.feature_stride

    @property
    def stored_value(self) -> int:
        """Channels of what is read, without pixels."""
        return self.value if self.reading == "positions" else self.stored

    @property
    def compared_channels(self) -> int:
        """Channels of the update keys that are stored; 0 where keys are compared."""
        return self.update_key if self.compared == "update-keys" else 0

    @property
    def copies(self) -> int:
        """Channels of pixels that are stored: the frame's, and ones."""
        return self.channels + 1 if self.copied else 0

    @property
    def stored_pixels(self) -> int:
        """Channels of pixels that a position stores."""
        return self.copies * self.fold**2

    @property
    def feature_stride(self) -> int:
        """Pixels from one feature to the next."""
        product = self.patch
        for stride in self.strides:
            product *= stride
        return product


PREDICTOR_PRESETS: dict[str, PredictionConfig] = {
    "64": PredictionConfig(),
    "128": PredictionConfig(size=128, strides=(2, 1, 2, 1, 2, 1)),
    "128-rgb": PredictionConfig(size=128, strides=(2, 1, 2, 1, 2, 1), channels=3),
    "32-small": PredictionConfig(
        size=32, widths=(16, 16, 32, 32, 48, 48), key=24, value=48, update_key=24
    ),
    "64-small": PredictionConfig(
        size=64,
        patch=4,
        widths=(32, 32, 48, 48, 48, 48),
        strides=(1, 1, 2, 1, 1, 1),
        key=32,
        value=48,
        update_key=32,
    ),
    "natural": PredictionConfig(
        channels=3,
        size=128,
        patch=4,
        widths=(48, 64, 64, 96, 96, 96),
        strides=(1, 2, 1, 2, 1, 1),
        key=48,
        value=96,
        update_key=48,
        shortcuts=True,
        motion="carried",
        output="paced-flow",
        smoothness=1 / 72,
        detail=48,
        any_size=True,
    ),
    "64-pans": PredictionConfig(
        channels=3,
        size=64,
        patch=4,
        widths=(48, 64),
        strides=(1, 1),
        key=64,
        value=64,
        update_key=16,
        noise=0.1,
        shortcuts=True,
        motion="dis",
        output="flow",
        reading="displacements",
        matched="frames",
        copied=True,
        fine=16,
    ),
    "32-recalled": PredictionConfig(
        size=32,
        patch=2,
        widths=(32, 48, 48),
        strides=(1, 2, 1),
        key=32,
        value=48,
        update_key=24,
        stored=32,
        noise=0.1,
        shortcuts=True,
        output="moved",
        reading="displacements",
        fine=12,
    ),
    "64-carried": PredictionConfig(
        size=64,
        patch=4,
        widths=(32, 48, 48),
        strides=(1, 2, 1),
        key=32,
        value=48,
        update_key=32,
        carried=48,
        shortcuts=True,
        output="moved-by-axis",
        reach=4,
    ),
}
"""64x64 and 128x128 as the paper needs them, on a 16x16 grid; small ones for a CPU.
"64-carried" is the one with all that the paper has not, at the cost of "64-small"."""


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
