"""Recurrent layers of video prediction: ConvLSTM and PredRNN, one step at a time.

The baselines consist of them; our predictor may carry a state of one beside its memory.
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import AfterValidator, Field
from torch import Tensor, nn


def _with_a_middle(kernel: int) -> int:
    if kernel % 2 == 0:
        raise ValueError(f"a kernel must be odd, as 3 or 5, so that it has a middle; got {kernel}")
    return kernel


OddKernel = Annotated[int, Field(gt=0), AfterValidator(_with_a_middle)]
"""Width of a recurrent convolution: odd, so that what comes out is as large as what went in."""


class ConvLSTMCell(nn.Module):
    """Convolutional LSTM (Shi et al. 2015) without peepholes: the four gates in one convolution."""

    def __init__(self, inputs: int, hidden: int, kernel: int, groups: int = 0) -> None:
        super().__init__()
        self.gates = nn.Conv2d(inputs + hidden, 4 * hidden, kernel, padding=kernel // 2)
        self.norm = nn.GroupNorm(groups, 4 * hidden) if groups else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        hidden: Float[Tensor, "b d h w"],
        cell: Float[Tensor, "b d h w"],
    ) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "b d h w"]]:
        """Return the new hidden state and cell."""
        gates = self.norm(self.gates(torch.cat([x, hidden], dim=1)))
        enter, forget, out, content = gates.chunk(4, dim=1)
        cell = torch.sigmoid(forget + 1) * cell + torch.sigmoid(enter) * torch.tanh(content)
        return torch.sigmoid(out) * torch.tanh(cell), cell


class ConvLSTMStack(nn.Module):
    """Layers of ConvLSTM cells; the features of all layers are read out together."""

    def __init__(self, inputs: int, hidden: int, layers: int, kernel: int, groups: int = 0) -> None:
        super().__init__()
        self.hidden, self.features = hidden, hidden * layers
        self.cells = nn.ModuleList(
            ConvLSTMCell(inputs if i == 0 else hidden, hidden, kernel, groups)
            for i in range(layers)
        )

    def start(self, x: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return zero states for a batch of inputs like x."""
        zero = x.new_zeros(x.shape[0], self.hidden, *x.shape[-2:])
        return [zero] * (2 * len(self.cells))

    def forward(
        self, x: Float[Tensor, "b c h w"], states: list[Tensor]
    ) -> tuple[Float[Tensor, "b features h w"], list[Tensor]]:
        """Return one step: features and new states (hidden, cell of each layer)."""
        after: list[Tensor] = []
        for i, layer in enumerate(self.cells):
            x, cell = layer(x, states[2 * i], states[2 * i + 1])
            after += [x, cell]
        return torch.cat(after[::2], dim=1), after


class SpatioTemporalCell(nn.Module):
    """PredRNN's ST-LSTM: a cell carried in time and a memory carried through the layers."""

    def __init__(self, inputs: int, hidden: int, kernel: int) -> None:
        super().__init__()
        pad = kernel // 2
        self.temporal = nn.Conv2d(inputs + hidden, 3 * hidden, kernel, padding=pad)
        self.spatial = nn.Conv2d(inputs + hidden, 3 * hidden, kernel, padding=pad)
        self.out = nn.Conv2d(inputs + 3 * hidden, hidden, kernel, padding=pad)
        self.mix = nn.Conv2d(2 * hidden, hidden, 1)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        hidden: Float[Tensor, "b d h w"],
        cell: Float[Tensor, "b d h w"],
        memory: Float[Tensor, "b d h w"],
    ) -> tuple[Float[Tensor, "b d h w"], Float[Tensor, "b d h w"], Float[Tensor, "b d h w"]]:
        """Return the new hidden state, cell and memory."""
        enter, forget, content = self.temporal(torch.cat([x, hidden], dim=1)).chunk(3, dim=1)
        cell = torch.sigmoid(forget + 1) * cell + torch.sigmoid(enter) * torch.tanh(content)
        enter, forget, content = self.spatial(torch.cat([x, memory], dim=1)).chunk(3, dim=1)
        memory = torch.sigmoid(forget + 1) * memory + torch.sigmoid(enter) * torch.tanh(content)
        out = torch.sigmoid(self.out(torch.cat([x, hidden, cell, memory], dim=1)))
        return out * torch.tanh(self.mix(torch.cat([cell, memory], dim=1))), cell, memory


class PredRNNStack(nn.Module):
    """PredRNN (Wang et al. 2017): the memory leaves the top layer and enters the bottom one."""

    def __init__(self, inputs: int, hidden: int, layers: int, kernel: int) -> None:
        super().__init__()
        self.hidden, self.features = hidden, hidden
        self.cells = nn.ModuleList(
            SpatioTemporalCell(inputs if i == 0 else hidden, hidden, kernel) for i in range(layers)
        )

    def start(self, x: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return zero states for a batch of inputs like x."""
        zero = x.new_zeros(x.shape[0], self.hidden, *x.shape[-2:])
        return [zero] * (2 * len(self.cells) + 1)

    def forward(
        self, x: Float[Tensor, "b c h w"], states: list[Tensor]
    ) -> tuple[Float[Tensor, "b features h w"], list[Tensor]]:
        """Return one step: features and new states (hidden, cell of each layer, then the
        memory)."""
        memory = states[-1]
        after: list[Tensor] = []
        for i, layer in enumerate(self.cells):
            x, cell, memory = layer(x, states[2 * i], states[2 * i + 1], memory)
            after += [x, cell]
        return x, [*after, memory]
