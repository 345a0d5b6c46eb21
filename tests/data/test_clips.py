"""Clips, batches, and the numbering that makes runs resumable."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from stremn.data.clips.clip import Clip, ClipBatch, ClipDataset, Stage, collate, introduce
from stremn.errors import StremnError
from stremn.media.mask_codes import VOID


@dataclass(frozen=True)
class Noise:
    """A source of random pixels; every clip differs, and says how far the training was."""

    objects: int = 1

    def sample(self, rng: np.random.Generator, frames: int, size: int, progress: float) -> Clip:
        pixels = rng.integers(0, 256, (frames, 3, size, size), dtype=np.uint8)
        pixels[0, 0, 0, 0] = round(255 * progress)
        labels = np.zeros((frames, size, size), dtype=np.uint8)
        labels[:, 0, : self.objects] = np.arange(1, self.objects + 1)
        return Clip(pixels, labels, np.zeros(self.objects, dtype=np.int64))


def dataset(seed: int = 0) -> ClipDataset:
    return ClipDataset(
        {"one": Noise(1), "two": Noise(2)},
        [Stage(40, 3, 8, {"one": 3.0, "two": 1.0}), Stage(60, 5, 16, {"two": 1.0})],
        seed,
    )


def test_a_clip_depends_on_seed_and_number_alone() -> None:
    clips = dataset()
    forward = [clips[i].frames for i in range(10)]
    fresh = dataset()
    backward = [fresh[i].frames for i in reversed(range(10))][::-1]
    for a, b in zip(forward, backward, strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(clips[3].frames, clips[4].frames)
    assert not np.array_equal(clips[3].frames, dataset(seed=1)[3].frames)


def test_stages_follow_one_another_and_progress_covers_the_run() -> None:
    clips = dataset()
    shapes = [clips[i].frames.shape for i in range(len(clips))]
    assert shapes == [(3, 3, 8, 8)] * 40 + [(5, 3, 16, 16)] * 60
    assert {clips[i].given.size for i in range(40, 100)} == {2}
    assert clips[0].frames[0, 0, 0, 0] == 0
    assert clips[99].frames[0, 0, 0, 0] == round(255 * 0.99)
    with pytest.raises(IndexError, match="clip 100 of 100"):
        clips[100]


def test_sources_are_drawn_by_weight() -> None:
    clips = ClipDataset(
        {"one": Noise(1), "two": Noise(2), "never": Noise(3)},
        [Stage(2000, 1, 4, {"one": 3, "two": 1})],
        seed=5,
    )
    objects = np.array([clips[i].given.size for i in range(2000)])
    assert set(objects) == {1, 2}
    # Three standard deviations of a share of 0.25 in 2,000 draws.
    assert np.mean(objects == 2) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([Stage(1, 1, 4, {"three": 1.0})], "sources that do not exist: three. Known sources: one"),
        ([Stage(1, 1, 4, {"one": -1.0})], "must not be negative"),
        ([Stage(1, 1, 4, {"one": 0.0})], "one must be positive"),
        ([], "at least one stage"),
        ([Stage(0, 1, 4, {"one": 1.0})], "at least one clip"),
    ],
)
def test_an_impossible_mixture_is_refused(stages: list[Stage], message: str) -> None:
    with pytest.raises(StremnError, match=message):
        ClipDataset({"one": Noise()}, stages, 0)


def some(frames: int = 2, size: int = 4, objects: int = 1) -> Clip:
    return Noise(objects).sample(np.random.default_rng(0), frames, size, 0.0)


def test_collate_stacks_and_pads() -> None:
    batch = collate([some(objects=1), some(objects=3)])
    assert batch.frames.shape == (2, 2, 3, 4, 4)
    assert batch.labels.dtype == torch.uint8
    assert batch.given.tolist() == [[0, -1, -1], [0, 0, 0]]
    assert batch.to("cpu").given.equal(batch.given)


def test_collate_refuses_unequal_clips() -> None:
    with pytest.raises(StremnError, match="must have equal frames and size"):
        collate([some(frames=2), some(frames=3)])


FRAMES = np.zeros((2, 3, 4, 4), dtype=np.uint8)
LABELS = np.ones((2, 4, 4), dtype=np.uint8)
GIVEN = np.zeros(1, dtype=np.int64)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("frames", "labels", "given", "message"),
    [
        (FRAMES.astype(float), LABELS, GIVEN, "must be uint8"),
        (FRAMES, LABELS[:1], GIVEN, r"needs frames \(t, 3, height, width\)"),
        (FRAMES[:, :2], LABELS, GIVEN, r"needs frames \(t, 3, height, width\)"),
        (FRAMES, LABELS, GIVEN[:0], "at least one object"),
        (FRAMES, LABELS, np.array([1]), "introduced in frame 0"),
        (FRAMES, LABELS, np.array([0, 2]), "cannot introduce an object in frame 2"),
        (FRAMES, LABELS * 2, GIVEN, "hold object 2, but only 1 are given"),
        (FRAMES, LABELS * VOID, GIVEN, "Object 1 has no pixel in frame 0"),
    ],
)
def test_a_contradictory_clip_is_refused(
    frames: np.ndarray, labels: np.ndarray, given: np.ndarray, message: str
) -> None:
    with pytest.raises(StremnError, match=message):
        Clip(frames, labels, given)


@pytest.mark.usefixtures("unchecked")
def test_a_contradictory_batch_is_refused() -> None:
    batch = collate([some()])
    with pytest.raises(StremnError, match="A clip batch needs frames"):
        ClipBatch(batch.frames, batch.labels[:, :1], batch.given)
    with pytest.raises(StremnError, match="uint8 frames and labels and int64 given"):
        ClipBatch(batch.frames, batch.labels, batch.given.int())


def frames_with(areas: list[list[int]]) -> np.ndarray:
    """Label maps of 10 x 10 pixels; object o has areas[o][t] pixels in rows of its own."""
    labels = np.zeros((len(areas[0]), 10, 10), dtype=np.uint8)
    for number, sizes in enumerate(areas, start=1):
        for frame, size in enumerate(sizes):
            rows = labels[frame, 4 * (number - 1) : 4 * number].reshape(-1)
            rows[:size] = number
            labels[frame, 4 * (number - 1) : 4 * number] = rows.reshape(-1, 10)
    labels[:, 9, 9] = VOID
    return labels


def test_an_object_is_given_in_frame_0_or_when_most_of_it_is_seen() -> None:
    labels = frames_with([[5, 20, 20, 0], [0, 6, 12, 20]])
    result, given = introduce(labels, 2, visible=5, late=True) or pytest.fail("no clip")
    # Object 2 shows 6 of at most 20 pixels in frame 1, which is not yet 0.4.
    assert given.tolist() == [0, 2]
    assert [np.count_nonzero(result[t] == 2) for t in range(4)] == [0, 0, 12, 20]
    assert (result[:, 9, 9] == VOID).all()
    assert np.array_equal(result == 1, labels == 1)


def test_objects_never_given_are_background_and_the_others_are_renumbered() -> None:
    labels = frames_with([[4, 4, 4], [10, 10, 0]])
    result, given = introduce(labels, 2, visible=5, late=True) or pytest.fail("no clip")
    assert given.tolist() == [0]
    assert np.array_equal(result == 1, labels == 2)
    early = introduce(frames_with([[9, 9], [0, 9]]), 2, visible=5, late=False)
    assert early is not None
    assert early[1].tolist() == [0]


def test_no_object_in_frame_0_is_no_clip() -> None:
    assert introduce(frames_with([[4, 30]]), 1, visible=5, late=True) is None
