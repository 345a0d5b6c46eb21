"""Backbones cut at strides 4, 8, 16; depthwise convolutions, standardization, memory encoders."""

import pytest
import timm
import torch
from packaging.version import Version
from timm.layers import Conv2dSame, StdConv2d
from torch import nn

from stremn.errors import StremnError
from stremn.networks.backbones import (
    Backbone,
    build_backbone,
    cut_backbone,
    fold_batch_norms,
    norm_inputs,
)
from stremn.networks.depthwise import DepthwiseConv, ease_depthwise
from stremn.networks.encoders import (
    FullMemoryEncoder,
    QueryEncoder,
    SharedStemMemoryEncoder,
    Standardize,
    widen_first_convolution,
)
from tiny_model import MEAN, STD, tiny_backbone

CUT = [
    "tf_efficientnet_lite0",
    "resnet50_gn",
    "resnet18",
    "test_resnet",
    "test_efficientnet",
    "test_convnext",
    "repvit_m0_9",  # one norm comes after a convolution, but takes the sum with another
]


def stirred(model: nn.Module) -> nn.Module:
    """Give every BatchNorm statistics and weights that matter."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return model.eval()


@pytest.mark.parametrize("name", CUT)
def test_a_cut_backbone_gives_what_timm_gives(name: str) -> None:
    model = stirred(timm.create_model(name))
    whole = timm.create_model(name, features_only=True, out_indices=None).eval()
    strides = whole.feature_info.reduction()
    missing, _ = whole.load_state_dict(model.state_dict(), strict=False)
    if missing:  # timm's feature extractor names flattened children with underscores
        renamed = dict(zip(whole.state_dict(), model.state_dict().values(), strict=False))
        missing, _ = whole.load_state_dict(renamed, strict=True)
    assert not missing
    frames = torch.rand(2, 3, 64, 96)
    backbone = cut_backbone(model)
    with torch.no_grad():
        features = dict(zip(strides, whole(backbone.normalize(frames)), strict=True))
        pyramid = backbone(frames)
    found = {4: pyramid.stride4, 8: pyramid.stride8, 16: pyramid.stride16}
    for (stride, ours), channels in zip(found.items(), backbone.channels, strict=True):
        assert ours.shape == (2, channels, 64 // stride, 96 // stride)
        scale = float(features[stride].abs().max())
        torch.testing.assert_close(ours, features[stride], rtol=0, atol=2e-5 * max(1.0, scale))


def test_no_batch_norm_is_left() -> None:
    backbone = build_backbone("tf_efficientnet_lite0")
    assert not [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m for m in backbone.modules() if isinstance(m, DepthwiseConv)]


@pytest.mark.parametrize("name", ["repvgg_a0", "resnetv2_50"])
def test_batch_norms_that_cannot_be_folded_are_frozen(name: str) -> None:
    """Else features of a frame would depend on the other frames of its batch, in training."""
    backbone = build_backbone(name)
    frames = torch.rand(2, 3, 64, 48)
    before = {key: x.clone() for key, x in backbone.state_dict().items()}
    with torch.no_grad():
        tested, trained = backbone.eval()(frames), backbone.train()(frames)
    torch.testing.assert_close(trained.stride16, tested.stride16, rtol=0, atol=0)
    assert all(torch.equal(x, before[key]) for key, x in backbone.state_dict().items())


def test_group_norm_is_left_as_it_is() -> None:
    norms = [m for m in build_backbone("resnet50_gn").modules() if isinstance(m, nn.GroupNorm)]
    assert norms
    assert {norm.num_groups for norm in norms} == {32}


def test_frames_are_shifted_and_scaled_as_the_backbone_was_trained_with() -> None:
    backbone = tiny_backbone()
    frames = torch.rand(1, 3, 16, 16)
    for channel in range(3):
        expected = (frames[:, channel] - MEAN[channel]) / STD[channel]
        torch.testing.assert_close(backbone.normalize(frames)[:, channel], expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5000", r"timm has no backbone 'resnet5000'\. Names alike: .*resnet50"),
        ("zzz", r"no backbone 'zzz'\. Names alike: -\."),
        ("test_vit", "'test_vit' has no features at strides 4, 8 and 16"),
        (
            "test_mambaout",
            r"'test_mambaout' cannot be cut: its features have the shapes \[\(16, 12",
        ),
        pytest.param(
            "test_maxvit",
            "'test_maxvit' cannot be cut: .*divisible.* Choose a convolutional one",
            marks=pytest.mark.skipif(
                Version(timm.__version__) < Version("1.0.31"), reason="timm has it from 1.0.31 on"
            ),
        ),
    ],
)
def test_names_that_do_not_serve_are_refused(name: str, message: str) -> None:
    with pytest.raises(StremnError, match=message):
        build_backbone(name)


@pytest.mark.usefixtures("unchecked")
def test_a_backbone_whose_parts_give_lists_is_refused() -> None:
    with pytest.raises(StremnError, match="'selecsls42b' cannot be cut: 'list' object has no"):
        build_backbone("selecsls42b")


@torch.no_grad()
def folded(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Fold the norms of a block; return what it made of x before."""
    with norm_inputs(block) as inputs:
        expected = block(x)
    fold_batch_norms(block, inputs)
    return expected


def test_a_norm_is_folded_into_the_convolution_before_it() -> None:
    block = stirred(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    x = torch.randn(2, 3, 8, 8)
    expected = folded(block, x)
    assert isinstance(block[1], nn.Identity)
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


def test_a_norm_without_a_convolution_before_it_stays() -> None:
    block = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4))
    folded(block, torch.randn(2, 3, 8, 8))
    assert isinstance(block[0], nn.BatchNorm2d)
    assert isinstance(block[3], nn.BatchNorm2d)


class Summed(nn.Module):
    """Its norm takes the sum of two convolutions, as in RepViT."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.one(x) + self.other(x))


@pytest.mark.parametrize("kind", ["sum", "standardized weights"])
def test_a_norm_is_folded_only_where_that_changes_nothing(kind: str) -> None:
    standardized = nn.Sequential(StdConv2d(3, 4, 3), nn.BatchNorm2d(4))
    block, x = stirred(Summed() if kind == "sum" else standardized), torch.randn(2, 3, 8, 8)
    expected = folded(block, x)
    assert [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(block(x), expected, rtol=0, atol=0)


# ---------------------------------------------------------------------- depthwise convolution


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
@pytest.mark.parametrize("bias", [True, False])
def test_depthwise_gradients_are_those_of_autograd(stride: int, kind: type, bias: bool) -> None:
    padding = 1 if kind is nn.Conv2d else 0
    conv = kind(4, 4, 3, stride=stride, padding=padding, groups=4, bias=bias).double()
    eased = DepthwiseConv(conv)
    x = torch.randn(2, 4, 7, 6, dtype=torch.float64, requires_grad=True)
    wanted = [x, *conv.parameters()]
    weight = torch.randn_like(conv(x))
    expected = torch.autograd.grad((conv(x) * weight).sum(), wanted)
    found = torch.autograd.grad((eased(x) * weight).sum(), wanted)
    torch.testing.assert_close(eased(x), conv(x), rtol=0, atol=0)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_frozen_depthwise_weight_gets_no_gradient() -> None:
    eased = DepthwiseConv(nn.Conv2d(4, 4, 3, padding=1, groups=4))
    eased.weight.requires_grad_(False)
    eased(torch.randn(1, 4, 5, 5, requires_grad=True)).sum().backward()
    assert eased.weight.grad is None
    assert eased.bias is not None
    assert eased.bias.grad is not None


def test_only_plain_depthwise_convolutions_are_replaced() -> None:
    kept = [
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(1, 4, 3),
        nn.Conv2d(4, 4, 3, groups=4, dilation=2),  # its backward pass is not ours
        nn.Conv2d(4, 4, 3, groups=4, padding="same"),
        StdConv2d(4, 4, 3, groups=4),  # standardizes its weights
    ]
    block = nn.Sequential(*kept, nn.Conv2d(4, 4, 3, groups=4))
    ease_depthwise(block)
    assert list(block)[:6] == kept
    assert isinstance(block[6], DepthwiseConv)


def test_names_of_weights_stay_when_depthwise_convolutions_are_replaced() -> None:
    block = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4))
    before = list(block.state_dict())
    ease_depthwise(block)
    assert list(block.state_dict()) == before


# ----------------------------------------------------------------------------- standardization


def test_standardized_features_have_mean_0_and_deviation_1() -> None:
    layer = Standardize(3)
    features = torch.randn(4, 3, 8, 8) * torch.tensor([1.0, 50.0, 0.1]).reshape(1, 3, 1, 1) + 7
    layer.measure(features)
    std, mean = torch.std_mean(layer(features), dim=(0, 2, 3))
    torch.testing.assert_close(mean, torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(std, torch.ones(3), rtol=0, atol=1e-4)


def test_a_channel_that_never_changes_stays_finite() -> None:
    layer = Standardize(1)
    layer.measure(torch.full((2, 1, 4, 4), 3.0))
    assert layer(torch.full((1, 1, 4, 4), 3.0)).abs().max() < 1e-3


def test_the_query_encoder_standardizes_all_strides_and_gives_the_raw_stem() -> None:
    encoder = QueryEncoder(tiny_backbone())
    frames = torch.rand(3, 3, 64, 64)
    encoder.measure(frames)
    pyramid, stem = encoder(frames)
    torch.testing.assert_close(stem, encoder.backbone(frames).stride4)
    raw = encoder.backbone(frames)
    for name in ("stride4", "stride8", "stride16"):
        alive = getattr(raw, name).std(dim=(0, 2, 3)) > 0.01  # in a random network some are dead
        assert alive.any()
        std = getattr(pyramid, name).std(dim=(0, 2, 3))[alive]
        torch.testing.assert_close(std, torch.ones_like(std), rtol=0, atol=1e-2)


# ------------------------------------------------------------------------------ memory encoders


def test_a_wide_first_convolution_is_the_sum_of_one_over_image_and_one_over_masks() -> None:
    stem = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.ReLU())
    old = stem[0]
    widen_first_convolution(stem, 2)
    new = stem[0]
    image, masks = torch.randn(2, 3, 8, 8), torch.randn(2, 2, 8, 8)
    over_masks = nn.functional.conv2d(masks, new.weight[:, 3:], None, 2, 1)
    torch.testing.assert_close(new(torch.cat([image, masks], 1)), old(image) + over_masks)
    torch.testing.assert_close(new(torch.cat([image, 0 * masks], 1)), old(image))


@pytest.mark.parametrize("kind", [FullMemoryEncoder, SharedStemMemoryEncoder])
def test_memory_encoders_see_both_masks_and_have_the_width_they_say(kind: type) -> None:
    backbone = tiny_backbone()
    encoder = kind(backbone)
    frames, masks = torch.rand(2, 3, 64, 64), torch.rand(2, 2, 64, 64)
    stem = backbone(frames).stride4
    encoder.measure(frames, stem, torch.zeros_like(masks))
    whole = encoder(frames, stem, masks)
    assert whole.shape == (2, encoder.width, 4, 4)
    for channel in range(2):
        other = masks.clone()
        other[:, channel] = 1 - other[:, channel]
        assert not torch.allclose(encoder(frames, stem, other), whole)


def test_a_second_backbone_is_a_copy() -> None:
    backbone: Backbone = tiny_backbone()
    full, shared = FullMemoryEncoder(backbone), SharedStemMemoryEncoder(backbone)
    ours = {id(weight) for weight in backbone.parameters()}
    for encoder in (full, shared):
        assert not ours & {id(weight) for weight in encoder.parameters()}


def test_the_small_encoder_hands_on_the_masks_coverage_of_each_cell() -> None:
    backbone = tiny_backbone()
    encoder = SharedStemMemoryEncoder(backbone)
    frames, masks = torch.rand(1, 3, 32, 32), torch.zeros(1, 2, 32, 32)
    masks[:, 0, :16, :8] = 1  # half of the first cell
    masks[:, 1, 16:, 16:] = 1  # all of the last
    found = encoder(frames, backbone(frames).stride4, masks)[0, -4:]
    mean, largest = found[:2], found[2:]
    torch.testing.assert_close(mean[0], torch.tensor([[0.0, -1.0], [-1.0, -1.0]]))
    torch.testing.assert_close(mean[1], torch.tensor([[-1.0, -1.0], [-1.0, 1.0]]))
    torch.testing.assert_close(largest[0], torch.tensor([[1.0, -1.0], [-1.0, -1.0]]))


def test_weights_that_cannot_be_fetched_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to the hub")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(
        StremnError, match=r"ImageNet weights for 'resnet18' \(OSError\).*connection"
    ):
        build_backbone("resnet18", pretrained=True)


def test_memory_that_runs_out_is_not_the_backbones_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def starved(*_: object) -> torch.Tensor:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(torch.nn.Conv2d, "forward", starved)
    with pytest.raises(RuntimeError, match="could not create a primitive") as caught:
        build_backbone("tf_efficientnet_lite0")
    assert not isinstance(caught.value, StremnError)
