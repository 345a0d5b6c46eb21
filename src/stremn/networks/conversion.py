"""Convert the official checkpoints of STM and STCN to models of this package.

A checkpoint is a table of tensors under the names of the official code. The expected tensors follow
from the network here and a table of names. Nothing else is accepted, and every tensor is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from stremn.core.weights import read_pickled
from stremn.errors import StremnError
from stremn.networks.backbones import Backbone, cut_backbone
from stremn.networks.encoders import MASKS
from stremn.networks.model import STReMN
from stremn.networks.presets import PRESETS, build_model
from stremn.networks.pretrained import Pretrained
from stremn.networks.published import FusingMemoryEncoder, PlainMemoryEncoder
from stremn.networks.working_size import IMAGENET_MEAN

IMAGENET_STD = (0.229, 0.224, 0.225)
BATCH_NORM_EPS = 1e-5
COUNT = "num_batches_tracked"
"""A BatchNorm's counter: training's alone, and not in every checkpoint."""
WRAPPERS = ("module.",)
"""What PyTorch's wrappers put before every name."""
STATIC = "value_encoder.conv1.weight"
"""Where STCN's checkpoint from static images has four channels: no other objects' mask."""


@dataclass(frozen=True)
class ResNet:
    """A ResNet in a checkpoint: its timm name, its prefix, and how its stages are called.

    `masks` are the names of first convolutions over one mask each, summed with that over the
    image; none: the first convolution itself has mask channels, if `wide`. `biased`: its
    convolutions have biases, before their BatchNorms.
    """

    timm_name: str
    prefix: str
    stages: tuple[str, str, str]
    masks: tuple[str, ...] = ()
    wide: bool = False
    biased: bool = False
    normalizes: bool = False


@dataclass(frozen=True, eq=False)
class Official:
    """A family of checkpoints: its preset, its ResNets, and the names of its other tensors.

    `names` maps prefixes here to prefixes there. `logits` is the number of the last convolution's
    outputs: of two, "not the object" and "the object", a softmax sees only the difference.
    """

    title: str
    preset: str
    query: ResNet
    memory: ResNet
    names: Mapping[str, str]
    logits: int


STM = Official(
    title="STM",
    preset="stm",
    query=ResNet("resnet50", "Encoder_Q", ("res2", "res3", "res4"), normalizes=True),
    memory=ResNet(
        "resnet50",
        "Encoder_M",
        ("res2", "res3", "res4"),
        masks=("conv1_m", "conv1_o"),
        normalizes=True,
    ),
    names={
        "query_key.conv": "KV_Q_r4.Key",
        "query_value.conv": "KV_Q_r4.Value",
        "memory_key.conv": "KV_M_r4.Key",
        "memory_value.conv": "KV_M_r4.Value",
        "decoder.compress.0": "Decoder.convFM",
        "decoder.compress.1": "Decoder.ResMM",
        "decoder.refine8.skip.0": "Decoder.RF3.convFS",
        "decoder.refine8.skip.1": "Decoder.RF3.ResFS",
        "decoder.refine8.block": "Decoder.RF3.ResMM",
        "decoder.refine4.skip.0": "Decoder.RF2.convFS",
        "decoder.refine4.skip.1": "Decoder.RF2.ResFS",
        "decoder.refine4.block": "Decoder.RF2.ResMM",
        "decoder.logit": "Decoder.pred2",
    },
    logits=2,
)
STCN = Official(
    title="STCN",
    preset="stcn",
    query=ResNet("resnet50", "key_encoder", ("res2", "layer2", "layer3")),
    memory=ResNet(
        "resnet18", "value_encoder", ("layer1", "layer2", "layer3"), wide=True, biased=True
    ),
    names={
        "query_key.conv": "key_proj.key_proj",
        "query_value.conv": "key_comp",
        "memory_encoder.join": "value_encoder.fuser.block1",
        "memory_encoder.attention.channel.0": "value_encoder.fuser.attention.ChannelGate.mlp.1",
        "memory_encoder.attention.channel.2": "value_encoder.fuser.attention.ChannelGate.mlp.3",
        "memory_encoder.attention.position": (
            "value_encoder.fuser.attention.SpatialGate.spatial.conv"
        ),
        "memory_encoder.refine": "value_encoder.fuser.block2",
        "decoder.compress": "decoder.compress",
        "decoder.refine8.skip": "decoder.up_16_8.skip_conv",
        "decoder.refine8.block": "decoder.up_16_8.out_conv",
        "decoder.refine4.skip": "decoder.up_8_4.skip_conv",
        "decoder.refine4.block": "decoder.up_8_4.out_conv",
        "decoder.logit": "decoder.pred",
    },
    logits=1,
)
FAMILIES = (STM, STCN)


def convert(source: str | Path) -> Pretrained:
    """Return the model that an official checkpoint of STM or STCN holds; no code in it can run.

    Raises:
        StremnError: no such file, one that cannot be read, or the checkpoint of another network;
            the sentence says what was expected and what was found.
    """
    path = Path(source)
    if not path.is_file():
        raise StremnError(f"There is no checkpoint {path}.")
    tensors = read_pickled(path, str(path), "Expected an official checkpoint of STM or STCN.")
    return from_official(tensors, str(path))


def from_official(tensors: Mapping[str, Tensor], name: str) -> Pretrained:
    """Return the model of official tensors by name; `name` says in errors whose they are.

    Raises StremnError if they are not those of STM or STCN, all of them and no others.
    """
    tensors = {_unwrapped(key): x.float() for key, x in tensors.items()}
    family = _family(tensors, name)
    _check(tensors, family, name)
    config = PRESETS[family.preset]
    query = _backbone(tensors, family.query)
    second = _backbone(tensors, family.memory)
    model = build_model(config, query, second)
    encoder = cast(PlainMemoryEncoder | FusingMemoryEncoder, model.memory_encoder)
    _fill_wide(encoder.backbone, second, tensors, family.memory)
    rest = {ours: tensors[theirs] for ours, theirs in _rest(model, family).items()}
    if family.logits == 2:
        rest = {k: x[1:] - x[:1] if k.startswith("decoder.logit.") else x for k, x in rest.items()}
    backbones = {name: x for name, x in model.state_dict().items() if _of_backbone(name)}
    model.load_state_dict(backbones | rest)  # strict: whatever else the model has must be in `rest`
    return Pretrained(model.eval().requires_grad_(False), config)


def layout(family: Official) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a family's checkpoint, by its official name."""
    with torch.device("meta"):
        model = _blank(family)
        shapes = {
            **_resnet_shapes(family.query),
            **_resnet_shapes(family.memory),
        }
    own = model.state_dict()
    for ours, theirs in _rest(model, family).items():
        shape = tuple(own[ours].shape)
        if ours.startswith("decoder.logit."):
            shape = (family.logits, *shape[1:])
        shapes[theirs] = shape
    return shapes


def _unwrapped(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _family(tensors: Mapping[str, Tensor], name: str) -> Official:
    """Recognize the family of a checkpoint by its two encoders."""
    for family in FAMILIES:
        if any(key.startswith((family.query.prefix, family.memory.prefix)) for key in tensors):
            return family
    some = ", ".join(list(tensors)[:3]) or "none"
    raise StremnError(
        f"{name} is not a checkpoint of STM or STCN: expected tensors such as "
        f"{STM.query.prefix}.conv1.weight or {STCN.query.prefix}.conv1.weight, got {some}. "
        "Those are the networks whose weights can be converted."
    )


def _check(tensors: Mapping[str, Tensor], family: Official, name: str) -> None:
    """Refuse tensors that are missing, unknown, or of another shape or normalization."""
    wanted = layout(family)
    if family is STCN and STATIC in tensors and tensors[STATIC].shape[1:2] == (4,):
        raise StremnError(
            f"{name} is STCN's checkpoint from static images: its {STATIC} has 4 input channels "
            "where video training has 5, one of them for the other objects. Take the checkpoint "
            "of the last stage, stcn.pth."
        )
    missing = [key for key in wanted if key not in tensors and not key.endswith(COUNT)]
    unknown = [key for key in tensors if key not in wanted]
    for what, keys in (("lacks", missing), ("has besides", unknown)):
        if keys:
            raise StremnError(
                f"{name} is not the whole checkpoint of {family.title} or not of it alone: it "
                f"{what} {_few(keys)}. Expected the {len(wanted)} tensors of the official file."
            )
    for key, x in tensors.items():
        if tuple(x.shape) != wanted[key]:
            raise StremnError(
                f"{name} has another width than the published {family.title}: {key} has the "
                f"shape {_by(x.shape)}, expected {_by(wanted[key])}."
            )
        if key.endswith((".mean", ".std")):
            usual = IMAGENET_MEAN if key.endswith(".mean") else IMAGENET_STD
            if not torch.allclose(x.flatten().double(), torch.tensor(usual).double(), atol=1e-6):
                raise StremnError(
                    f"{name} normalizes images with other numbers than ImageNet's: {key} is "
                    f"{x.flatten().tolist()}, expected {list(usual)}."
                )


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _by(shape: tuple[int, ...] | torch.Size) -> str:
    return "x".join(map(str, shape)) or "()"


def _blank(family: Official) -> STReMN:
    """Build the network with the smallest possible backbones."""
    config = PRESETS[family.preset]

    def stand_in(net: ResNet) -> Backbone:
        described: Any = _timm(net).feature_info
        c4, c8, c16 = (info["num_chs"] for info in described[1:4])
        stem = nn.Sequential(nn.Conv2d(3, c4, 1))
        parts = nn.Identity(), nn.Identity()
        return Backbone(stem, *parts, channels=(c4, c8, c16), mean=IMAGENET_MEAN, std=IMAGENET_STD)

    return build_model(config, stand_in(family.query), stand_in(family.memory))


def _timm(net: ResNet) -> nn.Module:
    return timm.create_model(net.timm_name)


def _official_names(model: nn.Module, net: ResNet) -> dict[str, str]:
    """Map names of a timm ResNet's tensors to official names, up to stride 16."""
    renamed = {f"layer{i}": stage for i, stage in enumerate(net.stages, start=1)}
    found = {}
    for name in model.state_dict():
        head, _, tail = name.partition(".")
        if head in ("conv1", "bn1", *renamed):
            found[name] = f"{net.prefix}.{renamed.get(head, head)}.{tail}"
    return found


def _conv_biases(model: nn.Module, net: ResNet) -> dict[str, str]:
    """Map official names of convolutions' biases to timm's names of the BatchNorms after them."""
    if not net.biased:
        return {}
    official = _official_names(model, net)
    found = {}
    for name, theirs in official.items():
        if isinstance(model.get_submodule(name.rpartition(".")[0]), nn.Conv2d):
            norm = name.removesuffix(".weight").replace("conv", "bn").replace("ple.0", "ple.1")
            found[theirs.removesuffix("weight") + "bias"] = norm
    return found


def _resnet_shapes(net: ResNet) -> dict[str, tuple[int, ...]]:
    model = _timm(net)
    own = model.state_dict()
    shapes = {theirs: tuple(own[n].shape) for n, theirs in _official_names(model, net).items()}
    for bias, norm in _conv_biases(model, net).items():
        shapes[bias] = tuple(own[f"{norm}.weight"].shape)
    first = f"{net.prefix}.conv1.weight"
    o, i, *kernel = shapes[first]
    if net.wide:
        shapes[first] = (o, i + MASKS, *kernel)
    shapes |= {f"{net.prefix}.{mask}.weight": (o, 1, *kernel) for mask in net.masks}
    if net.normalizes:
        shapes |= {f"{net.prefix}.{leaf}": (1, 3, 1, 1) for leaf in ("mean", "std")}
    return shapes


def _of_backbone(name: str) -> bool:
    """Return whether `_backbone` or `_fill_wide` fills our tensor of this name."""
    return ".backbone." in name


def _rest(model: STReMN, family: Official) -> dict[str, str]:
    """Map names of our tensors outside the backbones to official names."""
    found = {}
    for name in model.state_dict():
        if _of_backbone(name):
            continue
        module, _, leaf = name.rpartition(".")
        ours = next(ours for ours in family.names if f"{module}.".startswith(f"{ours}."))
        inner = module.removeprefix(ours).replace(".shortcut", ".downsample")
        found[name] = f"{family.names[ours]}{inner}.{leaf}"
    return found


def _backbone(tensors: Mapping[str, Tensor], net: ResNet) -> Backbone:
    """Return a ResNet of a checkpoint, cut and folded; its first convolution sees the image."""
    model = _timm(net)
    own = model.state_dict()
    filled = {n: tensors[t] for n, t in _official_names(model, net).items() if t in tensors}
    filled["conv1.weight"] = filled["conv1.weight"][:, :3]
    for bias, norm in _conv_biases(model, net).items():  # BN(x + b) is BN of x with mean - b
        filled[f"{norm}.running_mean"] = filled[f"{norm}.running_mean"] - tensors[bias]
    model.load_state_dict(own | {n: x for n, x in filled.items() if not n.endswith(COUNT)})
    return cut_backbone(model.eval())


def _fill_wide(
    backbone: Backbone, plain: Backbone, tensors: Mapping[str, Tensor], net: ResNet
) -> None:
    """Fill the memory encoder's backbone: `plain`, and the first convolution's mask channels."""
    weights = plain.state_dict()
    name = next(n for n in weights if n.startswith("stem.") and n.endswith("weight"))
    if net.masks:
        masks = torch.cat([tensors[f"{net.prefix}.{mask}.weight"] for mask in net.masks], dim=1)
    else:
        masks = tensors[f"{net.prefix}.conv1.weight"][:, 3:]
    variance, gain = (tensors[f"{net.prefix}.bn1.{leaf}"] for leaf in ("running_var", "weight"))
    factor = gain / (variance + BATCH_NORM_EPS).sqrt()
    folded = masks * factor[:, None, None, None]
    backbone.load_state_dict(weights | {name: torch.cat([weights[name], folded], dim=1)})
