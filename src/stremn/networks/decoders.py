"""Section 3.3: the decoder, with ASPP and optional skips.

Section 3.3 has no connections from encoder to decoder but the memory read; Section 4.1.1 says
"the same as STM", which has them. Both can be built: `skips` on or off.
"""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Decoder(Protocol):
    """Decode what was read, at stride 16, to one logit per pixel at stride 4."""

    def skip_features(
        self, stride4: Float[Tensor, "b c4 h4 w4"], stride8: Float[Tensor, "b c8 h8 w8"]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the skips for strides 8 and 4: once per frame, for all objects."""
        ...

    def __call__(
        self,
        x: Float[Tensor, "b i h w"],
        skips: tuple[Tensor | None, Tensor | None],
    ) -> Float[Tensor, "b 1 h4 w4"]:
        """Return logits at stride 4."""
        ...


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))), 3x3, without norms, as in STM's decoder.

    Where the block changes the number of channels, x goes through a 3x3 convolution too.
    """

    def __init__(self, channels: int, outputs: int | None = None) -> None:
        super().__init__()
        outputs = channels if outputs is None else outputs
        self.conv1 = nn.Conv2d(channels, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = None if outputs == channels else nn.Conv2d(channels, outputs, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)  # starts as the identity
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
        """Return x with a learned correction."""
        kept = x if self.shortcut is None else self.shortcut(x)
        return kept + self.conv2(F.relu(self.conv1(F.relu(x))))


class AtrousPyramid(nn.Module):
    """ASPP: a 1x1 convolution and dilated 3x3 ones side by side, joined by a 1x1 convolution.

    `separable` makes the dilated ones depthwise after a shared 1x1 reduction, for small models.
    """

    def __init__(
        self, inputs: int, outputs: int, rates: tuple[int, ...] = (2, 4, 8), separable: bool = False
    ) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, outputs, 1)
        source, groups = (outputs, outputs) if separable else (inputs, 1)
        self.from_reduced = separable
        self.branches = nn.ModuleList(
            nn.Conv2d(source, outputs, 3, padding=rate, dilation=rate, groups=groups)
            for rate in rates
        )
        self.join = nn.Conv2d(outputs * (1 + len(rates)), outputs, 1)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        """Return features with several receptive fields around each position."""
        near = self.reduce(x)
        source = F.relu(near) if self.from_reduced else x
        views = [near, *(branch(source) for branch in self.branches)]
        return self.join(F.relu(torch.cat(views, dim=1)))


class Refine(nn.Module):
    """Doubles the resolution, adding a skip if there is one."""

    def __init__(self, inputs: int, outputs: int, skip: int | None) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.skip = nn.Conv2d(skip, outputs, 3, padding=1) if skip else None
        self.block = ResidualBlock(outputs)

    def forward(
        self, x: Float[Tensor, "b i h w"], skip: Float[Tensor, "_ o h2 w2"] | None
    ) -> Float[Tensor, "b o h2 w2"]:
        """Return features at twice the resolution; `skip` has been through `self.skip`."""
        x = F.interpolate(self.narrow(x), scale_factor=2, mode="bilinear", align_corners=False)
        return self.block(x if skip is None else x + skip)


class MaskDecoder(nn.Module):
    """Decode what was read, at stride 16, to one logit per pixel at stride 4."""

    def __init__(
        self,
        inputs: int,
        widths: tuple[int, int, int],
        *,
        skips: tuple[int, int] | None,
        rates: tuple[int, ...] = (2, 4, 8),
        separable: bool = False,
    ) -> None:
        """Build the decoder; `widths` at strides 16, 8, 4, `skips` of the encoder at strides 4
        and 8."""
        super().__init__()
        w16, w8, w4 = widths
        skip4, skip8 = skips or (None, None)
        self.pyramid = AtrousPyramid(inputs, w16, rates, separable)
        self.block = ResidualBlock(w16)
        self.refine8 = Refine(w16, w8, skip8)
        self.refine4 = Refine(w8, w4, skip4)
        self.logit = nn.Conv2d(w4, 1, 3, padding=1)

    def skip_features(
        self, stride4: Float[Tensor, "b c4 h4 w4"], stride8: Float[Tensor, "b c8 h8 w8"]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the skips for strides 8 and 4: once per frame, for all objects."""
        return (
            None if self.refine8.skip is None else self.refine8.skip(stride8),
            None if self.refine4.skip is None else self.refine4.skip(stride4),
        )

    def forward(
        self,
        x: Float[Tensor, "b i h w"],
        skips: tuple[Tensor | None, Tensor | None],
    ) -> Float[Tensor, "b 1 h4 w4"]:
        """Return logits at stride 4."""
        x = self.block(self.pyramid(x))
        x = self.refine8(x, skips[0])
        x = self.refine4(x, skips[1])
        return self.logit(F.relu(x))
