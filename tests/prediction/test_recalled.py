"""Predictors whose memory is read with whole templates that move."""

import pytest
import torch

from stremn.core.config import build
from stremn.errors import StremnError
from stremn.prediction.building import build_predictor
from stremn.prediction.config import PREDICTOR_PRESETS, PredictionConfig
from stremn.prediction.fine_keys import FrameKeys, StackKeys
from stremn.prediction.motion import inside
from stremn.prediction.outputs import copied_over, observed_frame
from tiny_predictor import TINY, clip, tiny_of

MOVED = {"reading": "displacements", "key": 64, "stored": 32}


def small(**changes):
    torch.manual_seed(0)
    fields = TINY.model_dump() | MOVED | changes
    return build_predictor(PredictionConfig(**fields)).eval()


@pytest.mark.parametrize(
    "changes", [{}, {"copied": True}, {"matched": "frames", "stored": 0, "copied": True}]
)
def test_silent_steps_leave_out_predictions_and_change_no_other(changes):
    model, frames = small(**changes), clip()
    every = model.rollout(frames, 8, 3)
    late = model.rollout(frames, 8, 3, 4)
    assert every.first == 4
    assert late.first == every.first + 4
    torch.testing.assert_close(late.frames, every.frames[:, 4:], rtol=1e-4, atol=1e-5)
    assert model.rollout(frames, 8, 3, 99).first == 8  # the last one is never left out


@pytest.mark.parametrize("kind", ["stremn", "convlstm"])
def test_silent_steps_are_those_of_the_baselines_and_of_eq_5_too(kind):
    model, frames = tiny_of(kind), clip()
    every, late = model.rollout(frames, 8, 3), model.rollout(frames, 8, 3, 4)
    assert late.first == every.first + 4
    torch.testing.assert_close(late.frames, every.frames[:, 4:], rtol=1e-4, atol=1e-5)
    last = model.rollout(frames, 8, 3, 99)
    assert (last.first, last.frames.shape[1]) == (8, 3)


@pytest.mark.parametrize("unread", [False, True])
def test_unread_means_that_the_memory_changes_nothing(unread):
    model, frames = small(unread=unread, memory_slots=4), clip()
    other = frames.clone()
    other[:, :4] = torch.rand_like(other[:, :4])
    one, two = (model.rollout(x, 9, 1, 99).frames for x in (frames, other))
    assert torch.allclose(one, two, atol=1e-6) == unread


def test_a_fresh_predictor_recalls_what_a_camera_comes_back_to():
    """Keys of frames need no training: pixels are recalled where the memory has them."""
    torch.manual_seed(0)
    config = PREDICTOR_PRESETS["64-pans"].model_copy(update={"policy": "growing", "growth": 8})
    model = build_predictor(config).eval()
    torch.nn.init.zeros_(model.decoder.output.weight)
    torch.nn.init.zeros_(model.decoder.output.bias)
    model.decoder.output.bias.data[: config.patch**2] = 9.0  # copy wherever there is a copy
    scene = torch.rand(1, 3, 64, 100, generator=torch.Generator().manual_seed(3))
    ways = 4 * torch.minimum(torch.arange(15), torch.arange(15).flip(0))
    frames = torch.stack([scene[..., x : x + 64] for x in ways], dim=1)
    errors = {}
    for unread in (False, True):
        playing = model._with(model.policy, config.model_copy(update={"unread": unread}))
        with torch.no_grad():
            predicted = playing.rollout(frames, 12, 1, 99).frames[:, -1]
        errors[unread] = float((predicted - frames[:, 12])[..., :4].square().mean())
    assert errors[False] < 0.01 < errors[True]


def test_copies_are_laid_over_where_something_was_read():
    drawn = observed_frame(torch.full((1, 1, 1, 3), 0.2), torch.zeros(1, 0, 1, 3))
    copies = torch.tensor([[[0.8, 0.4, 0.0]], [[1.0, 0.5, 0.0]]])[None]
    frame = copied_over(drawn, copies, torch.full((1, 1, 1, 3), 30.0)).frame
    torch.testing.assert_close(frame, torch.tensor([[[[0.8, 0.5, 0.2]]]]))
    none = copied_over(drawn, copies, torch.full((1, 1, 1, 3), -30.0)).frame
    torch.testing.assert_close(none, drawn.frame)


def test_keys_of_stacks_store_the_first_frame_with_an_opacity():
    torch.manual_seed(0)
    keys = StackKeys(3, 8, 2, 2, 4, stride=4, slope=0.2, copied=True)
    stack = torch.rand(2, 3, 1, 16, 16)
    key, query, value, pixels, update_key = keys(stack, stack[:, 0, :0])
    assert (key.shape[1], query.shape[1], value.shape[1], update_key.shape[1]) == (2, 2, 2, 4)
    picture, opacity = pixels.split(1, dim=1)
    assert 0 < opacity.min() < opacity.max() < 1
    torch.testing.assert_close(picture, stack[:, 0] * opacity)
    plain = StackKeys(3, 8, 2, 2, 4, stride=4, slope=0.2)
    assert plain(stack, stack[:, 0, :0])[3].shape[1] == 0


def test_keys_that_are_read_can_be_what_the_learned_rule_compares():
    torch.manual_seed(1)
    model = small(compared="keys", memory_slots=2)
    past = model.empty(1, 16, 16, torch.device("cpu"))
    assert past.memory.update_keys.shape[-1] == 0
    stacks = [torch.rand(1, 3, 1, 16, 16) for _ in range(3)]
    with torch.no_grad():
        for frame, stack in enumerate(stacks[:2]):
            past = model.memorize(past, model.encode_template(stack), frame)
        for again in (0, 1):  # the new one is nearly the stack `again`, which it replaces
            new = model.encode_template((0.9 * stacks[again] + 0.1 * stacks[2]).clamp(0, 1))
            assert model.memorize(past, new, 2).memory.written_at.tolist()[0][again] == 2


@pytest.mark.parametrize(("dilation", "sees"), [(1, 5), (2, 7)])
def test_a_dilation_widens_what_keys_see(dilation, sees):
    keys = StackKeys(3, 8, 2, 2, 4, stride=4, slope=0.2, dilation=dilation, copied=True)
    stack = torch.rand(1, 3, 1, 32, 32, requires_grad=True)
    opacity = keys(stack, stack[:, 0, :0])[3][0, -1, 16, 16]
    rows = torch.autograd.grad(opacity, stack)[0].abs().sum((0, 1, 2, 4)).nonzero().flatten()
    assert (int(rows.min()), int(rows.max())) == (16 - sees, 16 + sees)


@pytest.mark.parametrize("changes", [{"copied": True}, {"reading": "positions", "stored": 0}])
def test_a_template_is_encoded_as_a_query_is(changes):
    model, stack = small(**changes), torch.rand(2, 3, 1, 16, 16)
    both = model.encode_template(stack), model.encode_query(stack)
    for name in ("key", "stored", "pixels", "update_key"):
        torch.testing.assert_close(*(getattr(each, name) for each in both))


def test_keys_of_expected_frames_are_blank_beyond_the_edge():
    keys = FrameKeys(3, 8, 4, 2, stride=4, slope=0.2)
    stack, motion = torch.rand(1, 3, 3, 16, 16), torch.zeros(1, 2, 16, 16)
    key, query, value, pixels, _ = keys(stack, motion)
    torch.testing.assert_close(key, query)
    assert value.shape[1] == 0
    torch.testing.assert_close(pixels[:, :3], stack[:, -1])
    assert (pixels[:, 3] == 1).all()
    motion[:, 0] = 5.0  # every pixel comes from 5 pixels to the right
    assert inside(motion)[0, 0, 0].tolist() == [1.0] * 11 + [0.0] * 5
    query = keys(stack, motion)[1].detach()
    assert not query[..., 11:].any()
    for there, here in zip(query[0, ..., 2:9], key.detach()[0, ..., 7:14], strict=True):
        both = torch.stack([there.flatten(), here.flatten()])  # equal but for mean and deviation
        assert float(torch.corrcoef(both)[0, 1]) > 0.99


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stored": 8}, r'stored and copied go with reading = "displacements"'),
        ({"copied": True}, r'stored and copied go with reading = "displacements"'),
        ({"reading": "displacements", "key": 6}, r"key = 6 must be a multiple of 16: a position"),
        (MOVED | {"matched": "frames"}, r"keys of frames store only pixels: set stored = 0"),
        (MOVED | {"stored": 8}, r"stored = 8 must be a multiple of 16"),
        (MOVED | {"stored": 0, "copied": True}, r"need a stored value: set stored, such as 16"),
        (MOVED | {"stored": 0, "matched": "frames"}, r"store only pixels: set copied = true"),
        ({"matched": "frames"}, r'matched = "frames" goes with reading = "displacements"'),
    ],
)
def test_configurations_that_cannot_be_are_refused(fields, message):
    with pytest.raises(StremnError, match=message):
        build(PredictionConfig, TINY.model_dump() | fields, "model.fields")
