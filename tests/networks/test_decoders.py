"""From what was read to logits: ASPP, refinement, skips."""

import pytest
import torch
from torch import nn

from stremn.networks.decoders import AtrousPyramid, MaskDecoder, Refine, ResidualBlock


def test_a_fresh_residual_block_is_the_identity() -> None:
    x = torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(ResidualBlock(4)(x), x)


def test_a_residual_block_is_stms() -> None:
    block = ResidualBlock(3)
    nn.init.normal_(block.conv2.weight)
    x = torch.randn(1, 3, 6, 6)
    expected = x + block.conv2(block.conv1(x.relu()).relu())
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("separable", [True, False])
def test_the_pyramid_sees_as_far_as_its_largest_rate(separable: bool) -> None:
    pyramid = AtrousPyramid(3, 4, rates=(1, 5), separable=separable)
    with torch.no_grad():  # so that no ReLU is shut
        for weight in pyramid.parameters():
            weight.abs_()
    x = torch.rand(1, 3, 15, 15, requires_grad=True)
    pyramid(x)[0, :, 7, 7].sum().backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(0) > 0
    expected = torch.zeros(15, 15, dtype=torch.bool)
    for rate in (1, 5):
        for dy in (-rate, 0, rate):
            for dx in (-rate, 0, rate):
                expected[7 + dy, 7 + dx] = True
    assert torch.equal(seen, expected)


def test_refine_doubles_the_resolution_and_adds_the_skip() -> None:
    refine, x, skip = Refine(4, 6, skip=2), torch.randn(2, 4, 3, 5), torch.randn(2, 6, 6, 10)
    assert refine(x, None).shape == (2, 6, 6, 10)
    torch.testing.assert_close(refine(x, skip), refine(x, None) + skip)


def decoder(skips: tuple[int, int] | None) -> MaskDecoder:
    return MaskDecoder(7, (8, 6, 4), skips=skips, rates=(1, 2))


def test_logits_are_at_stride_4() -> None:
    assert decoder(None)(torch.randn(3, 7, 4, 6), (None, None)).shape == (3, 1, 16, 24)


def test_without_skips_nothing_comes_from_the_encoder() -> None:
    """Section 3.3: "the decoder receives information from the encoder only through the memory"."""
    features = (torch.randn(1, 5, 16, 24), torch.randn(1, 9, 8, 12))
    assert decoder(None).skip_features(*features) == (None, None)


def test_skips_reach_the_logits_and_one_frame_serves_all_objects() -> None:
    model = decoder((5, 9))
    skips = model.skip_features(torch.randn(1, 5, 16, 24), torch.randn(1, 9, 8, 12))
    assert skips[0] is not None
    assert skips[1] is not None
    assert skips[0].shape == (1, 6, 8, 12)
    assert skips[1].shape == (1, 4, 16, 24)
    x = torch.randn(3, 7, 4, 6)
    with_skips = model(x, skips)
    assert with_skips.shape == (3, 1, 16, 24)
    assert not torch.allclose(with_skips, model(x, (None, None)))
    copied = (skips[0].expand(3, -1, -1, -1), skips[1].expand(3, -1, -1, -1))
    torch.testing.assert_close(model(x, copied), with_skips)
