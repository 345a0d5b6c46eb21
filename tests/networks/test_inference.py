"""A model made ready for a CPU computes what it did before, bit for bit, with the same weights."""

import copy

import pytest
import torch
from timm.layers import Conv2dSame, StdConv2d, StdConv2dSame
from torch import nn
from torch.nn import functional as F

from stremn.memory.reading import ROWS, read
from stremn.memory.state import MemoryState
from stremn.memory.writing import write
from stremn.networks.depthwise import DepthwiseConv, ease_depthwise
from stremn.networks.inference import FusedConv, can_fuse, for_inference, fuse_activations
from stremn.networks.presets import PRESETS, build_model
from stremn.segmentation.aggregation import ABSENT, aggregate, aggregate_fast
from stremn.segmentation.tracks import Track
from tiny_model import tiny_model

fusing = pytest.mark.skipif(
    not can_fuse(torch.float32), reason="no oneDNN in this build of PyTorch"
)
FUSED_TYPES = [x for x in (torch.float32, torch.bfloat16) if can_fuse(x)]
"""What this processor can do."""


def convolutions(model: nn.Module) -> int:
    return sum(isinstance(m, nn.Conv2d | DepthwiseConv) for m in model.modules())


@fusing
@pytest.mark.parametrize("precision", FUSED_TYPES)
def test_the_small_model_computes_the_same_fused(precision: torch.dtype) -> None:
    torch.manual_seed(0)
    model = build_model(PRESETS["small"]).to(precision).eval()
    fast = for_inference(model)
    frames, masks = torch.rand(1, 3, 64, 96).to(precision), torch.rand(2, 2, 64, 96).to(precision)
    with torch.inference_mode():
        plain, fused = model.encode_query(frames), fast.encode_query(frames)
        both = torch.zeros(2, dtype=torch.int64)
        old = model.encode_memory(plain.take(both), masks, 0)
        new = fast.encode_memory(fused.take(both), masks, 0)
    tolerance = {"rtol": 0.02, "atol": 0.05} if precision == torch.bfloat16 else {}
    torch.testing.assert_close(fused.key, plain.key, **tolerance)
    torch.testing.assert_close(fused.stem, plain.stem, **tolerance)
    torch.testing.assert_close(new.value, old.value, **tolerance)
    assert convolutions(model) - convolutions(fast) > 30


@pytest.mark.parametrize("supported", [True, False])
def test_bfloat16_is_fused_only_where_the_processor_has_it(
    supported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    assert can_fuse(torch.bfloat16) == (supported and can_fuse(torch.float32))
    assert not can_fuse(torch.float64)
    model = tiny_model().bfloat16()
    assert (for_inference(model) is model) != can_fuse(torch.bfloat16)


@fusing
def test_weights_are_shared_and_the_model_is_left_as_it_was() -> None:
    model = build_model(PRESETS["small"]).eval()
    before = convolutions(model)
    fast = for_inference(model)
    assert convolutions(model) == before
    assert fast.decoder.logit.weight is model.decoder.logit.weight
    fused = [m for m in fast.modules() if isinstance(m, FusedConv)]
    own = {id(weight) for weight in model.parameters()}
    shared = [m for m in fused if id(m.weight) in own]
    assert len(shared) > len(fused) // 2  # only kernels of uneven padding are new


@fusing
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("groups", [1, 8])
def test_uneven_padding_is_a_kernel_with_zeros_before_it(kernel: int, groups: int) -> None:
    conv = Conv2dSame(8, 8, kernel, stride=2, groups=groups)
    net = nn.Sequential(conv, nn.ReLU6())
    x = torch.randn(2, 8, 16, 24)
    with torch.no_grad():
        expected = net(x)
        fuse_activations(net)
        assert isinstance(net[0], FusedConv)
        torch.testing.assert_close(net(x), expected)


@fusing
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 8, 3, padding=1, groups=4),  # eased: two outputs for each input
        nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 8, 3, padding=2, dilation=(1, 2)),
        nn.Conv2d(4, 8, (1, 3)),
        Conv2dSame(4, 8, (1, 3)),
        Conv2dSame(4, 8, 1, stride=2),
        StdConv2d(4, 8, 3, padding=1),
        StdConv2dSame(4, 8, 3, stride=2, padding="same"),
    ],
    ids=str,
)
def test_convolutions_of_all_kinds_compute_the_same_fused(conv: nn.Conv2d) -> None:
    net, x = nn.Sequential(copy.deepcopy(conv), nn.ReLU()), torch.randn(2, 4, 16, 16)
    with torch.no_grad():
        expected = net(x)
        ease_depthwise(net)
        fuse_activations(net)
        torch.testing.assert_close(net(x), expected)


@fusing
def test_an_activation_that_does_not_follow_at_once_stays() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)
            self.act = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(x + self.conv(x))

    net, x = Residual(), torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        expected = net(x)
        fuse_activations(net)
        torch.testing.assert_close(net(x), expected)


def test_a_model_in_a_type_without_fused_convolutions_is_returned_itself() -> None:
    model = tiny_model().to(torch.float64)
    assert for_inference(model) is model


# ------------------------------------------------------------------------------ aggregation


@pytest.mark.parametrize("objects", [1, 2, 5])
def test_shares_are_the_exponential_of_aggregate(objects: int) -> None:
    torch.manual_seed(objects)
    logits = torch.randn(2, objects, 7, 9) * 6
    logits[0, 0, 0] = torch.tensor([-40.0, 40, 0, -16, 16, -1e-3, 1e-3, 90, -90])
    torch.testing.assert_close(
        aggregate_fast(logits), aggregate(logits).exp(), rtol=2e-4, atol=1e-6
    )


def test_shares_of_an_absent_object_are_zero() -> None:
    logits = torch.tensor([ABSENT, 2.0]).reshape(1, 2, 1, 1)
    assert float(aggregate_fast(logits)[0, 1]) < 1e-6
    assert float(aggregate_fast(logits[:, :1])[0, 1]) < 1e-6


def test_shares_leave_the_logits_as_they_were() -> None:
    logits = torch.randn(1, 2, 4, 4)
    before = logits.clone()
    aggregate_fast(logits)
    aggregate_fast(logits[:, :1])
    assert torch.equal(logits, before)


def _track(model, entries: int) -> Track:  # type: ignore[no-untyped-def]
    state = model.empty_state(entries, 3, (64, 64))
    state = MemoryState(
        **{
            **state.tensors(),
            "keys": torch.randn_like(state.keys),
            "values": torch.randn_like(state.values),
            "written_at": torch.arange(3).expand(entries, 3),
        },
        filled=3,
    )
    return Track(state, torch.zeros(entries, dtype=torch.int64), torch.arange(1, entries + 1))


@pytest.mark.parametrize("entries", [1, 3])
def test_segment_is_recall_as_probabilities(entries: int) -> None:
    torch.manual_seed(0)
    model = tiny_model()
    track = _track(model, entries)
    with torch.no_grad():
        query = model.encode_query(torch.rand(1, 3, 64, 64))
        expected = track.recall(model, query, 1, entries).exp()
        torch.testing.assert_close(track.segment(model, query), expected, rtol=2e-4, atol=1e-6)


# ------------------------------------------------------------------------------ memory in place


def test_a_write_that_reuses_the_state_gives_the_same_in_the_same_tensors() -> None:
    torch.manual_seed(0)
    model = tiny_model()
    track = _track(model, 2)
    masks = torch.rand(2, 2, 64, 64)
    with torch.no_grad():
        query = model.encode_query(torch.rand(1, 3, 64, 64)).take(track.video)
        template = model.encode_memory(query, masks, 7)
        policy = model.policies["learned"]
        kept, _ = write(track.state, template, policy)
        assert not torch.equal(kept.keys, track.state.keys)  # something was written,
        storage = track.state.keys.data_ptr()  # and the old state is as it was
        reused, choice = write(track.state, template, policy, reuse=True)
    assert reused.keys.data_ptr() == storage
    for name, tensor in kept.tensors().items():
        assert torch.equal(getattr(reused, name), tensor), name
    assert choice.replace.sum().item() == 2


def test_blocks_of_a_read_join_to_the_whole() -> None:
    """More positions than one block holds, slots partly empty, two entries unlike each other."""
    torch.manual_seed(0)
    h, w = 17, 23
    assert h * w > ROWS
    state = MemoryState.empty(2, 4, (h, w), key=5, value=6, update_key=5)
    held = torch.tensor([[0, 1, -1, -1], [0, -1, 1, -1]])
    state = MemoryState(
        **{
            **state.tensors(),
            "keys": torch.randn_like(state.keys),
            "values": torch.randn_like(state.values),
            "written_at": held,
        },
        filled=4,
    )
    query = torch.randn(2, h, w, 5)
    found = read(state, query)
    for i, slots in enumerate(([0, 1], [0, 2])):
        keys = state.keys[i, slots].reshape(-1, 5)
        values = state.values[i, slots].reshape(-1, 6)
        weights = F.softmax(query[i].reshape(-1, 5) @ keys.T / 5**0.5, -1)
        torch.testing.assert_close(found[i].reshape(-1, 6), weights @ values)
