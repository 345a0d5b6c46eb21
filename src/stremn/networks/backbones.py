"""Section 3.1: a timm network cut at strides 4, 8 and 16, its BatchNorms folded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import timm
import torch
from huggingface_hub.errors import HfHubHTTPError
from jaxtyping import Float
from timm.layers.norm_act import freeze_batch_norm_2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stremn.core.hardware import is_out_of_memory
from stremn.errors import StremnError
from stremn.networks.depthwise import ease_depthwise, is_plain

STRIDE = 16
"""Pixels to a position of the feature grid; image sides are multiples of it."""


@dataclass(frozen=True)
class Pyramid:
    """Features of an image at strides 4, 8 and 16, as a backbone gives them."""

    stride4: Float[Tensor, "b c4 h4 w4"]
    stride8: Float[Tensor, "b c8 h8 w8"]
    stride16: Float[Tensor, "b c16 h w"]


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

    def normalize(
        self, frames: Float[Tensor, "b 3 height width"]
    ) -> Float[Tensor, "b 3 height width"]:
        """Normalize frames in [0, 1] as in the backbone's training."""
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

    Raises StremnError for a name that timm does not have, weights that cannot be found, and a
    network that cannot be cut.
    """
    if not timm.is_model(name):
        near = timm.list_models(f"*{name[:6]}*")[:5]
        raise StremnError(f"timm has no backbone {name!r}. Names alike: {', '.join(near) or '-'}.")
    try:
        model = timm.create_model(name, pretrained=pretrained)
    except (OSError, RuntimeError, HfHubHTTPError) as error:
        if not pretrained:
            raise
        raise StremnError(
            f"timm cannot get ImageNet weights for {name!r} ({type(error).__name__}). Is there a "
            "connection? Once fetched they stay in the hub's cache. Without one, the small "
            'recipes take theirs from a package (imagenet = "package").'
        ) from error
    return cut_backbone(model.eval())


def cut_backbone(model: nn.Module) -> Backbone:
    """Cut a timm model at strides 4, 8 and 16, folding its BatchNorms or freezing them.

    A BatchNorm in training mode would mix the frames of a batch, and differ between training and
    test.
    """
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
    width = {info["reduction"]: info["num_chs"] for info in features}
    backbone = Backbone(
        *parts[:3],
        channels=(width[4], width[8], width[16]),
        mean=settings["mean"],
        std=settings["std"],
    )
    with norm_inputs(backbone) as inputs:
        _try_out(backbone, name)
    for part in parts[:3]:
        fold_batch_norms(part, inputs)
        freeze_batch_norm_2d(part)  # those that cannot be folded
        ease_depthwise(part)
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
    except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
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


@contextmanager
def norm_inputs(module: nn.Module) -> Iterator[dict[nn.Module, nn.Module]]:
    """Note, while the block runs `module`, which convolution's output each BatchNorm takes.

    The order in which a module names its children does not tell: it may sum them before the norm.
    """
    made: dict[int, tuple[Tensor, nn.Module]] = {}  # a tensor is kept so that its id stays its own
    found: dict[nn.Module, nn.Module] = {}

    def note_output(conv: nn.Module, _: object, output: Tensor) -> None:
        made[id(output)] = output, conv

    def note_input(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs and id(inputs[0]) in made:
            found[norm] = made[id(inputs[0])][1]

    hooks = [
        part.register_forward_hook(note_output)
        if isinstance(part, nn.Conv2d)
        else part.register_forward_pre_hook(note_input)
        for part in module.modules()
        if isinstance(part, nn.Conv2d | nn.BatchNorm2d)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def fold_batch_norms(module: nn.Module, inputs: Mapping[nn.Module, nn.Module]) -> None:
    """Fold each frozen BatchNorm into the convolution before it, in place.

    timm's BatchNorm carries its activation; the activation stays where the norm was. `inputs` are
    those of the norms (`norm_inputs`): one that takes anything else than the convolution's output
    stays, and so does one after a convolution that changes its weights as it runs.
    """
    before: tuple[str, nn.Conv2d] | None = None
    for name, child in list(module.named_children()):
        if (
            isinstance(child, nn.BatchNorm2d)
            and before is not None
            and inputs.get(child) is before[1]
        ):
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
            setattr(module, name, getattr(child, "act", nn.Identity()))
        before = (name, child) if is_plain(child) else None
        fold_batch_norms(child, inputs)
