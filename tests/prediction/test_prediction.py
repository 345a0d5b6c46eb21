"""The predictor, its outputs, its roll-out, the baselines."""

import pytest
import torch
from torch import nn

from stremn.errors import StremnError
from stremn.memory.policies import POLICIES
from stremn.prediction.baselines import (
    TRIVIAL,
    RecurrentConfig,
    build_baseline,
)
from stremn.prediction.building import build_predictor
from stremn.prediction.config import PREDICTOR_PRESETS, PredictionConfig
from stremn.prediction.frame_coders import FrameDecoder, FrameEncoder
from stremn.prediction.outputs import (
    moved_by_axis_output,
    moved_output,
    moved_taps,
    residual_output,
    sigmoid_output,
)
from stremn.prediction.recurrence import ConvLSTMCell, SpatioTemporalCell
from stremn.prediction.rollouts import check_frames
from tiny_predictor import clip, tiny, tiny_of


def step_by_step(model, frames, observed, future):
    """The roll-out as the paper tells it: one stack at a time, recall, then memorize."""
    frames = list(frames[:, :observed].unbind(1))
    size = model.config.stack
    past = model.empty(frames[0].shape[0], 16, 16, torch.device("cpu"))
    predictions = []
    for last in range(size - 1, observed + future - 1):
        stack = model.encode_query(torch.stack(frames[last - size + 1 : last + 1], dim=1))
        past = model.carry(past, stack)
        if last > size - 1:
            predictions.append(model.recall(past, stack))
        if last >= observed - 1:
            frames.append(predictions[-1])
        past = model.memorize(past, stack, last)
    return torch.stack(predictions, dim=1)


@pytest.mark.parametrize("carried", [0, 5])
@pytest.mark.parametrize("policy", ["learned", "oldest", "random-drop", "growing"])
@pytest.mark.parametrize(("observed", "future"), [(4, 1), (5, 4), (9, 3)])
def test_rollout_equals_the_step_by_step_loop(policy, observed, future, carried):
    growth = 2 if policy == "growing" else 0
    model = tiny(memory_slots=3, policy=policy, growth=growth, carried=carried)
    frames = clip()
    predicted = model.rollout(frames, observed, future)
    expected = step_by_step(model, frames, observed, future)
    torch.testing.assert_close(predicted.frames, expected, rtol=1e-4, atol=1e-5)
    assert predicted.first == 4
    assert predicted.first + predicted.frames.shape[1] == observed + future


@pytest.mark.parametrize("kind", ["stremn", "convlstm", "predrnn"])
def test_rollout_looks_at_observed_frames_only_and_keeps_clips_apart(kind):
    model = tiny_of(kind)
    frames = clip(b=3)
    whole = model.rollout(frames, 6, 4)
    later = frames.clone()
    later[:, 6:] = 0.5
    torch.testing.assert_close(model.rollout(later, 6, 4).frames, whole.frames)
    torch.testing.assert_close(
        model.rollout(frames[1:2], 6, 4).frames, whole.frames[1:2], rtol=1e-4, atol=1e-5
    )
    assert whole.first + whole.frames.shape[1] == 10
    assert float(whole.frames.detach().min()) >= 0
    assert float(whole.frames.detach().max()) <= 1


def test_three_frames_are_enough_the_first_is_repeated():
    model, frames = tiny(), clip()
    predicted = model.rollout(frames, 3, 2)
    assert predicted.first == 3
    repeated = torch.cat([frames[:, :1], frames[:, :3]], dim=1)
    torch.testing.assert_close(predicted.frames, model.rollout(repeated, 4, 2).frames)


def test_the_memory_keeps_its_size_and_growing_does_not():
    model = tiny(memory_slots=3, carried=5)
    sizes = {}
    for rule in ("learned", "growing"):
        chosen = model.under(rule)
        past = chosen.empty(1, 16, 16, torch.device("cpu"))
        sizes[rule] = [past.nbytes]
        for frame in range(12):
            stack = chosen.encode_query(clip(1, 3))
            past = chosen.memorize(chosen.carry(past, stack), stack, frame)
            sizes[rule].append(past.nbytes)
    assert len(set(sizes["learned"])) == 1
    assert sizes["growing"][-1] > 2 * sizes["growing"][0]


def test_four_to_four_never_evicts_with_five_slots():
    """The Human3.6M protocol cannot tell the rules apart: five slots hold every stack."""
    model, frames = tiny(), clip()
    expected = model.under("growing").rollout(frames, 4, 4).frames
    for rule in ("learned", "oldest", "newest", "random-drop"):
        torch.testing.assert_close(model.under(rule).rollout(frames, 4, 4).frames, expected)


@pytest.mark.parametrize("rule", sorted(POLICIES))
def test_every_rule_of_the_memory_can_predict(rule):
    predicted = tiny(memory_slots=2, policy=rule).rollout(clip(), 8, 2)
    assert torch.isfinite(predicted.frames).all()


def test_a_rule_with_weights_that_nobody_trained_is_refused():
    with pytest.raises(StremnError, match=r"'evidence' has weights of its own, and .* 'learned'"):
        tiny(policy="learned").under("evidence")
    assert tiny(policy="evidence").under("evidence").config.policy == "evidence"


def test_rules_differ_once_memory_overflows():
    model, frames = tiny(memory_slots=2), clip()
    outputs = [model.under(rule).rollout(frames, 10, 1).frames[:, -1] for rule in
               ("oldest", "newest", "growing")]  # fmt: skip
    assert not torch.allclose(outputs[0], outputs[1], atol=1e-6)
    assert not torch.allclose(outputs[0], outputs[2], atol=1e-6)


@pytest.mark.parametrize(("slots", "learns"), [(2, True), (20, False)])
def test_the_update_key_learns_only_from_evictions(slots, learns):
    model = tiny(memory_slots=slots).train()
    torch.manual_seed(0)
    model.rollout(clip(), 8, 3).frames.square().mean().backward()
    gradient = model.to_update_key.weight.grad
    assert (gradient is not None and float(gradient.abs().max()) > 0) == learns
    assert float(model.to_key.weight.grad.abs().max()) > 0


def test_residual_output_copies_at_zero_and_stays_in_range():
    last = torch.tensor([0.0, 0.3, 1.0]).view(1, 1, 1, 3)
    zero = torch.zeros_like(last)
    torch.testing.assert_close(residual_output(zero, last), last, rtol=0, atol=0.0101)
    assert residual_output(zero + 9, last).min() > 0.9
    torch.testing.assert_close(sigmoid_output(zero, last), zero + 0.5)
    assert tiny(output="residual").rollout(clip(), 5, 3).frames.shape == (2, 4, 1, 16, 16)


def test_moved_output_carries_a_pixel_from_where_the_weights_say():
    last = torch.rand(2, 3, 6, 7)
    logits = torch.zeros(2, moved_taps(1) + 3, 6, 7)
    logits[:, 1] = 60  # of the 3 x 3 places around a pixel, the one above it
    above = moved_output(logits, last, reach=1)
    torch.testing.assert_close(above[:, :, 1:], last[:, :, :-1])
    assert float(above[:, :, 0].abs().max()) < 1e-6  # black beyond the border
    logits[:, moved_taps(1) - 1] = 120  # now the pixel drawn anew
    logits[:, -3:] = torch.randn(2, 3, 6, 7)
    torch.testing.assert_close(
        moved_output(logits, last, reach=1), torch.sigmoid(logits[:, -3:]), rtol=1e-4, atol=1e-6
    )


def test_moved_by_axis_equals_moved_where_all_pixels_have_one_filter():
    """Two passes with the same weights everywhere are one pass with the products of both."""
    last = torch.rand(2, 3, 6, 7)
    down, across, drawn = torch.randn(2, 3), torch.randn(2, 3), torch.randn(2, 3)
    products = (down[:, :, None] + across[:, None]).flatten(1)
    taken = products.logsumexp(1, keepdim=True)  # as much weight for the pixel drawn anew
    square = torch.cat([products, taken, drawn], dim=1)[..., None, None].expand(-1, -1, 6, 7)
    crossed = torch.cat([down, across, torch.zeros(2, 1), drawn], dim=1)
    crossed = crossed[..., None, None].expand(-1, -1, 6, 7)
    torch.testing.assert_close(
        moved_by_axis_output(crossed, last, reach=1), moved_output(square, last, reach=1)
    )


def test_moved_by_axis_carries_a_pixel_from_where_the_weights_say():
    last = torch.rand(1, 1, 6, 7)
    logits = torch.zeros(1, 12, 6, 7)
    logits[:, 0] = 60  # of 5 rows, the one two above
    logits[:, 5 + 3] = 60  # of 5 columns, the one to the right
    logits[:, 10] = 60  # carried over, not drawn
    moved = moved_by_axis_output(logits, last, reach=2)
    torch.testing.assert_close(moved[..., 2:, :-1], last[..., :-2, 1:])
    assert float(moved[..., :2, :].abs().max()) < 1e-6  # black beyond the border
    assert float(moved[..., -1].abs().max()) < 1e-6


@pytest.mark.parametrize("output", ["moved", "moved-by-axis"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_predictor_with_moved_output_stays_in_range(channels, output):
    model = tiny(output=output, reach=1, channels=channels)
    frames = model.rollout(clip(c=channels), 5, 3).frames
    assert frames.shape == (2, 4, channels, 16, 16)
    assert float(frames.detach().min()) >= 0
    assert float(frames.detach().max()) <= 1 + 1e-6


def test_presets_take_frames_of_their_size():
    for name, config in PREDICTOR_PRESETS.items():
        if name.endswith(("small", "carried")):
            shape = (1, 5, config.channels, config.size, config.size)
            assert (
                build_predictor(config).rollout(torch.zeros(shape), 4, 1).frames.shape[2:]
                == shape[2:]
            )
        assert config.memory_slots == 5
        if config.reading == "displacements":
            continue  # smaller coders: keys and pixels of the memory are none of theirs
        blocks = 3 if config.carried else 6  # the paper's six, or three and a carried state
        assert len(config.widths) == len(config.strides) == blocks
    assert PREDICTOR_PRESETS["64"].size // PREDICTOR_PRESETS["64"].feature_stride == 16
    assert PREDICTOR_PRESETS["128"].size // PREDICTOR_PRESETS["128"].feature_stride == 16


def test_folded_patches_go_in_and_come_out():
    model = tiny(patch=2, strides=(1, 1, 2, 1, 1, 1))
    assert model.config.feature_stride == 4
    assert model.encoder.blocks[0][0].in_channels == 3 * 2**2
    assert model.decoder.output.out_channels == 2**2
    assert model.rollout(clip(), 5, 3).frames.shape == (2, 4, 1, 16, 16)


def test_shortcuts_add_the_input_where_shapes_agree_and_need_no_weights():
    plain, short = tiny(), tiny(shortcuts=True)
    short.load_state_dict(plain.state_dict())
    x = torch.rand(1, 8, 4, 4)
    for index, agrees in enumerate((False, True, False, True, True, True)):
        given = clip(1, 1, 3)[:, 0] if index == 0 else x
        before, after = plain.encoder.blocks[index](given), short.encoder.blocks[index](given)
        torch.testing.assert_close(after, before + given if agrees else before)


def test_coders_are_mirrors_of_six_blocks_of_two_convolutions():
    encoder = FrameEncoder(3, (8, 8, 16, 16, 16, 16), (2, 1, 2, 1, 2, 1))
    decoder = FrameDecoder(10, 1, (8, 8, 16, 16, 16, 16), (2, 1, 2, 1, 2, 1))
    for coder, kind in ((encoder, nn.Conv2d), (decoder, nn.ConvTranspose2d)):
        assert len(coder.blocks) == 6
        for block in coder.blocks:
            assert [type(layer) for layer in block] == [kind, kind, nn.GroupNorm, nn.LeakyReLU]
    features = encoder(torch.zeros(2, 3, 32, 48))
    assert features.shape == (2, 16, 4, 6)
    assert decoder(torch.zeros(2, 10, 4, 6)).shape == (2, 1, 32, 48)


@pytest.mark.parametrize(
    ("widths", "strides", "message"),
    [
        ((8, 8), (1,), "got 2 widths and 1 strides"),
        ((8, 12), (1, 1), r"multiple of the 8 normalization groups; got \[12\]"),
        ((8, 8), (1, 3), r"are 1 or 2; got \(1, 3\)"),
    ],
)
def test_impossible_coders_are_refused(widths, strides, message):
    with pytest.raises(StremnError, match=message):
        FrameEncoder(3, widths, strides)
    with pytest.raises(StremnError, match=message):
        FrameDecoder(3, 1, widths, strides)


def test_a_size_that_the_strides_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="size 30 must be a multiple of 4, the product"):
        PredictionConfig(size=30)


def test_growth_and_the_growing_rule_go_together():
    assert PredictionConfig(policy="growing", growth=8).growth == 8
    for fields in ({"policy": "growing"}, {"growth": 3}):
        with pytest.raises(ValueError, match='growth goes with policy = "growing"'):
            PredictionConfig(**fields)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(1, 2, 1, 16, 16), "stack of 3 frames, but only 2 were given"),
        (torch.zeros(1, 5, 3, 16, 16), r"built for frames of 1 channel\(s\), but these have 3"),
        (torch.full((1, 5, 1, 16, 16), 255.0), r"in \[0, 1\], but these reach from 255 to 255"),
        (torch.full((1, 5, 1, 16, 16), torch.nan), r"in \[0, 1\], but these reach from nan to nan"),
        (torch.full((1, 5, 1, 16, 16), -0.1), r"in \[0, 1\], but these reach from -0\.1"),
    ],
)
def test_frames_that_prediction_cannot_start_from_are_named(frames, message):
    with pytest.raises(StremnError, match=message):
        check_frames(frames, 3, 1)
    with pytest.raises(StremnError, match=message):
        tiny().rollout(frames, frames.shape[1], 2)


# --- baselines


def test_a_carried_state_tells_the_decoder_of_frames_that_left_the_memory():
    """With one slot that holds the newest stack, only the carried state knows the first frame."""
    frames = clip(1, 12)
    changed = torch.cat([1 - frames[:, :1], frames[:, 1:]], dim=1)
    for carried, differs in ((0, False), (5, True)):
        model = tiny(memory_slots=1, policy="newest", carried=carried)
        ends = [model.rollout(x, 9, 1).frames[:, -1] for x in (frames, changed)]
        assert (not torch.equal(*ends)) == differs


def test_a_carried_state_learns():
    model = tiny(carried=5).train()
    model.rollout(clip(), 6, 2).frames.square().mean().backward()
    assert float(model.recurrence.gates.weight.grad.abs().max()) > 0


def test_a_kernel_without_a_middle_is_refused():
    for make in (
        lambda: PredictionConfig(carried=8, carried_kernel=4),
        lambda: RecurrentConfig(kind="convlstm", kernel=4),
    ):
        with pytest.raises(ValueError, match=r"a kernel must be odd, .* got 4"):
            make()


def test_trivial_baselines():
    frames = clip(2, 3)
    assert float(TRIVIAL["zero"](frames, 4).abs().max()) == 0
    assert torch.equal(TRIVIAL["copy-last"](frames, 4)[:, 3], frames[:, 2])
    torch.testing.assert_close(TRIVIAL["mean"](frames, 4)[:, 1], frames.mean(1))
    assert all(predict(frames, 4).shape == (2, 4, 1, 16, 16) for predict in TRIVIAL.values())


def test_convlstm_cell_follows_its_equations():
    torch.manual_seed(0)
    cell = ConvLSTMCell(2, 3, 3)
    x, h, c = torch.randn(1, 2, 5, 5), torch.randn(1, 3, 5, 5), torch.randn(1, 3, 5, 5)
    joined = torch.cat([x, h], 1)

    def gate(index):
        rows = slice(3 * index, 3 * index + 3)
        weight, bias = cell.gates.weight[rows], cell.gates.bias[rows]
        return nn.functional.conv2d(joined, weight, bias, padding=1)

    new = torch.sigmoid(gate(1) + 1) * c + torch.sigmoid(gate(0)) * torch.tanh(gate(3))
    hidden, after = cell(x, h, c)
    torch.testing.assert_close(after, new)
    torch.testing.assert_close(hidden, torch.sigmoid(gate(2)) * torch.tanh(new))


def test_predrnn_memory_passes_through_the_layers_and_back_to_the_first():
    torch.manual_seed(0)
    model = build_baseline(RecurrentConfig(kind="predrnn", hidden=4, layers=3, kernel=3))
    x = torch.randn(1, 16, 4, 4)
    states = model.stack.start(x)
    _, after = model.stack(x, states)
    value, memory = x, states[-1]
    for index, layer in enumerate(model.stack.cells):
        assert isinstance(layer, SpatioTemporalCell)
        value, cell, memory = layer(value, states[2 * index], states[2 * index + 1], memory)
        torch.testing.assert_close(after[2 * index + 1], cell)
    torch.testing.assert_close(after[-1], memory)
    changed = [*after[:-1], after[-1] + 1]
    assert not torch.allclose(model.stack(x, after)[0], model.stack(x, changed)[0])


@pytest.mark.parametrize("output", ["sigmoid", "residual", "moved", "moved-by-axis"])
@pytest.mark.parametrize("kind", ["convlstm", "predrnn"])
def test_recurrent_baselines_feed_on_their_own_predictions(kind, output):
    torch.manual_seed(0)
    model = build_baseline(RecurrentConfig(kind=kind, hidden=4, layers=2, kernel=3, output=output))
    frames = clip(1, 6)
    first = model.rollout(frames, 5, 1).frames[:, -1:]
    extended = torch.cat([frames[:, :5], first], dim=1)
    torch.testing.assert_close(
        model.rollout(frames, 5, 3).frames, model.rollout(extended, 6, 2).frames
    )


def test_a_recurrent_baseline_moves_pixels_of_the_last_frame_it_saw():
    config = RecurrentConfig(kind="convlstm", hidden=4, kernel=3, output="moved-by-axis", reach=1)
    model = build_baseline(config)
    nn.init.zeros_(model.output.weight)
    one_right = torch.zeros(8)  # rows' weights, columns' weights, share, drawn
    one_right[1] = one_right[3] = one_right[6] = 50.0
    with torch.no_grad():
        model.output.bias.copy_(one_right.repeat_interleave(16))
    frames = clip(1, 6)
    predicted = model.rollout(frames, 4, 2).frames  # of frames 1 to 5
    torch.testing.assert_close(predicted[:, :4, ..., 1:], frames[:, :4, ..., :-1])
    torch.testing.assert_close(predicted[:, 4, ..., 1:], predicted[:, 3, ..., :-1])


def test_normalized_gates_do_not_depend_on_the_inputs_scale():
    torch.manual_seed(0)
    cell = ConvLSTMCell(2, 3, 3, groups=4)
    nn.init.zeros_(cell.gates.bias)
    x, none = torch.randn(1, 2, 5, 5), torch.zeros(1, 3, 5, 5)
    for usual, large in zip(cell(x, none, none), cell(1000 * x, none, none), strict=True):
        torch.testing.assert_close(usual, large, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("fields", [{"kind": "predrnn", "groups": 4}, {"groups": 7}])
def test_groups_that_no_gates_have_are_refused(fields):
    with pytest.raises(ValueError, match="normalizes the gates of a ConvLSTM"):
        RecurrentConfig.model_validate({"kind": "convlstm", "hidden": 4} | fields)
