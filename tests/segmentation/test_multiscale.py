from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest

from stremn.errors import StremnError
from stremn.segmentation.multiscale import MultiScaleSession, View, fused_labels
from stremn.segmentation.reports import MemoryReport
from stremn.segmentation.sessions import SegmentationSession


@dataclass
class Answer:
    ids: tuple[int, ...]
    probabilities: np.ndarray
    memory: MemoryReport = field(default_factory=lambda: MemoryReport((), 100))


@dataclass
class Redness:
    """Object 1 is as likely as the pixel is red, object 7 as it is green (at most half each)."""

    size: int
    masks: list[np.ndarray | None] = field(default_factory=list)

    def step(self, frame, mask=None):
        self.masks.append(mask)
        colors = frame[..., :2].transpose(2, 0, 1).astype(np.float32) / 510
        return Answer((1, 7), colors)

    def remove_object(self, object_id):
        raise StremnError(f"There is no object {object_id}.")


def smooth_frame(height=48, width=64):
    noise = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def test_a_mirrored_view_is_put_back_in_place():
    frame = smooth_frame()
    fused = MultiScaleSession(Redness, size=48, scales=(1.0,), flip=True).step(frame)
    alone = Redness(48).step(frame)
    assert np.array_equal(fused.probabilities, alone.probabilities)
    assert not np.array_equal(frame, frame[:, ::-1])
    assert fused.ids == (1, 7)


def test_average_over_views_by_hand():
    @dataclass
    class Dimmed(Redness):
        """Answers less the larger it works."""

        def step(self, frame, mask=None):
            answer = Redness.step(self, frame, mask)
            return Answer(answer.ids, answer.probabilities * np.float32(48 / self.size))

    frame = smooth_frame()
    fused = MultiScaleSession(Dimmed, size=48, scales=(1.0, 2.0), flip=False).step(frame)
    expected = Redness(48).step(frame).probabilities * 0.75
    assert fused.probabilities == pytest.approx(expected, abs=1e-6)


def test_every_view_is_given_its_own_mask():
    made = []

    def make(size):
        made.append(Redness(size))
        return made[-1]

    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, 4:8] = 7
    session = MultiScaleSession(make, size=48, scales=(1.0, 2.0))
    session.step(smooth_frame(), mask)
    session.step(smooth_frame())
    assert np.array_equal(made[0].masks[0], mask)
    assert np.array_equal(made[1].masks[0], mask[:, ::-1])
    assert np.array_equal(made[2].masks[0], mask)
    assert all(view.masks[1] is None for view in made)
    assert session.views == (View(48, False), View(48, True), View(96, False), View(96, True))


def test_memory_is_that_of_all_views():
    fused = MultiScaleSession(Redness, size=48, scales=(1.0, 1.3)).step(smooth_frame())
    assert fused.memory.nbytes == 400


def test_labels_are_the_likeliest():
    probabilities = np.array([[[0.4, 0.2, 0.6]], [[0.35, 0.1, 0.4]]], np.float32)
    assert fused_labels(probabilities, (3, 9)).tolist() == [[3, 0, 3]]
    assert fused_labels(probabilities, (3, 300)).dtype == np.uint16


def test_without_objects_all_is_background(model):
    session = MultiScaleSession(
        lambda size: SegmentationSession(model, size=size, device="cpu"), size=64, scales=(1.0,)
    )
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 10:30] = 5
    session.step(smooth_frame(), mask)
    session.remove_object(5)
    result = session.step(smooth_frame())
    assert result.ids == ()
    assert result.probabilities.shape == (0, 48, 64)
    assert not result.labels.any()


def test_bad_scales():
    for scales in ((), (1.0, 0.0), (float("nan"),), (float("inf"),)):
        with pytest.raises(
            StremnError, match="Scales must be positive and finite, and at least one"
        ):
            MultiScaleSession(Redness, scales=scales)


def test_removing_an_object_reaches_the_views():
    with pytest.raises(StremnError, match="no object 5"):
        MultiScaleSession(Redness).remove_object(5)


@dataclass
class Failing(Redness):
    """Runs out of memory when it is told to, at the given size."""

    at: int = 0

    def step(self, frame, mask=None):
        if self.size == self.at:
            raise MemoryError
        return super().step(frame, mask)


def test_views_of_different_frames_are_never_averaged():
    views = []

    def make(size):
        views.append(Failing(size))
        return views[-1]

    session = MultiScaleSession(make, size=48, scales=(1.0, 2.0), flip=False)
    views[0].at = 48  # no view has gone on
    with pytest.raises(MemoryError):
        session.step(smooth_frame())
    views[0].at, views[1].at = 0, 96  # one has, the other has not
    with pytest.raises(MemoryError):
        session.step(smooth_frame())
    views[1].at = 0
    for call in (lambda: session.step(smooth_frame()), lambda: session.remove_object(1)):
        with pytest.raises(StremnError, match="was interrupted while its memory was written"):
            call()
    assert [len(view.masks) for view in views] == [1, 0]


def test_one_upright_view_is_the_session_itself(model):
    options = {"device": "cpu", "precision": "float32", "memory_slots": 3}
    options |= {"policy": "learned", "reach": None}
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (4, 64, 80, 3), np.uint8)
    mask = np.zeros((64, 80), np.uint8)
    mask[16:40, 16:40] = 5
    alone = SegmentationSession(model, size=64, **options)
    fused = MultiScaleSession(
        lambda size: SegmentationSession(model, size=size, **options),
        size=64,
        scales=(1.0,),
        flip=False,
    )
    both = MultiScaleSession(
        lambda size: SegmentationSession(model, size=size, **options), size=64, scales=(1.0, 1.25)
    )
    for index, frame in enumerate(frames):
        given = mask if index == 0 else None
        expected, result = alone.step(frame, given), fused.step(frame, given)
        assert np.array_equal(result.labels, expected.labels)
        assert result.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
        assert result.memory == expected.memory
        many = both.step(frame, given)
        assert many.labels.shape == (64, 80)
        assert many.probabilities.shape == (1, 64, 80)
        assert many.memory.nbytes > 4 * expected.memory.nbytes
    both.remove_object(5)
