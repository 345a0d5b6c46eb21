"""Section 3.1: the query encoder and the memory encoder, on any timm backbone.

A backbone is cut at strides 4, 8 and 16. The query encoder sees the image. The memory encoder
sees the image and two masks: the object's own soft mask, and the union of the other objects'.
"""

from __future__ import annotations

import copy
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stremn.networks.backbones import STRIDE, Backbone, Pyramid

MASKS = 2
"""Mask channels that enter the memory encoder: this object, union of the others."""


class Standardize(nn.Module):
    """Fixed shift and scale per channel, measured once on real frames.

    Backbone features differ in size by orders of magnitude from channel to channel; unscaled,
    a few channels decide every match and attention saturates before training starts.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("scale", torch.ones(1, channels, 1, 1))

    def measure(self, features: Float[Tensor, "b c h w"]) -> None:
        """Set shift and scale so that `features` have mean 0 and deviation 1 in each channel."""
        std, mean = torch.std_mean(features.float(), dim=(0, 2, 3), keepdim=True)
        self.mean.copy_(mean)
        self.scale.copy_(1 / std.clamp(min=1e-3))

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return (features - mean) * scale."""
        return torch.addcmul(-self.mean * self.scale, features, self.scale)  # one pass


class QueryEncoder(nn.Module):
    """Image -> standardized features at strides 4, 8 and 16, and the raw stem."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.standardize = nn.ModuleList(Standardize(c) for c in backbone.channels)

    @property
    def channels(self) -> tuple[int, int, int]:
        """Channels at strides 4, 8 and 16."""
        return self.backbone.channels

    def forward(self, frames: Float[Tensor, "b 3 height width"]) -> tuple[Pyramid, Tensor]:
        """Return the standardized pyramid, and the raw features at stride 4."""
        raw = self.backbone(frames)
        s4, s8, s16 = self.standardize
        return Pyramid(s4(raw.stride4), s8(raw.stride8), s16(raw.stride16)), raw.stride4

    @torch.no_grad()
    def measure(self, frames: Float[Tensor, "b 3 height width"]) -> None:
        """Set the standardization from real frames (see `Standardize`)."""
        raw = self.backbone(frames)
        for layer, features in zip(
            self.standardize, (raw.stride4, raw.stride8, raw.stride16), strict=True
        ):
            layer.measure(features)  # type: ignore[operator]


class ImageEncoder(Protocol):
    """Image -> features at strides 4, 8 and 16, and raw ones at stride 4 for a memory encoder."""

    @property
    def channels(self) -> tuple[int, int, int]:
        """Channels at strides 4, 8 and 16."""
        ...

    def __call__(self, frames: Float[Tensor, "b 3 height width"]) -> tuple[Pyramid, Tensor]:
        """Return the pyramid, and raw features at stride 4."""
        ...

    def measure(self, frames: Float[Tensor, "b 3 height width"]) -> None:
        """Set the standardization from real frames (see `Standardize`)."""
        ...


class MemoryEncoder(Protocol):
    """Image and masks -> features at stride 16, of `width` channels.

    `local` says whether what it makes of a part of the frame is, but for the part's border, what
    it makes of that part in the whole frame.
    """

    width: int
    local: bool

    def __call__(
        self,
        frames: Float[Tensor, "b 3 height width"],
        stem: Float[Tensor, "b c4 h4 w4"],
        masks: Float[Tensor, "b m height width"],
        features: Float[Tensor, "b c16 h w"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Return the features to project and store.

        `stem` and `features` are the query encoder's at strides 4 and 16.
        """
        ...

    def measure(
        self,
        frames: Float[Tensor, "b 3 height width"],
        stem: Float[Tensor, "b c4 h4 w4"],
        masks: Float[Tensor, "b m height width"],
    ) -> None:
        """Set the standardization from real frames (see `Standardize`)."""
        ...


class FullMemoryEncoder(nn.Module):
    """The paper's (and STM's): a second backbone whose first convolution also sees the masks.

    A convolution over image and masks together is the sum of one over each, before the norm.
    """

    local = True

    def __init__(self, backbone: Backbone, masks: int = MASKS) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone)
        widen_first_convolution(self.backbone.stem, masks)
        self.standardize = Standardize(backbone.channels[2])
        self.width = backbone.channels[2]

    def forward(
        self,
        frames: Float[Tensor, "b 3 height width"],
        stem: Float[Tensor, "b c4 h4 w4"],
        masks: Float[Tensor, "b m height width"],
        features: Float[Tensor, "b c16 h w"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Return features of the image under its masks; the query encoder's are not used."""
        x = torch.cat([self.backbone.normalize(frames), masks], dim=1)
        x = self.backbone.stem(x)
        return self.standardize(self.backbone.stage16(self.backbone.stage8(x)))

    @torch.no_grad()
    def measure(
        self,
        frames: Float[Tensor, "b 3 height width"],
        stem: Float[Tensor, "b c4 h4 w4"],
        masks: Float[Tensor, "b m height width"],
    ) -> None:
        """Set the standardization from real frames (see `Standardize`)."""
        x = torch.cat([self.backbone.normalize(frames), masks], dim=1)
        x = self.backbone.stem(x)
        self.standardize.measure(self.backbone.stage16(self.backbone.stage8(x)))


def widen_first_convolution(stem: nn.Module, extra: int) -> None:
    """Give the first convolution of `stem` `extra` more input channels.

    The new weights are random, as those of a fresh convolution summed with the old one.
    """
    path, conv = next((p, m) for p, m in stem.named_modules() if isinstance(m, nn.Conv2d))
    wide = type(conv)(
        conv.in_channels + extra,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        stride=conv.stride,  # type: ignore[arg-type]
        padding=conv.padding,  # type: ignore[arg-type]
        bias=conv.bias is not None,
    )
    with torch.no_grad():
        wide.weight[:, : conv.in_channels] = conv.weight
        nn.init.kaiming_normal_(wide.weight[:, conv.in_channels :], nonlinearity="relu")
        if conv.bias is not None and wide.bias is not None:
            wide.bias.copy_(conv.bias)
    parent, _, leaf = path.rpartition(".")
    setattr(stem.get_submodule(parent), leaf, wide)


class SharedStemMemoryEncoder(nn.Module):
    """For small models: shares the query encoder's stem; masks enter at strides 4 and 16.

    At stride 4 the sixteen mask pixels of each position are channels, so no edge is lost.
    """

    local = True

    def __init__(self, backbone: Backbone, hidden: int = 48, masks: int = MASKS) -> None:
        super().__init__()
        c4, _, c16 = backbone.channels
        self.stage8 = copy.deepcopy(backbone.stage8)
        self.stage16 = copy.deepcopy(backbone.stage16)
        self.mask_in = nn.Sequential(
            nn.Conv2d(masks * 16, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, c4, 1)
        )
        self.mask_scale = nn.Parameter(torch.ones(1, c4, 1, 1))
        self.standardize = Standardize(c16)
        self.width = c16 + 2 * masks
        self.c4 = c4

    def forward(
        self,
        frames: Float[Tensor, "b 3 height width"],
        stem: Float[Tensor, "b c4 h4 w4"],
        masks: Float[Tensor, "b m height width"],
        features: Float[Tensor, "b c16 h w"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Return features under the masks, with the masks' mean and largest value in each cell."""
        own = self.standardize(self._features(stem, masks))
        coarse = [F.avg_pool2d(masks, STRIDE), F.max_pool2d(masks, STRIDE)]
        return torch.cat([own, *(c.to(own.dtype) * 2 - 1 for c in coarse)], dim=1)

    def _features(self, stem: Tensor, masks: Tensor) -> Tensor:
        cells = F.pixel_unshuffle(masks, 4).to(stem.dtype)  # b (2 4 4) h4 w4
        x = stem + self.mask_scale * self.mask_in(cells * 2 - 1)
        return self.stage16(self.stage8(x))

    @torch.no_grad()
    def measure(
        self,
        frames: Float[Tensor, "b 3 height width"],
        stem: Float[Tensor, "b c4 h4 w4"],
        masks: Float[Tensor, "b m height width"],
    ) -> None:
        """Set the standardization, and scale masks to the variance of the image at stride 4."""
        self.mask_scale.copy_(stem.float().std(dim=(0, 2, 3), keepdim=True))
        self.standardize.measure(self._features(stem, masks))
