"""Keys at the resolution of pixels, for templates that are moved as a whole.

Not in the paper, whose keys are of feature maps. How far a thing has moved must be known to a pixel
if what is recalled is to be sharp; two small convolutions at full resolution are enough to see it.
"""

from __future__ import annotations

import copy
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stremn.prediction.motion import inside, move

FIRST_GAIN = 0.5
"""Deviation of fresh keys of queries. Keys of templates have 1: votes are correlations then, and no
constant part votes. Below 1, many displacements are tried at first."""


class FineKeys(Protocol):
    """Makes the keys of one stack of frames, and what is stored of it."""

    def __call__(
        self,
        stack: Float[Tensor, "b s c height width"],
        motion: Float[Tensor, "b m height width"],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return key, query key, stored value, pixels "b n height width", update key "b cu h w".

        The pixels are those that an output may copy: a frame times its opacity, and last the
        opacity, in [0, 1]; n = 0 where nothing is copied. `motion` may be empty.
        """
        ...


class StackKeys(nn.Module):
    """From all frames of a stack: where something went away, and where it comes back.

    Keys of queries begin as those of templates, so that a thing is matched with itself. Begun
    at random they may learn to match everything but that, and stay there.

    The pixels are of the stack's first frame: it may show what the last one no longer does.
    Their opacity is learned: what should not come back with the rest is transparent.

    Args:
        inputs: channels of a stack.
        hidden: channels inside.
        key: channels of keys.
        value: channels of the stored value.
        update_key: channels of update keys.
        stride: pixels from one update key to the next.
        slope: negative slope of the leaky ReLU.
        dilation: of the second convolution; 2 sees seven pixels to each side, 1 five.
        copied: whether pixels are stored.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        key: int,
        value: int,
        update_key: int,
        *,
        stride: int,
        slope: float,
        dilation: int = 1,
        copied: bool = False,
    ) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(inputs, hidden, 5, padding=2),
            nn.LeakyReLU(slope),
            nn.Conv2d(hidden, hidden, 5, padding=2 * dilation, dilation=dilation),
            nn.LeakyReLU(slope),
        )
        self.to_key = nn.Sequential(nn.Conv2d(hidden, key, 3, padding=1), nn.InstanceNorm2d(key))
        gain = nn.InstanceNorm2d(key, affine=True)
        nn.init.constant_(gain.weight, FIRST_GAIN)
        self.to_query = nn.Sequential(copy.deepcopy(self.to_key[0]), gain)
        self.to_value = nn.Conv2d(hidden, value, 3, padding=1)
        self.to_update_key = nn.Conv2d(hidden, update_key, stride, stride)
        self.to_opacity = nn.Conv2d(hidden, 1, 3, padding=1) if copied else None

    def forward(
        self, stack: Float[Tensor, "b s c height width"], motion: Float[Tensor, "b m height width"]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """See `FineKeys`."""
        seen, first = self.trunk(stack.flatten(1, 2)), stack[:, 0]
        pixels = first[:, :0]
        if self.to_opacity is not None:
            opacity = torch.sigmoid(self.to_opacity(seen))
            pixels = torch.cat([first * opacity, opacity], dim=1)
        return (
            self.to_key(seen),
            self.to_query(seen),
            self.to_value(seen),
            pixels,
            self.to_update_key(seen),
        )


class FrameKeys(nn.Module):
    """From single frames: a template's key from its last one, a query's from the expected one.

    Both are made with the same weights, so that even fresh ones match a scene with itself. Nothing
    but pixels is stored (see `PredictionConfig.copied`): those of the last frame, opaque.

    Args:
        inputs: channels of a frame.
        hidden: channels inside.
        key: channels of keys.
        update_key: channels of update keys.
        stride: pixels from one update key to the next.
        slope: negative slope of the leaky ReLU.
    """

    def __init__(
        self, inputs: int, hidden: int, key: int, update_key: int, *, stride: int, slope: float
    ) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(inputs, hidden, 3, padding=1), nn.LeakyReLU(slope))
        self.to_key = nn.Sequential(nn.Conv2d(hidden, key, 3, padding=1), nn.InstanceNorm2d(key))
        self.to_update_key = nn.Conv2d(hidden, update_key, stride, stride)

    def forward(
        self, stack: Float[Tensor, "b s c height width"], motion: Float[Tensor, "b m height width"]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """See `FineKeys`."""
        last = stack[:, -1]
        pixels = torch.cat([last, torch.ones_like(last[:, :1])], dim=1)
        seen = self.trunk(last)
        key, update_key = self.to_key(seen), self.to_update_key(seen)
        if motion.shape[1] == 0:
            return key, key, key[:, :0], pixels, update_key
        expected = self.to_key(self.trunk(move(last, motion))) * inside(motion)
        return key, expected, key[:, :0], pixels, update_key
