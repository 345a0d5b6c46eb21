"""Prediction of real video: motion, the output that moves, frames of any size, surprise, files."""

import csv
import math
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter

from stremn.core.checkpoints import read_tensors
from stremn.data.readers.frame_clips import check_disjoint
from stremn.data.readers.natural_clips import DrawnClips, WholeClips, natural
from stremn.errors import StremnError
from stremn.media.encoding import write_video
from stremn.media.frames import FrameSource, Shot
from stremn.media.video import open_frames
from stremn.prediction.baselines import TRIVIAL
from stremn.prediction.building import build_predictor
from stremn.prediction.config import PREDICTOR_PRESETS, PredictionConfig
from stremn.prediction.files import _psnr, predict_video
from stremn.prediction.frame_fit import fit_of
from stremn.prediction.motion import (
    carried_motion,
    carry_forward,
    compose,
    dis_motion,
    move,
    redraw,
    smooth,
)
from stremn.prediction.outputs import flow_output, observed_frame, paced_flow_output
from stremn.prediction.sessions import PredictionSession
from stremn.prediction.weights import save_predictor


def small(**fields):
    """The natural preset, made small."""
    torch.manual_seed(0)
    values = PREDICTOR_PRESETS["natural"].model_dump() | {
        "widths": (8, 8, 16), "strides": (1, 2, 2), "key": 8, "value": 8, "update_key": 8,
        "detail": 8, "patch": 2, "memory_slots": 3,
    }  # fmt: skip
    return build_predictor(PredictionConfig(**(values | fields))).eval()


def texture(height, width, seed=0):
    """A picture that a flow can hold on to, uint8 RGB."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


def panning(count, height=48, width=64, speed=2):
    """Frames of a camera that pans to the right."""
    wide = texture(height, width + speed * count)
    return [wide[:, i * speed : i * speed + width].copy() for i in range(count)]


def as_clip(frames):
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[None].float() / 255


# --- motion


def test_move_fetches_each_pixel_from_where_its_flow_points():
    torch.manual_seed(0)
    frame, flow = torch.rand(1, 2, 5, 6).double(), (4 * torch.rand(1, 2, 5, 6) - 2).double()
    moved = move(frame, flow)
    for y in range(5):
        for x in range(6):
            across = min(max(x + float(flow[0, 0, y, x]), 0), 5)
            down = min(max(y + float(flow[0, 1, y, x]), 0), 4)
            left, top = min(int(across), 4), min(int(down), 3)
            a, b = across - left, down - top
            corner = frame[0, :, top : top + 2, left : left + 2]
            weights = torch.tensor([[(1 - b) * (1 - a), (1 - b) * a], [b * (1 - a), b * a]])
            torch.testing.assert_close(moved[0, :, y, x], (corner * weights).sum((1, 2)))


def test_redrawing_keeps_what_moving_blurs():
    """Half a pixel to and fro: bicubic sampling loses less; whole pixels lose nothing."""
    picture = as_clip([texture(24, 32)])[:, 0]
    half = torch.full((1, 2, 24, 32), 0.5)
    inner = (..., slice(4, -4), slice(4, -4))

    def loss(sample):
        return float((sample(sample(picture, half), -half) - picture)[inner].abs().mean())

    assert loss(redraw) < 0.5 * loss(move)
    whole = torch.zeros(1, 2, 24, 32)
    whole[:, 0] = 3
    torch.testing.assert_close(redraw(picture, whole)[..., :-3], picture[..., 3:])
    steps = redraw((picture > 0.5).float(), half)
    assert float(steps.min()) >= 0
    assert float(steps.max()) <= 1


def test_a_steady_flow_is_carried_forward_unchanged():
    flow = torch.full((1, 2, 8, 8), 1.5)
    torch.testing.assert_close(carry_forward(flow), flow)


def test_dis_finds_a_pan_and_the_flow_baseline_follows_it():
    frames = as_clip(panning(6))
    flow = dis_motion(frames[:, :3])
    middle = flow[..., 12:-12, 12:-12]
    assert float((middle[:, 0] - 2).abs().mean()) < 0.2
    assert float(middle[:, 1].abs().mean()) < 0.2
    inner = (..., slice(8, -8), slice(8, -16))
    error = {
        name: float((TRIVIAL[name](frames[:, :3], 3) - frames[:, 3:])[inner].abs().mean())
        for name in ("flow", "copy-last")
    }
    assert error["flow"] < 0.3 * error["copy-last"]


def test_the_flow_of_predicted_frames_is_carried_on_and_not_estimated():
    frames = as_clip(panning(6))
    observed = carried_motion(frames[:, :3])
    assert float((observed[:, 0, 12:-12, 12:-12] - 2).abs().mean()) < 0.1
    led = torch.full_like(observed, -1.5)
    torch.testing.assert_close(carried_motion(frames[:, :3], led), led)
    torch.testing.assert_close(dis_motion(frames[:, :3], led), dis_motion(frames[:, :3]))


def test_a_flow_of_all_pixels_finds_smaller_things_than_one_of_every_second():
    """A patch of 10x10 pixels goes on over a picture that stands still."""
    still, patch = texture(96, 96), texture(10, 10, seed=5)
    clip = np.stack([still] * 5)
    for t in range(5):
        clip[t, 40:50, 30 + 3 * t : 40 + 3 * t] = patch
    frames = as_clip(clip)
    error = {
        name: float((TRIVIAL[name](frames[:, :4], 1) - frames[:, 4:]).square().mean())
        for name in ("copy-last", "flow", "fine-flow")
    }
    assert error["fine-flow"] < 0.8 * error["flow"]
    assert error["fine-flow"] < error["copy-last"]


def test_frames_too_small_for_a_flow_stand_still():
    assert float(dis_motion(torch.rand(1, 2, 3, 16, 16)).abs().max()) == 0
    one = torch.rand(1, 1, 1, 16, 16)
    torch.testing.assert_close(TRIVIAL["flow"](one, 2), one.expand(-1, 2, -1, -1, -1))


def test_the_flow_output_moves_stays_or_draws_as_its_shares_say():
    last, motion = torch.rand(1, 3, 4, 6), torch.zeros(1, 2, 4, 6)
    motion[:, 0] = 1
    logits = torch.zeros(1, 8, 4, 6)

    def shares(moved, stayed, drawn):
        logits[:, 2:5] = torch.tensor([moved, stayed, drawn]).view(1, 3, 1, 1)
        return flow_output(logits, observed_frame(last, motion), motion).frame

    torch.testing.assert_close(shares(99.0, 0, 0), redraw(last, motion))
    torch.testing.assert_close(shares(0, 99.0, 0), last)
    logits[:, 5:] = 99.0
    torch.testing.assert_close(shares(0, 0, 99.0), torch.ones_like(last))
    logits[:, 0] = -1.0  # the correction takes the motion back
    torch.testing.assert_close(shares(99.0, 0, 0), last)


def test_the_paced_flow_goes_on_at_its_pace_and_keeps_the_observed_frame():
    seen, motion = torch.rand(1, 3, 4, 8), torch.zeros(1, 2, 4, 8)
    motion[:, 0] = 2
    logits = torch.zeros(1, 9, 4, 8)

    def drawn(pace, shares, last):
        logits[:, 2] = pace
        logits[:, 3:6] = torch.tensor(shares).view(1, 3, 1, 1)
        return paced_flow_output(logits, last, motion)

    first = drawn(0.0, [99.0, 0, 0], observed_frame(seen, motion))
    torch.testing.assert_close(first.frame, redraw(seen, motion))
    half = drawn(float(np.arctanh(-0.5)), [99.0, 0, 0], observed_frame(seen, motion))
    torch.testing.assert_close(half.led, motion / 2)
    torch.testing.assert_close(half.frame, redraw(seen, motion / 2))
    # What stays is the observed frame, also when the last one was predicted.
    torch.testing.assert_close(drawn(0.0, [0, 99.0, 0], first).frame, seen)
    torch.testing.assert_close(drawn(0.0, [99.0, 0, 0], first).travel, 2 * motion)


@pytest.mark.parametrize("deviation", [0.4, 1.0, 3.7])
def test_maps_are_smoothed_by_a_gaussian(deviation):
    x = torch.rand(2, 3, 20, 33, dtype=torch.float64)
    expected = gaussian_filter(
        x.numpy(), (0, 0, deviation, deviation), mode="nearest", radius=math.ceil(3 * deviation)
    )
    torch.testing.assert_close(smooth(x, deviation), torch.from_numpy(expected))


def test_no_deviation_smooths_nothing():
    x = torch.rand(1, 2, 5, 6)
    assert smooth(x, 0.0) is x


def test_a_smooth_flow_does_not_tear_texture():
    """A correction of single pixels, half of them one pixel off: smoothed, all go half a pixel."""
    seen, still = torch.rand(1, 3, 16, 32), torch.zeros(1, 2, 16, 32)
    logits = torch.zeros(1, 9, 16, 32)
    logits[:, 0, :, ::2] = 1.0
    logits[:, 3] = 99.0
    last = observed_frame(seen, still)
    torn = paced_flow_output(logits, last, still)
    whole = paced_flow_output(logits, last, still, smoothness=0.1)
    torch.testing.assert_close(torn.led, logits[:, :2])
    middle = whole.led[..., 8:-8]
    torch.testing.assert_close(middle[:, 0], torch.full_like(middle[:, 0], 0.5), atol=0.01, rtol=0)
    torch.testing.assert_close(whole.frame, redraw(seen, whole.led))


def test_a_roll_out_estimates_no_motion_of_predicted_frames(monkeypatch):
    """With "carried", the motion estimator sees observed frames alone."""
    model = build_predictor(PREDICTOR_PRESETS["natural"]).eval()
    counted = []

    def counting(stack, led=None):
        counted.append((stack.shape[0], led is None))
        return carried_motion(stack, led)

    model.motion = counting
    with torch.inference_mode():
        model.rollout(torch.rand(2, 7, 3, 64, 64), 4, 3)
    assert sum(stacks for stacks, observed in counted if observed) == 4  # two of each clip
    assert [stacks for stacks, observed in counted if not observed] == [2, 2]


def test_a_prediction_of_a_prediction_is_moved_all_the_way_from_what_was_observed():
    """Half a pixel a step: after two, whole pixels again, so nothing is blurred."""
    seen, motion = torch.rand(1, 3, 12, 16), torch.zeros(1, 2, 12, 16)
    motion[:, 0] = 0.5
    logits = torch.zeros(1, 8, 12, 16)
    logits[:, 2] = 99.0  # all of it is moved
    first = flow_output(logits, observed_frame(seen, motion), motion)
    second = flow_output(logits, first, motion)
    torch.testing.assert_close(second.source, seen)
    torch.testing.assert_close(second.travel, 2 * motion)
    torch.testing.assert_close(second.frame[..., :-1], seen[..., 1:], atol=1e-4, rtol=0)
    again = redraw(first.frame, motion)
    assert (again - second.frame)[..., 2:-2].abs().mean() > 0.02, "twice sampled is blurred"


def test_two_flows_are_composed_along_the_way():
    later, earlier = torch.zeros(2, 1, 2, 8, 10).unbind()
    later[:, 0], earlier[:, 1] = 2.0, torch.arange(10.0)
    both = compose(later, earlier)
    torch.testing.assert_close(both[:, 0], later[:, 0])
    expected = (torch.arange(10.0) + 2).clamp(max=9).expand(1, 8, 10)  # the place it comes from
    torch.testing.assert_close(both[:, 1], expected)


@pytest.mark.parametrize("observed", [3, 5])
def test_a_rollout_equals_frames_drawn_one_by_one(observed):
    model = small()
    frames = torch.rand(2, 8, 3, 64, 64)
    with torch.no_grad():
        rolled = model.rollout(frames, observed, 8 - observed).frames[:, -(8 - observed) :]
        window = frames[:, :observed]
        if observed == 3:
            window = torch.cat([window[:, :1], window], dim=1)
        past = model.empty(2, 64, 64, torch.device("cpu"))
        for i in range(window.shape[1] - 3):
            stack = model.encode_query(window[:, i : i + 3])
            past = model.memorize(model.carry(past, stack), stack, i)
        window, shown = window[:, -3:], None
        for i in range(8 - observed):
            stack = model.encode_query(window, shown)
            past = model.carry(past, stack)
            shown = model.draw(past, stack)
            past = model.memorize(past, stack, 10 + i)
            window = torch.cat([window[:, 1:], shown.frame[:, None]], dim=1)
            torch.testing.assert_close(rolled[:, i], shown.frame, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(shown.source, frames[:, observed - 1])


def test_flow_without_motion_is_refused():
    with pytest.raises(ValueError, match='set motion = "dis" too'):
        PredictionConfig(output="flow")
    with pytest.raises(ValueError, match="set stack to 2 or more"):
        PredictionConfig(motion="dis", stack=1)


def test_every_part_of_the_natural_predictor_learns():
    model = small().train()
    frames = as_clip(panning(8))
    (model.rollout(frames, 5, 3).frames - frames[:, 4:]).square().mean().backward()
    still = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert all(name.startswith("to_update_key") for name in still), still


# --- frames of any size


@pytest.mark.parametrize("shape", [(48, 64), (37, 53)])
def test_a_session_takes_frames_of_any_size_and_returns_that_size(shape):
    model = small()
    session = PredictionSession(model)
    for frame in panning(5, *shape):
        session.observe(frame)
    predicted = session.predict(3)
    assert predicted.shape == (3, *shape, 3)
    frames = as_clip(panning(5, *shape))
    step = model.config.feature_stride
    pad = [-n % step for n in shape]
    padded = torch.nn.functional.pad(frames[0], (0, pad[1], 0, pad[0]), mode="replicate")[None]
    with torch.inference_mode():
        expected = model.rollout(padded, 5, 3).frames[0, -3:, :, : shape[0], : shape[1]]
    error = np.abs(predicted - (expected * 255).round().permute(0, 2, 3, 1).numpy())
    assert error.max() <= 1


def test_larger_frames_are_brought_to_a_size_with_their_proportions():
    config = PREDICTOR_PRESETS["natural"]
    fit = fit_of(config, (270, 480), 135)
    assert (fit.shown, fit.padded) == ((135, 240), (144, 240))
    assert fit_of(config, (100, 90), 135).shown == (100, 90)
    assert fit_of(PREDICTOR_PRESETS["64"], (270, 480), None).shown == (64, 64)


def test_a_wide_low_frame_is_averaged_as_it_is_brought_to_a_square():
    fit = fit_of(PREDICTOR_PRESETS["64"], (32, 6400), None)
    columns = np.zeros((32, 6400, 1), np.float32)
    columns[:, ::2] = 1  # its columns alternate: averaged they are gray
    inside = fit.fit(columns)[0, :, 1:-1]
    np.testing.assert_allclose(inside.numpy(), 0.5, atol=0.05)


def test_a_size_is_refused_where_the_model_has_its_own():
    with pytest.raises(StremnError, match="works at 64x64 pixels and takes no size; got size=480"):
        PredictionSession(build_predictor(PREDICTOR_PRESETS["64"]).eval(), size=480)
    with pytest.raises(StremnError, match="size must be at least 16, got 2"):
        PredictionSession(small(), size=2)


def test_surprise_is_the_error_of_the_last_prediction(tmp_path):
    model, frames = small(), panning(7)
    scored, plain = PredictionSession(model, score=True), PredictionSession(model)
    for frame in frames[:4]:
        scored.observe(frame)
        plain.observe(frame)
    before = [scored.surprise]
    scored.observe(frames[4])
    error = (plain.predict(1)[0].astype(float) - frames[4]) / 255
    assert scored.surprise == pytest.approx(np.sqrt(np.square(error).mean()), abs=2e-3)
    assert before[0] is None or before[0] >= 0
    scored.save(tmp_path / "session")
    again = PredictionSession.load(tmp_path / "session", model)
    assert again.surprise == scored.surprise
    scored.observe(frames[5])
    again.observe(frames[5])
    assert again.surprise == scored.surprise
    np.testing.assert_array_equal(again.predict(2), scored.predict(2))
    scored.observe(texture(48, 64, seed=9))  # a cut
    assert scored.surprise > 3 * again.surprise


def test_a_saved_session_of_a_wrong_size_is_refused_before_memory_is_asked_for(tmp_path):
    model, path = small(), tmp_path / "session.safetensors"
    session = PredictionSession(model)
    session.observe(panning(1)[0])
    session.save(path)
    header, tensors = read_tensors(path, "saved session")
    changed = {k: v.replace("[48, 64]", "[1048576, 1048576]") for k, v in header.items()}
    assert changed != header
    save_file(tensors, path, changed)
    with pytest.raises(StremnError, match="holds no frames of 1048576x1048576"):
        PredictionSession.load(path, model)


def test_a_fork_continues_by_itself_and_leaves_the_session_alone():
    model, frames = small(), panning(8)
    session, other = PredictionSession(model), PredictionSession(model)
    for frame in frames[:5]:
        session.observe(frame)
        other.observe(frame)
    fork = session.fork()
    for frame in frames[5:]:
        session.observe(frame)
    assert (fork.frames_seen, session.frames_seen) == (5, 8)
    np.testing.assert_array_equal(fork.predict(2), other.predict(2))
    fork.observe(frames[5])
    other.observe(frames[5])
    np.testing.assert_array_equal(fork.predict(2), other.predict(2))
    assert session.frames_seen == 8


# --- clips


@pytest.fixture
def videos(tmp_path):
    for split, names in {"train": "ab", "val": "c", "test": "d"}.items():
        for name in names:
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i, frame in enumerate(panning(15, 40, 60)):
                cv2.imwrite(str(folder / f"{i:03d}.png"), frame[..., ::-1])
    return tmp_path


def test_training_clips_are_drawn_and_repeat(videos):
    clips = natural(videos, "train", 6, 32, length=20, seed=1)
    assert isinstance(clips, DrawnClips)
    assert len(clips) == 20
    again = natural(videos, "train", 6, 32, length=20, seed=1)
    assert all(torch.equal(clips[i], again[i]) for i in range(20))
    assert clips[0].shape == (6, 3, 32, 32)
    assert clips[0].dtype == torch.uint8
    assert len({clips[i].numpy().tobytes() for i in range(20)}) > 15
    other = natural(videos, "train", 6, 32, length=20, seed=2)
    assert not torch.equal(clips[3], other[3])
    with pytest.raises(IndexError):
        clips[20]


def test_held_out_clips_follow_one_another_as_they_are(videos):
    clips = natural(videos, "val", 6, None, length=0, seed=0)
    assert isinstance(clips, WholeClips)
    assert len(clips) == 2
    assert clips[1].shape == (6, 3, 32, 48)
    expected = panning(15, 40, 60)[6][4:36, 6:54]
    np.testing.assert_array_equal(clips[1][0].permute(1, 2, 0).numpy(), expected)
    assert natural(videos, "test", 6, 32, length=0, seed=0)[0].shape == (6, 3, 32, 32)
    check_disjoint({s: natural(videos, s, 6, 32, length=4, seed=0) for s in ("train", "val")})


def test_videos_shorter_than_a_clip_are_named(videos):
    with pytest.raises(StremnError, match="the 40 frames of a clip; the longest has 15"):
        natural(videos, "train", 40, 32, length=4, seed=0)
    with pytest.raises(StremnError, match="No video has the 40 frames of a clip"):
        natural(videos, "val", 40, 32, length=4, seed=0)
    with pytest.raises(StremnError, match=r"give data\.size in pixels"):
        natural(videos, "train", 4, None, length=4, seed=0)


# --- files


@pytest.fixture
def weights(tmp_path):
    save_predictor(small(), tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def test_predict_holds_out_the_last_frames_and_scores_them(tmp_path, weights):
    frames = panning(12)
    written = predict_video(frames, tmp_path / "a", frames=3, holdout=3, weights=weights, size=None)
    assert [path.name for path in written.frames] == [f"{i:05d}.png" for i in (9, 10, 11)]
    other = predict_video(frames[:9], tmp_path / "b", frames=3, weights=weights, size=None)
    for one, two in zip(written.frames, other.frames, strict=True):
        assert one.read_bytes() == two.read_bytes()
    with (tmp_path / "a" / "errors.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == ["9", "10", "11"]
    picture = cv2.imread(str(written.frames[1]))[..., ::-1].astype(float)
    psnr = 10 * np.log10(255**2 / np.square(picture - frames[10]).mean())
    assert float(rows[1]["psnr_predicted"]) == pytest.approx(psnr, abs=1e-3)
    assert other.errors is None
    assert not (tmp_path / "b" / "errors.csv").exists()


def test_predict_tells_how_far_it_is(tmp_path, weights):
    told = []
    predict_video(
        panning(7), tmp_path / "a", frames=2, holdout=2, weights=weights, size=None,
        watch=lambda *now: told.append(now),
    )  # fmt: skip
    observed = [0, 0, 1, 2, 3, 4, 5]  # the first two frames wait: they may be the ones held out
    assert told == [
        *(("observed", done, 5) for done in observed),
        ("predicted", 1, 2),
        ("predicted", 2, 2),
    ]
    told.clear()
    predict_video(
        panning(7), tmp_path / "b", frames=2, observe=4, weights=weights, size=None,
        watch=lambda *now: told.append(now),
    )  # fmt: skip
    assert told[:4] == [("observed", done, 4) for done in (1, 2, 3, 4)]


@pytest.mark.parametrize("at", ["observed", "predicted"])
def test_a_prediction_that_is_stopped_writes_nothing(tmp_path, weights, at):
    def stop(what, done, total):
        if what == at:
            raise StremnError("stopped")

    with pytest.raises(StremnError, match="stopped"):
        predict_video(panning(7), tmp_path / "a", frames=2, weights=weights, size=None, watch=stop)
    assert not list(tmp_path.glob("a/**/*.png"))


def test_predict_tries_itself_on_what_was_observed(tmp_path, weights):
    frames = panning(12)
    written = predict_video(frames, tmp_path / "a", frames=3, weights=weights, size=None)
    earlier = predict_video(frames, tmp_path / "b", frames=3, holdout=3, weights=weights, size=None)
    assert written.tried == earlier.errors
    short = predict_video(frames[:4], tmp_path / "c", frames=3, weights=weights, size=None)
    assert short.tried is None


def test_two_ways_to_hold_out_at_once_are_refused(tmp_path, weights):
    with pytest.raises(StremnError, match="--observe or --holdout, not both"):
        predict_video(panning(9), tmp_path / "a", observe=5, holdout=2, weights=weights)
    with pytest.raises(StremnError, match="must have 6 or more"):
        predict_video(panning(4), tmp_path / "a", holdout=3, weights=weights)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"frames": -1}, "number of frames must be at least 1, got -1"),
        ({"frames": 10**9}, "number of frames must be at most 1000000"),
        ({"frames": 2, "holdout": -1}, "to hold out must be at least 0, got -1"),
        ({"frames": 2, "observe": 2}, "to observe must be at least 3, got 2"),
        (
            {"frames": 2, "holdout": 9},
            "so the input must have 12 or more. Hold out fewer",
        ),
        (
            {"frames": 2, "holdout": 20},
            "so the input must have 23 or more. Hold out fewer",
        ),
    ],
)
def test_impossible_numbers_of_frames_are_named(tmp_path, weights, numbers, message):
    with pytest.raises(StremnError, match=message):
        predict_video(panning(9), tmp_path / "a", weights=weights, **numbers)
    assert not (tmp_path / "a").exists()


def test_an_earlier_prediction_in_the_folder_is_replaced(tmp_path, weights):
    """And nothing else: pictures of others stay."""
    out = tmp_path / "a"
    predict_video(panning(12), out, frames=3, holdout=3, weights=weights, size=None)
    (out / "frames" / "mine.png").write_bytes(b"mine")
    written = predict_video(panning(6), out, frames=2, weights=weights, size=None)
    assert sorted(path.name for path in (out / "frames").glob("*.png")) == [
        "00006.png",
        "00007.png",
        "mine.png",
    ]
    assert [path.name for path in written.frames] == ["00006.png", "00007.png"]
    assert not (out / "errors.csv").exists()


def test_frames_that_no_prediction_wrote_are_never_replaced(tmp_path, weights):
    """They may be the video itself, whose folder is named as the output."""
    folder = tmp_path / "my clip" / "frames"
    folder.mkdir(parents=True)
    for index, frame in enumerate(panning(9)):
        cv2.imwrite(str(folder / f"{index:05d}.png"), frame)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(StremnError, match=r"00000\.png, which no prediction wrote.*--out"):
        predict_video(folder, tmp_path / "my clip", observe=5, frames=2, weights=weights)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in (tmp_path / "my clip").iterdir()] == ["frames"]


def test_a_stream_without_an_end_needs_a_number_of_frames(tmp_path, weights, monkeypatch):
    def camera(_):
        return FrameSource((Shot(frame) for frame in panning(12)), label="camera", live=True)

    monkeypatch.setattr("stremn.prediction.files.open_frames", camera)
    with pytest.raises(StremnError, match=r"camera or live stream has no last frame.*--observe N"):
        predict_video("0", tmp_path / "a", frames=2, weights=weights)
    written = predict_video("0", str(tmp_path / "b"), frames=2, observe=5, weights=weights)
    assert [path.name for path in written.frames] == ["00005.png", "00006.png"]
    assert len(written.errors.predicted) == 2


@pytest.mark.parametrize(("height", "width"), [(4, 400), (400, 4), (2, 9000)])
def test_long_frames_fit_into_the_video(tmp_path, weights, height, width):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (height, width, 3)).astype(np.uint8) for _ in range(4)]
    written = predict_video(frames, tmp_path / "a", frames=1, weights=weights, size=None)
    with open_frames(written.video) as video:
        assert max(video.size) <= 16384
        assert len(list(video)) == 5


def test_the_shape_of_pixels_is_kept_beside_the_prediction(tmp_path, weights):
    """Where the picture keeps its proportions."""
    path = tmp_path / "clip.mp4"
    write_video(path, panning(6), 10, Fraction(4, 3))
    for name, aspect in ((weights, Fraction(4, 3)), ("digits", Fraction(1))):
        written = predict_video(path, tmp_path / "out", frames=1, weights=name)
        with open_frames(written.video) as video:
            assert video.pixel_aspect == aspect


def test_the_worst_prediction_has_a_psnr_of_zero():
    black, white = np.zeros((40, 50, 3), np.uint8), np.full((40, 50, 3), 255, np.uint8)
    assert f"{_psnr(black, white):.1f}" == "0.0"
