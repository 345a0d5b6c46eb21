"""Depthwise convolutions with a backward pass that is fast on CPUs."""

from __future__ import annotations

from typing import TypeGuard

import torch
from jaxtyping import Float
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn import functional as F


class DepthwiseConv(nn.Module):
    """A depthwise convolution with a backward pass that is fast on CPUs.

    In bfloat16 a CPU takes five to fifty times as long for the gradients of a depthwise
    convolution as for the convolution: for those of the input where there is a stride, and for
    those of weight and bias together, even if only the bias is trained. So each is computed
    alone, and the slow ones in float32. Names and padding are those of the original.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.padding = conv.stride[0], conv.padding
        self.groups = conv.groups
        self.same = isinstance(conv, Conv2dSame)

    def forward(self, x: Float[Tensor, "b c height width"]) -> Float[Tensor, "b c h w"]:
        """Return the convolution of x."""
        if self.same:
            x = pad_same(x, list(self.weight.shape[2:]), [self.stride, self.stride])
        padding = (0, 0) if self.same else self.padding
        if torch.is_grad_enabled() and x.requires_grad:
            return _Depthwise.apply(x, self.weight, self.bias, self.stride, padding)
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, 1, x.shape[1])


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, weight)
        ctx.how = (stride, padding)
        return F.conv2d(x, weight, bias, stride, padding, 1, x.shape[1])

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, weight = ctx.saved_tensors
        stride, padding = ctx.how

        def gradient(which: list[bool], dtype: torch.dtype) -> Tensor:
            results = torch.ops.aten.convolution_backward(
                grad.to(dtype), x.to(dtype), weight.to(dtype), None, [stride] * 2, list(padding),
                [1, 1], False, [0, 0], x.shape[1], which,
            )  # fmt: skip
            return results[which.index(True)]

        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        slow = torch.promote_types(x.dtype, torch.float32)
        quick = x.dtype if stride == 1 else slow
        return (
            gradient([True, False, False], quick).to(x.dtype) if needs_x else None,
            gradient([False, True, False], slow) if needs_weight else None,
            grad.sum(dim=(0, 2, 3), dtype=slow) if needs_bias else None,
            None,
            None,
        )


def ease_depthwise(module: nn.Module) -> None:
    """Replace every depthwise convolution that `DepthwiseConv` supports by one."""
    for name, child in list(module.named_children()):
        if is_plain(child) and _is_simple_depthwise(child):
            setattr(module, name, DepthwiseConv(child))
        else:
            ease_depthwise(child)


def is_plain(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Return whether this is a convolution that applies its weights as they are.

    Subclasses of timm's standardize them first.
    """
    return type(module) in (nn.Conv2d, Conv2dSame)


def _is_simple_depthwise(conv: nn.Conv2d) -> bool:
    """Return whether `DepthwiseConv` supports `conv`: no dilation, no padding by name."""
    return (
        conv.groups == conv.in_channels > 1
        and conv.dilation == (1, 1)
        and conv.stride[0] == conv.stride[1]
        and not isinstance(conv.padding, str)
        and conv.padding_mode == "zeros"
    )
