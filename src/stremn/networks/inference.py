"""Make a model faster on a CPU: the same weights and results, fewer passes over memory.

On a CPU most layers of a small network are limited by memory bandwidth. Two costs are saved:

- An activation after a convolution is applied while the result is still in registers (oneDNN's
  fused convolution), instead of in a pass of its own.
- "Same" padding with stride 2 needs one more row and column below and right than above and left,
  which costs a padded copy of the input. A kernel with a row and a column of zeros before its
  weights, under even padding, gives the same sums without the copy.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from jaxtyping import Float
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from stremn.networks.depthwise import DepthwiseConv, is_plain

Module = TypeVar("Module", bound=nn.Module)

ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.Identity: ("none", []),
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}
"""oneDNN's name and numbers of each activation that can be fused."""


def for_inference(model: Module) -> Module:
    """Return a model that shares `model`'s weights and computes the same, faster.

    Only CPUs have something to gain; for other devices, and number types or builds of PyTorch
    without fused convolutions, this is `model` itself. Frames must have sides that are multiples
    of 16, as everywhere.
    """
    weight = next(model.parameters())
    if weight.device.type != "cpu" or not can_fuse(weight.dtype):
        return model
    shared = {id(x): x for x in (*model.parameters(), *model.buffers())}
    fast = copy.deepcopy(model, shared).eval()
    fuse_activations(fast)
    return fast


def placed(model: Module, device: torch.device, precision: torch.dtype) -> Module:
    """Return the model on the device and in the type to run: itself if possible, else a copy."""
    weight = next(model.parameters())
    same_device = torch.empty(0, device=device).device == weight.device
    if same_device and weight.dtype == precision and not model.training:
        return model
    return copy.deepcopy(model).to(device, precision).eval()


def can_fuse(precision: torch.dtype) -> bool:
    """Return whether this build of PyTorch has oneDNN's fused convolution, and the CPU what it
    needs."""
    try:
        torch.ops.mkldnn._convolution_pointwise  # noqa: B018
        bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    except (AttributeError, RuntimeError):
        return False
    runs = {torch.float32: True, torch.bfloat16: bfloat16}
    return runs.get(precision, False) and torch.backends.mkldnn.is_available()


def fuse_activations(module: nn.Module) -> None:
    """Replace, in place, every convolution that becomes faster by a `FusedConv`.

    The activation is the child that follows the convolution, where that runs right after it: in a
    `Sequential`, or where it took the place of a folded BatchNorm ("bn...").
    """
    children = [*module.named_children(), ("", nn.Identity())]
    for (name, child), (next_name, after) in pairwise(children):
        if not isinstance(child, nn.Conv2d | DepthwiseConv):
            fuse_activations(child)
            continue
        joined = isinstance(module, nn.Sequential) or next_name.startswith("bn")
        activation = after if joined and type(after) in ACTIVATIONS else nn.Identity()
        fused = FusedConv.of(child, activation)
        if fused is not None:
            setattr(module, name, fused)
            if activation is after and next_name:
                setattr(module, next_name, nn.Identity())


class FusedConv(nn.Module):
    """A convolution and the activation after it, in one pass; for inference on CPUs."""

    def __init__(
        self,
        weight: Float[Tensor, "o i kh kw"],
        bias: Float[Tensor, " o"] | None,
        *,
        stride: int,
        padding: int,
        groups: int,
        activation: nn.Module,
    ) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.stride, self.padding, self.groups = [stride] * 2, [padding] * 2, groups
        self.activation, self.numbers = ACTIVATIONS[type(activation)]

    @classmethod
    def of(cls, conv: nn.Conv2d | DepthwiseConv, activation: nn.Module) -> FusedConv | None:
        """Return `conv` and `activation` fused; None if that is not faster."""
        if isinstance(conv, nn.Conv2d) and not _is_simple(conv):
            return None
        kernel = first(tuple(conv.weight.shape[2:]))
        stride, sides = first(conv.stride), first(conv.padding)
        same = isinstance(conv, Conv2dSame) or (isinstance(conv, DepthwiseConv) and conv.same)
        uneven = same and stride == 2
        if (
            kernel is None
            or sides is None
            or stride is None
            or kernel % 2 == 0
            or (same and stride > 2)
            or (uneven and kernel == 1)  # needs no padding at all
        ):
            return None
        if not uneven and isinstance(activation, nn.Identity):
            return None
        padding = (kernel - 1) // 2 if same else sides
        weight = conv.weight
        if uneven:
            weight = nn.Parameter(with_zeros_before(weight.detach()), requires_grad=False)
        return cls(
            weight,
            conv.bias,
            stride=stride,
            padding=padding,
            groups=conv.groups,
            activation=activation,
        )

    def forward(self, x: Float[Tensor, "b i height width"]) -> Float[Tensor, "b o h w"]:
        """Return activation(conv(x))."""
        return torch.ops.mkldnn._convolution_pointwise(
            x,
            self.weight,
            self.bias,
            self.padding,
            self.stride,
            [1, 1],
            self.groups,
            self.activation,
            self.numbers,
            "",
        )


def _is_simple(conv: nn.Conv2d) -> bool:
    """Return whether `conv` applies its own weights, without dilation, and is padded by zeros."""
    return is_plain(conv) and conv.dilation == (1, 1) and conv.padding_mode == "zeros"


def first(sizes: int | str | tuple[int, ...]) -> int | None:
    """Return the size that both directions have; None if it is given by name or they differ."""
    if isinstance(sizes, str):
        return None
    pair = (sizes, sizes) if isinstance(sizes, int) else sizes
    return pair[0] if pair[0] == pair[1] else None


def with_zeros_before(weight: Float[Tensor, "o i k k"]) -> Float[Tensor, "o i l l"]:
    """Return a kernel with a row of zeros above and a column of zeros on the left; l = k + 1."""
    return F.pad(weight, (1, 0, 1, 0)).contiguous(memory_format=torch.channels_last)
