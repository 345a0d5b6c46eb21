"""STM and STCN, the networks of published weights, as parts of `STReMN`.

Space-Time Memory networks (Oh et al., ICCV 2019) are the basis of the paper: two ResNet-50 with
frozen BatchNorm, here folded, and a decoder with skips. Space-Time Correspondence networks (Cheng
et al., NeurIPS 2021) have one key per frame for all objects, compared by distance, and a ResNet-18
that encodes masks. Both use the same memory here; neither has update keys.
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stremn.memory.matching import Matching
from stremn.memory.writing import Write
from stremn.networks.backbones import Backbone, Pyramid
from stremn.networks.decoders import ResidualBlock
from stremn.networks.encoders import MASKS, widen_first_convolution
from stremn.networks.model import Projection, STReMN
from stremn.networks.working_size import Margins


class PlainEncoder(nn.Module):
    """Image -> features at strides 4, 8 and 16, as the backbone gives them."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    @property
    def channels(self) -> tuple[int, int, int]:
        """Channels at strides 4, 8 and 16."""
        return self.backbone.channels

    def forward(self, frames: Float[Tensor, "b 3 height width"]) -> tuple[Pyramid, Tensor]:
        """Return the pyramid, and its features at stride 4 once more."""
        pyramid = self.backbone(frames)
        return pyramid, pyramid.stride4

    def measure(self, frames: Float[Tensor, "b 3 height width"]) -> None:
        """Do nothing: there is no standardization to set."""


class PlainMemoryEncoder(nn.Module):
    """STM's: a second backbone whose first convolution also sees the masks."""

    local = True

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone)
        widen_first_convolution(self.backbone.stem, MASKS)
        self.width = backbone.channels[2]

    def forward(
        self,
        frames: Float[Tensor, "b 3 height width"],
        stem: Float[Tensor, "b c4 h4 w4"],
        masks: Float[Tensor, "b 2 height width"],
        features: Float[Tensor, "b c16 h w"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Return features of the image under its masks; the query encoder's are not used."""
        return under_masks(self.backbone, frames, masks)

    def measure(
        self,
        frames: Float[Tensor, "b 3 height width"],
        stem: Float[Tensor, "b c4 h4 w4"],
        masks: Float[Tensor, "b 2 height width"],
    ) -> None:
        """Do nothing: there is no standardization to set."""


class FusingMemoryEncoder(nn.Module):
    """STCN's: a light backbone for image and masks, fused with the query encoder's features.

    Not `local`: its attention weighs channels by what is in all of the frame.
    """

    local = False

    def __init__(self, backbone: Backbone, features: int, width: int) -> None:
        """Build it; `features` are the query encoder's channels at stride 16; `width` is the
        result's."""
        super().__init__()
        self.backbone = copy.deepcopy(backbone)
        widen_first_convolution(self.backbone.stem, MASKS)
        self.join = ResidualBlock(backbone.channels[2] + features, width)
        self.attention = ChannelSpatialAttention(width)
        self.refine = ResidualBlock(width)
        self.width = width

    def forward(
        self,
        frames: Float[Tensor, "b 3 height width"],
        stem: Float[Tensor, "b c4 h4 w4"],
        masks: Float[Tensor, "b 2 height width"],
        features: Float[Tensor, "b c16 h w"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Return features of the image under its masks; `stem` is not used."""
        assert features is not None  # every query has them
        x = self.join(torch.cat([under_masks(self.backbone, frames, masks), features], dim=1))
        return self.refine(x + self.attention(x))

    def measure(
        self,
        frames: Float[Tensor, "b 3 height width"],
        stem: Float[Tensor, "b c4 h4 w4"],
        masks: Float[Tensor, "b 2 height width"],
    ) -> None:
        """Do nothing: there is no standardization to set."""


def under_masks(
    backbone: Backbone,
    frames: Float[Tensor, "b 3 height width"],
    masks: Float[Tensor, "b 2 height width"],
) -> Float[Tensor, "b c h w"]:
    """Return features at stride 16 of frames and masks, the backbone's first layer being wide."""
    x = backbone.stem(torch.cat([backbone.normalize(frames), masks], dim=1))
    return backbone.stage16(backbone.stage8(x))


class ChannelSpatialAttention(nn.Module):
    """CBAM (Woo et al., ECCV 2018): weigh channels, then positions, by their mean and maximum."""

    def __init__(self, channels: int, reduction: int = 16, kernel: int = 7) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.channel = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )
        self.position = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x, channels and positions weighed in [0, 1]."""
        weights = self.channel(x.mean((2, 3))) + self.channel(x.amax((2, 3)))
        x = x * weights.sigmoid()[:, :, None, None]
        seen = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        return x * self.position(seen).sigmoid()


class SkipRefine(nn.Module):
    """Doubles the resolution and adds a skip from the encoder."""

    def __init__(self, skip: nn.Module, block: nn.Module) -> None:
        super().__init__()
        self.skip, self.block = skip, block

    def forward(
        self, x: Float[Tensor, "b i h w"], skip: Float[Tensor, "_ i h2 w2"]
    ) -> Float[Tensor, "b o h2 w2"]:
        """Return features at twice the resolution; `skip` has been through `self.skip`."""
        larger = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.block(skip + larger)


class ResidualDecoder(nn.Module):
    """STM's and STCN's decoder, of parts: compress, refine with skips twice, one logit."""

    def __init__(
        self, compress: nn.Module, refine8: SkipRefine, refine4: SkipRefine, width: int
    ) -> None:
        """Build it; `width` is that of `refine4`'s result."""
        super().__init__()
        self.compress = compress
        self.refine8, self.refine4 = refine8, refine4
        self.logit = conv(width, 1)

    def skip_features(
        self, stride4: Float[Tensor, "b c4 h4 w4"], stride8: Float[Tensor, "b c8 h8 w8"]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the skips for strides 8 and 4: once per frame, for all objects."""
        return self.refine8.skip(stride8), self.refine4.skip(stride4)

    def forward(
        self,
        x: Float[Tensor, "b i h w"],
        skips: tuple[Tensor | None, Tensor | None],
    ) -> Float[Tensor, "b 1 h4 w4"]:
        """Return logits at stride 4."""
        x = self.refine8(self.compress(x), skips[0])
        return self.logit(F.relu(self.refine4(x, skips[1])))


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def build_stm(
    backbone: Backbone,
    *,
    key: int,
    value: int,
    width: int,
    matching: Matching,
    policies: dict[str, nn.Module],
    write: Write,
    margins: Margins,
) -> STReMN:
    """Return STM with fresh weights; the decoder is `width` channels wide everywhere."""
    settle_activations(backbone)
    c4, c8, c16 = backbone.channels

    def refine(inputs: int) -> SkipRefine:
        return SkipRefine(
            nn.Sequential(conv(inputs, width), ResidualBlock(width)), ResidualBlock(width)
        )

    return STReMN(
        query_encoder=PlainEncoder(backbone),
        memory_encoder=PlainMemoryEncoder(backbone),
        decoder=ResidualDecoder(
            nn.Sequential(conv(2 * value, width), ResidualBlock(width)),
            refine(c8),
            refine(c4),
            width,
        ),
        query_key=Projection(c16, key),
        query_value=Projection(c16, value),
        memory_key=Projection(c16, key),
        memory_value=Projection(c16, value),
        update_key=None,
        widths={"key": key, "value": value, "update_key": 0},
        policies=policies,
        matching=matching,
        write=write,
        margins=margins,
    )


def build_stcn(
    backbone: Backbone,
    value_backbone: Backbone,
    *,
    key: int,
    value: int,
    widths: tuple[int, int, int],
    matching: Matching,
    policies: dict[str, nn.Module],
    write: Write,
    margins: Margins,
) -> STReMN:
    """Return STCN with fresh weights; `widths` are the decoder's at strides 16, 8 and 4."""
    settle_activations(backbone)
    settle_activations(value_backbone)
    c4, c8, c16 = backbone.channels
    w16, w8, w4 = widths
    return STReMN(
        query_encoder=PlainEncoder(backbone),
        memory_encoder=FusingMemoryEncoder(value_backbone, c16, value),
        decoder=ResidualDecoder(
            ResidualBlock(2 * value, w16),
            SkipRefine(conv(c8, w16), ResidualBlock(w16, w8)),
            SkipRefine(conv(c4, w8), ResidualBlock(w8, w4)),
            w4,
        ),
        query_key=Projection(c16, key),
        query_value=Projection(c16, value),
        memory_key=None,
        memory_value=None,
        update_key=None,
        widths={"key": key, "value": value, "update_key": 0},
        policies=policies,
        matching=matching,
        write=write,
        margins=margins,
    )


def settle_activations(module: nn.Module) -> None:
    """Move each activation of a ResNet to the place of the folded BatchNorm before it, in place.

    The same function; `inference.fuse_activations` then finds convolution and activation together.
    The last one of a block follows a sum and stays.
    """
    children = dict(module.named_children())
    last = "act3" if "conv3" in children else "act2"
    for number in (1, 2):
        norm, activation = f"bn{number}", f"act{number}"
        settled = isinstance(children.get(norm), nn.Identity) and activation in children
        if settled and (activation != last or "conv2" not in children):
            setattr(module, norm, children[activation])
            setattr(module, activation, nn.Identity())
    for child in children.values():
        settle_activations(child)
