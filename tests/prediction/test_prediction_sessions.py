"""Streaming prediction: equal to the roll-out, unharmed by bad input, saved and restored."""

import json
import threading

import av
import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from stremn.data.readers.digits import moving_digits
from stremn.errors import StremnError
from stremn.prediction.baselines import RecurrentConfig, build_baseline
from stremn.prediction.building import build_predictor
from stremn.prediction.config import PredictionConfig
from stremn.prediction.files import predict_video
from stremn.prediction.sessions import PredictionSession, as_unit_range, to_channels
from stremn.prediction.weights import load_memory_predictor, load_predictor, save_predictor

TINY = PredictionConfig(
    size=16,
    widths=(8,) * 6,
    strides=(2, 1, 2, 1, 1, 1),
    key=6,
    value=8,
    update_key=6,
    memory_slots=3,
)


def tiny(**changes):
    torch.manual_seed(0)
    return build_predictor(TINY.model_copy(update=changes)).eval()


def stream(count, size=16, channels=None, seed=0):
    shape = (count, size, size) if channels is None else (count, size, size, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("observed", [3, 4, 5, 9])
@pytest.mark.parametrize("carried", [0, 5])
@pytest.mark.parametrize("policy", ["learned", "oldest"])
def test_a_session_predicts_what_the_rollout_predicts(observed, policy, carried):
    model, frames = tiny(policy=policy, carried=carried), stream(observed)
    session = PredictionSession(model)
    for frame in frames:
        session.observe(frame)
    clip = torch.from_numpy(frames)[None, :, None].float() / 255
    with torch.inference_mode():
        expected = model.rollout(clip, observed, 4).frames[0, -4:, 0]
    np.testing.assert_allclose(session.predict(4)[..., 0], 255 * expected, atol=0.51)


def test_white_frames_that_are_shrunk_are_saved_and_loaded(tmp_path):
    model, white = tiny(), np.full((480, 640), 255, np.uint8)
    session = PredictionSession(model)
    for _ in range(5):
        session.observe(white)
    session.save(tmp_path / "state.safetensors")
    loaded = PredictionSession.load(tmp_path / "state.safetensors", model)
    np.testing.assert_array_equal(loaded.predict(2), session.predict(2))


def test_predicting_does_not_change_the_session():
    with_peeks, without = PredictionSession(tiny()), PredictionSession(tiny())
    for frame in stream(7):
        with_peeks.observe(frame)
        without.observe(frame)
        if with_peeks.frames_seen >= 3:
            with_peeks.predict(3)
    np.testing.assert_array_equal(with_peeks.predict(5), without.predict(5))
    np.testing.assert_array_equal(with_peeks.predict(5)[:2], with_peeks.predict(2))


def test_the_memory_of_a_session_never_grows_and_says_what_it_holds():
    session = PredictionSession(tiny(policy="oldest"))
    sizes = set()
    for frame in stream(12):
        session.observe(frame)
        sizes.add(session.memory_bytes)
    assert len(sizes) == 1
    assert session.remembered == (8, 9, 10)  # the stack that ends at 11 is read with, then written


@pytest.mark.parametrize("carried", [0, 5])
def test_a_saved_session_goes_on_as_if_never_stopped(tmp_path, carried):
    frames, model = stream(9), tiny(carried=carried)
    for cut in (0, 2, 4, 8):
        whole, part = PredictionSession(model), PredictionSession(model)
        for frame in frames[:cut]:
            part.observe(frame)
        part.save(tmp_path / "session.safetensors")
        resumed = PredictionSession.load(tmp_path / "session.safetensors", model)
        for frame in frames[cut:]:
            resumed.observe(frame)
        for frame in frames:
            whole.observe(frame)
        np.testing.assert_array_equal(resumed.predict(3), whole.predict(3))
        assert resumed.remembered == whole.remembered
        assert resumed.frames_seen == 9


def test_sessions_of_other_models_and_other_files_are_refused(tmp_path):
    path = tmp_path / "session.safetensors"
    PredictionSession(tiny()).save(path)
    with pytest.raises(StremnError, match="belongs to a model with another configuration"):
        PredictionSession.load(path, tiny(memory_slots=4))
    save_predictor(tiny(), tmp_path / "weights.safetensors")
    with pytest.raises(StremnError, match="holds no prediction session"):
        PredictionSession.load(tmp_path / "weights.safetensors", tiny())
    with pytest.raises(StremnError, match="There is no saved session"):
        PredictionSession.load(tmp_path / "none.safetensors", tiny())


def _with_facts(path, **changes):
    """Rewrite a saved session with other facts; a value of None takes a field of the config out."""
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["stremn_prediction_session"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, value in changes.items():
        if value is None:
            del facts["config"][name]
        else:
            facts[name] = value
    save_file(tensors, path, metadata={"stremn_prediction_session": json.dumps(facts)})


def test_a_session_from_before_a_field_was_added_is_read(tmp_path):
    path = tmp_path / "session.safetensors"
    session = PredictionSession(tiny())
    for frame in stream(5):
        session.observe(frame)
    session.save(path)
    _with_facts(path, carried=None, carried_kernel=None)
    np.testing.assert_array_equal(
        PredictionSession.load(path, tiny()).predict(2), session.predict(2)
    )


def test_a_session_of_another_format_is_refused(tmp_path):
    path = tmp_path / "session.safetensors"
    PredictionSession(tiny()).save(path)
    _with_facts(path, format=9)
    with pytest.raises(StremnError, match="has format 9, this version reads format 1"):
        PredictionSession.load(path, tiny())


def test_bad_frames_are_named_and_leave_the_session_as_it_was():
    session = PredictionSession(tiny())
    frames = stream(5)
    for frame in frames[:4]:
        session.observe(frame)
    before = session.predict(3)
    bad = {
        r"the first is 16x16, frame 4 is 20x16": np.zeros((16, 20), np.uint8),
        r"reach from \d+ to 25\d": frames[4].astype(np.float32),
        r"reach from nan": np.full((16, 16), np.nan),
        r"got int64": frames[4].astype(np.int64),
        r"got \(16, 16, 2\)": np.zeros((16, 16, 2), np.uint8),
    }
    for message, frame in bad.items():
        with pytest.raises(StremnError, match=message):
            session.observe(frame)
    assert session.frames_seen == 4
    np.testing.assert_array_equal(session.predict(3), before)


def test_too_few_frames_or_none_asked_for_are_named():
    session = PredictionSession(tiny())
    session.observe(stream(1)[0])
    with pytest.raises(StremnError, match="stack of 3 frames, but only 1 were observed"):
        session.predict(2)
    with pytest.raises(StremnError, match="The number of frames must be at least 1, got 0"):
        session.predict(0)


@pytest.mark.parametrize("channels", [1, 3])
def test_frames_of_any_size_and_kind_become_the_models(channels):
    session = PredictionSession(tiny(channels=channels))
    for frame in stream(4, size=40, channels=3):
        session.observe(frame)
    assert session.predict(2).shape == (2, 16, 16, channels)


def test_conversion_of_frames():
    white = np.full((2, 2, 3), 255, np.uint8)
    np.testing.assert_allclose(to_channels(as_unit_range(white), 1), np.ones((2, 2, 1)), atol=1e-6)
    assert to_channels(as_unit_range(white[..., 0]), 3).shape == (2, 2, 3)
    half = np.full((2, 2), 0.5)
    np.testing.assert_array_equal(as_unit_range(half), half.astype(np.float32))
    with pytest.raises(StremnError, match=r"got \(0, 2, 3\)"):
        to_channels(np.zeros((0, 2, 3), np.float32), 1)


# --- weights


def test_weights_carry_their_configuration(tmp_path):
    path = tmp_path / "model.safetensors"
    model = tiny(policy="evidence", output="residual")
    save_predictor(model, path)
    again = load_memory_predictor(path)
    assert again.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    baseline = build_baseline(RecurrentConfig(kind="convlstm", hidden=4))
    save_predictor(baseline, path)
    assert load_predictor(path).config == baseline.config
    with pytest.raises(StremnError, match="holds the baseline 'convlstm'"):
        load_memory_predictor(path)


def test_files_that_are_no_weights_are_named(tmp_path):
    with pytest.raises(StremnError, match=r"There are no weights at .* or one of: natural, digits"):
        load_predictor(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(StremnError, match="is damaged or not a weights file"):
        load_predictor(tmp_path / "text.safetensors")
    PredictionSession(tiny()).save(tmp_path / "session.safetensors")
    with pytest.raises(StremnError, match="holds no model of stremn; expected one for prediction"):
        load_predictor(tmp_path / "session.safetensors")


# --- files


@pytest.fixture
def weights(tmp_path):
    save_predictor(tiny(), tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def test_predict_writes_frames_video_and_strip(tmp_path, weights):
    written = predict_video(stream(8, 40, 3), tmp_path / "out", frames=5, weights=weights)
    assert [path.name for path in written.frames] == [f"{i:05d}.png" for i in range(8, 13)]
    session = PredictionSession(load_memory_predictor(weights))
    for frame in stream(8, 40, 3):
        session.observe(frame)
    pictures = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in written.frames]
    np.testing.assert_array_equal(pictures, session.predict(5)[..., 0])
    with av.open(str(written.video)) as video:
        shown = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(shown) == 8 + 5
    assert shown[0].shape == (128, 2 * 128 + 4, 3)
    assert cv2.imread(str(written.strip)).shape[1] == 8 * 66
    assert "Observed 8 frames, predicted 5 at 16x16 grey (input 40x40, resized)" in written.note


def test_the_strip_shows_a_few_frames_of_a_long_prediction(tmp_path, weights):
    written = predict_video(
        stream(30, 16, 3), tmp_path / "a", frames=14, holdout=14, weights=weights
    )
    assert len(written.frames) == 14
    assert cv2.imread(str(written.strip)).shape[1] == 10 * 66


def test_predict_can_hold_out_the_end_as_truth(tmp_path, weights):
    frames = stream(9, 16, 3)
    written = predict_video(frames, tmp_path / "a", frames=4, observe=6, weights=weights)
    shorter = predict_video(frames[:6], tmp_path / "b", frames=4, weights=weights)
    for one, other in zip(written.frames, shorter.frames, strict=True):
        assert one.read_bytes() == other.read_bytes()
    three_rows, two_rows = (cv2.imread(str(x.strip)).shape[0] for x in (written, shorter))
    assert three_rows > two_rows


def test_predict_says_what_is_wrong_before_it_writes(tmp_path, weights):
    out = tmp_path / "out"
    with pytest.raises(StremnError, match="only 2 were observed"):
        predict_video(stream(2, 16, 3), out, weights=weights)
    with pytest.raises(StremnError, match="only 5 frames, fewer than the 9 to observe"):
        predict_video(stream(5, 16, 3), out, observe=9, weights=weights)
    assert not out.exists()


def test_the_shipped_weights_know_moving_digits():
    """They must at least beat black and the last frame on the first predicted frame."""
    digit = np.zeros((1, 28, 28), np.uint8)
    cv2.ellipse(digit[0], (14, 14), (6, 9), 0, 0, 360, 255, 3)  # a zero
    model = load_memory_predictor("digits")
    side = model.config.size
    clips = torch.stack(list(moving_digits(digit, 8, 11, side, side * 28 // 64, count=1)))
    frames = clips.float() / 255
    with torch.inference_mode():
        predicted = model.rollout(frames, 10, 1).frames[:, -1]
    truth = frames[:, 10]
    error = float((predicted - truth).square().mean())
    assert error < 0.8 * float(truth.square().mean())
    assert error < float((frames[:, 9] - truth).square().mean())


def test_a_session_is_saved_between_two_frames(tmp_path, monkeypatch):
    """Never in the middle of one, while another thread observes."""
    session = PredictionSession(tiny())
    *seen, latest = stream(6)
    for frame in seen:
        session.observe(frame)
    inside, go_on = threading.Event(), threading.Event()
    encode = session.model.encode_query

    def slow(*arguments):
        inside.set()
        go_on.wait(10)
        return encode(*arguments)

    monkeypatch.setattr(session.model, "encode_query", slow)
    path = tmp_path / "state.safetensors"
    observing = threading.Thread(target=session.observe, args=(latest,))
    saving = threading.Thread(target=session.save, args=(str(path),))
    observing.start()
    inside.wait(10)
    saving.start()
    saving.join(0.2)
    assert not path.exists()
    go_on.set()
    observing.join()
    saving.join()
    assert PredictionSession.load(str(path), tiny()).frames_seen == 6
