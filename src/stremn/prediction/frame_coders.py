"""Frame encoder and decoder of video prediction: six blocks of two (de)convolutions (Sec 4.2)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stremn.errors import StremnError


class Block(nn.Sequential):
    """Layers one after the other; with a shortcut, their input is added where shapes agree."""

    def __init__(self, *layers: nn.Module, shortcut: bool) -> None:
        super().__init__(*layers)
        self.shortcut = shortcut

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """Apply the layers."""
        y: Tensor = super().forward(x)
        return x + y if self.shortcut and x.shape == y.shape else y


class FrameEncoder(nn.Module):
    """A stack of frames to a feature map; each block is conv, conv, GroupNorm, leaky ReLU.

    Args:
        channels: input channels (frames in a stack x channels of a frame).
        widths: output channels of each block, each a multiple of `groups`.
        strides: stride of each block's first convolution; their product is the feature stride.
        groups: groups of every GroupNorm.
        slope: negative slope of the leaky ReLU.
        shortcuts: of each `Block`.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        strides: Sequence[int],
        groups: int = 8,
        slope: float = 0.2,
        *,
        shortcuts: bool = False,
    ) -> None:
        super().__init__()
        _check(widths, strides, groups)
        inputs = (channels, *widths[:-1])
        self.blocks = nn.Sequential(
            *(
                Block(
                    nn.Conv2d(before, width, 3, stride, 1),
                    nn.Conv2d(width, width, 3, 1, 1, bias=False),
                    nn.GroupNorm(groups, width),
                    nn.LeakyReLU(slope),
                    shortcut=shortcuts,
                )
                for before, width, stride in zip(inputs, widths, strides, strict=True)
            )
        )

    def forward(self, stack: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b c h w"]:
        """Encode stacks of frames in [0, 1]."""
        return self.blocks(stack)


class FrameDecoder(nn.Module):
    """The encoder's mirror: deconv, deconv, GroupNorm, leaky ReLU; then a convolution.

    Args:
        inputs: channels of the feature map that comes in.
        channels: channels of what goes out: of a frame, or more for outputs that need more.
        widths: the encoder's widths; the decoder uses them in reverse.
        strides: the encoder's strides; the decoder undoes them in reverse.
        groups: groups of every GroupNorm.
        slope: negative slope of the leaky ReLU.
        head: kernel of the last convolution. What makes whole patches of pixels from one position
            needs none wider than 1.
        shortcuts: of each `Block`.
        detail: channels that come past the encoder, at the resolution of the last block.
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        widths: Sequence[int],
        strides: Sequence[int],
        groups: int = 8,
        slope: float = 0.2,
        *,
        head: int = 3,
        shortcuts: bool = False,
        detail: int = 0,
    ) -> None:
        super().__init__()
        _check(widths, strides, groups)
        outputs = tuple(reversed(widths))
        self.blocks = nn.Sequential(
            *(
                Block(
                    nn.ConvTranspose2d(before, width, 3, 1, 1),
                    # With the stride on the second, both work at the lower resolution.
                    nn.ConvTranspose2d(width, width, 3, stride, 1, stride - 1, bias=False),
                    nn.GroupNorm(groups, width),
                    nn.LeakyReLU(slope),
                    shortcut=shortcuts,
                )
                for before, width, stride in zip(
                    (inputs, *outputs[:-1]), outputs, reversed(strides), strict=True
                )
            )
        )
        width = outputs[-1]
        self.join = nn.Conv2d(width + detail, width, 3, 1, 1) if detail else None
        self.output = nn.Conv2d(width, channels, head, 1, head // 2)

    def forward(
        self,
        features: Float[Tensor, "b c h w"],
        detail: Float[Tensor, "b d h2 w2"] | None = None,
    ) -> Float[Tensor, "b channels height width"]:
        """Decode feature maps, and detail where there is some, to logits of an output."""
        decoded = self.blocks(features)
        if self.join is not None and detail is not None:
            decoded = F.leaky_relu(self.join(torch.cat([decoded, detail], dim=1)), 0.2)
        return self.output(decoded)


def _check(widths: Sequence[int], strides: Sequence[int], groups: int) -> None:
    if len(widths) != len(strides):
        raise StremnError(
            f"A frame coder needs one stride per block: got {len(widths)} widths and "
            f"{len(strides)} strides."
        )
    odd = [width for width in widths if width % groups]
    if odd:
        raise StremnError(
            f"Every width must be a multiple of the {groups} normalization groups; got {odd}."
        )
    if any(stride not in (1, 2) for stride in strides):
        raise StremnError(f"Strides of a frame coder are 1 or 2; got {tuple(strides)}.")
