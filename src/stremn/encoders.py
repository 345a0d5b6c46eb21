"""Section 3.1: the query encoder and the memory encoder, on any timm backbone.

A backbone is cut at strides 4, 8 and 16. The query encoder sees the image. The memory encoder
sees the image and two masks: the object's own soft mask, and the union of the other objects'.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import timm
import torch
from jaxtyping import Float
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stremn.errors import StremnError

STRIDE = 16
"""Pixels to a position of the feature grid; image sides are multiples of it."""

MASKS = 2
"""Mask channels that enter the memory encoder: this object, union of the others."""


@dataclass(frozen=True)
class Pyramid:
    """Features of an image at strides 4, 8 and 16, as a backbone gives them."""

    stride4: Float[Tensor, "b c4 h4 w4"]
    stride8: Float[Tensor, "b c8 h8 w8"]
    stride16: Float[Tensor, "b c16 h w"]

    def take(self, entries: Tensor) -> Pyramid:
        """Return the features of some batch entries, in the order given."""
        return Pyramid(self.stride4[entries], self.stride8[entries], self.stride16[entries])


class Backbone(nn.Module):
    """A convolutional backbone in three parts: image -> stride 4 -> stride 8 -> stride 16."""

    def __init__(
        self,
        stem: nn.Module,
        stage8: nn.Module,
        stage16: nn.Module,
        *,
        channels: tuple[int, int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.stem, self.stage8, self.stage16 = stem, stage8, stage16
        self.channels = channels
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1), persistent=False)

    def normalize(self, frames: Float[Tensor, "b 3 height width"]) -> Tensor:
        """Shift and scale frames in [0, 1] as the backbone was trained with."""
        return (frames - self.mean) / self.std

    def forward(self, frames: Float[Tensor, "b 3 height width"]) -> Pyramid:
        """Return features of frames in [0, 1]; sides are multiples of 16."""
        stride4 = self.stem(self.normalize(frames))
        stride8 = self.stage8(stride4)
        return Pyramid(stride4, stride8, self.stage16(stride8))


def build_backbone(name: str, *, pretrained: bool = False) -> Backbone:
    """Cut the timm model `name` at strides 4, 8 and 16 and fold its BatchNorms, if any.

    `pretrained` asks timm for ImageNet weights, which needs a connection or a filled cache.
    Folded, a frozen BatchNorm costs nothing; models with GroupNorm are left as they are.
    """
    if not timm.is_model(name):
        near = timm.list_models(f"*{name[:6]}*")[:5]
        raise StremnError(f"timm has no backbone {name!r}. Names alike: {', '.join(near) or '-'}.")
    return cut_backbone(timm.create_model(name, pretrained=pretrained).eval())


def cut_backbone(model: nn.Module) -> Backbone:
    """Cut a timm model at strides 4, 8 and 16, folding its BatchNorms."""
    # What timm says of a model: settings it was trained with, and where its features are.
    settings: Any = model.pretrained_cfg
    features: Any = model.feature_info
    name = settings["architecture"]
    modules = dict(_in_order(model, {info["module"] for info in features}))
    cuts = {info["reduction"]: info["module"] for info in features}
    if any(cuts.get(stride) not in modules for stride in (4, 8, 16)):
        raise StremnError(
            f"The backbone {name!r} has no features at strides 4, 8 and 16 to cut at."
        )
    parts: list[nn.Sequential] = [nn.Sequential()]
    for path, module in modules.items():
        parts[-1].add_module(path.replace(".", "_"), module)
        if path in (cuts[4], cuts[8], cuts[16]):
            parts.append(nn.Sequential())
    for part in parts[:3]:
        fold_batch_norms(part)
        ease_depthwise(part)
    width = {info["reduction"]: info["num_chs"] for info in features}
    backbone = Backbone(
        *parts[:3],
        channels=(width[4], width[8], width[16]),
        mean=settings["mean"],
        std=settings["std"],
    )
    _try_out(backbone, name)
    return backbone


@torch.no_grad()
def _try_out(backbone: Backbone, name: str) -> None:
    """Refuse a backbone that does not take every size, or has another layout of features."""
    reason = None
    try:
        tried = backbone(torch.zeros(1, 3, 64, 48))
        found = [tuple(x.shape[1:]) for x in (tried.stride4, tried.stride8, tried.stride16)]
        wanted = [(c, 64 // s, 48 // s) for c, s in zip(backbone.channels, (4, 8, 16), strict=True)]
        if found != wanted:
            reason = f"its features have the shapes {found} where {wanted} are needed"
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0]
    if reason:
        raise StremnError(
            f"The backbone {name!r} cannot be cut: {reason}. Choose a convolutional one."
        )


def _in_order(model: nn.Module, cut_names: set[str]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the model's children in forward order, the members of Sequentials one by one."""
    for name, child in model.named_children():
        inside = [f"{name}.{i}" for i, _ in child.named_children()]
        if isinstance(child, nn.Sequential) and name not in cut_names and inside:
            yield from ((f"{name}.{i}", part) for i, part in child.named_children())
        else:
            yield name, child


def fold_batch_norms(module: nn.Module) -> None:
    """Fold each frozen BatchNorm into the convolution before it, in place.

    timm's BatchNorm carries its activation; the activation stays where the norm was.
    """
    before: tuple[str, nn.Conv2d] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and before is not None:
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
            setattr(module, name, getattr(child, "act", nn.Identity()))
        before = (name, child) if isinstance(child, nn.Conv2d) else None
        fold_batch_norms(child)


class DepthwiseConv(nn.Module):
    """A depthwise convolution with a backward pass that suits CPUs.

    In bfloat16 a CPU takes five to fifty times as long for the gradients of a depthwise
    convolution as for the convolution: for those of the input where there is a stride, and for
    those of weight and bias together, even if only the bias is trained. So each is computed
    alone, and the slow ones in float32. Names and padding are those of the original.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.padding = conv.stride[0], conv.padding
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
    """Put a `DepthwiseConv` in the place of every depthwise convolution it can stand for."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv2d) and _is_plain_depthwise(child):
            setattr(module, name, DepthwiseConv(child))
        else:
            ease_depthwise(child)


def _is_plain_depthwise(conv: nn.Conv2d) -> bool:
    """Whether `DepthwiseConv` knows all that `conv` does: no dilation, no padding by name."""
    return (
        conv.groups == conv.in_channels > 1
        and conv.dilation == (1, 1)
        and conv.stride[0] == conv.stride[1]
        and not isinstance(conv.padding, str)
        and conv.padding_mode == "zeros"
    )


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


class MemoryEncoder(Protocol):
    """Image and masks -> features at stride 16, of `width` channels."""

    width: int

    def __call__(
        self,
        frames: Float[Tensor, "b 3 height width"],
        stem: Float[Tensor, "b c4 h4 w4"],
        masks: Float[Tensor, "b 2 height width"],
    ) -> Float[Tensor, "b c h w"]:
        """Return what is to be projected and stored; `stem` is the query encoder's stride 4."""
        ...

    def measure(
        self,
        frames: Float[Tensor, "b 3 height width"],
        stem: Float[Tensor, "b c4 h4 w4"],
        masks: Float[Tensor, "b 2 height width"],
    ) -> None:
        """Set the standardization from real frames (see `Standardize`)."""
        ...


class FullMemoryEncoder(nn.Module):
    """The paper's (and STM's): a second backbone whose first convolution also sees the masks.

    A convolution over image and masks together is the sum of one over each, before the norm.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone)
        widen_first_convolution(self.backbone.stem, MASKS)
        self.standardize = Standardize(backbone.channels[2])
        self.width = backbone.channels[2]

    def forward(
        self,
        frames: Float[Tensor, "b 3 height width"],
        stem: Float[Tensor, "b c4 h4 w4"],
        masks: Float[Tensor, "b 2 height width"],
    ) -> Float[Tensor, "b c h w"]:
        """Return features of the image under its masks; `stem` is not used."""
        x = torch.cat([self.backbone.normalize(frames), masks], dim=1)
        x = self.backbone.stem(x)
        return self.standardize(self.backbone.stage16(self.backbone.stage8(x)))

    @torch.no_grad()
    def measure(
        self,
        frames: Float[Tensor, "b 3 height width"],
        stem: Float[Tensor, "b c4 h4 w4"],
        masks: Float[Tensor, "b 2 height width"],
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
    """For small models: the query encoder's stem serves both; masks enter at strides 4 and 16.

    At stride 4 the sixteen mask pixels of each position are channels, so no edge is lost.
    """

    def __init__(self, backbone: Backbone, hidden: int = 48) -> None:
        super().__init__()
        c4, _, c16 = backbone.channels
        self.stage8 = copy.deepcopy(backbone.stage8)
        self.stage16 = copy.deepcopy(backbone.stage16)
        self.mask_in = nn.Sequential(
            nn.Conv2d(MASKS * 16, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, c4, 1)
        )
        self.mask_scale = nn.Parameter(torch.ones(1, c4, 1, 1))
        self.standardize = Standardize(c16)
        self.width = c16 + 2 * MASKS
        self.c4 = c4

    def forward(
        self,
        frames: Float[Tensor, "b 3 height width"],
        stem: Float[Tensor, "b c4 h4 w4"],
        masks: Float[Tensor, "b 2 height width"],
    ) -> Float[Tensor, "b c h w"]:
        """Return features under the masks, with the masks' mean and largest value in each cell."""
        features = self.standardize(self._features(stem, masks))
        coarse = [F.avg_pool2d(masks, STRIDE), F.max_pool2d(masks, STRIDE)]
        return torch.cat([features, *(c.to(features.dtype) * 2 - 1 for c in coarse)], dim=1)

    def _features(self, stem: Tensor, masks: Tensor) -> Tensor:
        cells = F.pixel_unshuffle(masks, 4).to(stem.dtype)  # b (2 4 4) h4 w4
        x = stem + self.mask_scale * self.mask_in(cells * 2 - 1)
        return self.stage16(self.stage8(x))

    @torch.no_grad()
    def measure(
        self,
        frames: Float[Tensor, "b 3 height width"],
        stem: Float[Tensor, "b c4 h4 w4"],
        masks: Float[Tensor, "b 2 height width"],
    ) -> None:
        """Set the standardization, and let the masks speak as loudly as the image at stride 4."""
        self.mask_scale.copy_(stem.float().std(dim=(0, 2, 3), keepdim=True))
        self.standardize.measure(self._features(stem, masks))
