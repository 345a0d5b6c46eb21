"""Which clips a predictor's training sees: drawn from stored ones, one by one of generated ones."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from stremn.data.readers.digits import hidden_digit, moving_digits
from stremn.data.readers.frame_clips import FrameClips, SpanClips, video_folder
from stremn.data.readers.human import HumanWalking
from stremn.data.readers.natural_clips import natural
from stremn.data.readers.photo_pans import photo_pans
from stremn.training.prediction.data import NumberedClips

VIDEOS, CLIPS = 10, 12


class Listed:
    """Stored clips that know their place alone: clip i is the number i."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((1, 1, 1, 1), index, dtype=torch.int32)

    def origin(self, index: int) -> str:
        return str(index)

    def origins(self) -> frozenset[str]:
        return frozenset(map(str, range(self.count)))


def drawn(source: FrameClips, length: int, seed: int = 0) -> list[int]:
    samples = NumberedClips(source, length, seed)
    assert len(samples) == length
    return [int(samples[index].max()) for index in range(length)]


def folder(root: Path) -> SpanClips:
    """Videos of clips that show their video's number."""
    for video in range(VIDEOS):
        path = root / "train" / f"{video:02d}"
        path.mkdir(parents=True)
        for frame in range(2 * CLIPS):
            cv2.imwrite(str(path / f"{frame}.png"), np.full((8, 8), 20 * video, np.uint8))
    return video_folder(root, "train", frames=2, size=8, channels=1)


def walks(root: Path) -> HumanWalking:
    for video, subject in enumerate(("S1", "S5", "S6", "S7")):
        for frame in range(5 * CLIPS):
            picture = np.full((8, 8, 3), 60 * video, np.uint8)
            cv2.imwrite(str(root / f"{subject}_Walking.0_{5 * frame:06d}.jpg"), picture)
    return HumanWalking(root, "train", frames=2, size=8)


@pytest.mark.parametrize(("make", "videos"), [(folder, VIDEOS), (walks, 4)])
def test_a_short_training_sees_clips_of_all_videos(tmp_path: Path, make, videos: int) -> None:
    source = make(tmp_path)
    length = len(source) // 2
    seen = drawn(source, length)
    assert len(set(seen)) == videos
    ways = np.count_nonzero(np.diff(seen))
    assert ways > length // 2  # from one sample to the next mostly to another video


@pytest.mark.parametrize("length", [30, 100, 500])
def test_the_draw_depends_on_seed_and_number_alone(length: int) -> None:
    """Not on the steps of the training, which may change when it is resumed."""
    source = Listed(100)
    assert drawn(source, length)[:30] == drawn(source, 1000)[:30]
    assert drawn(source, length) != drawn(source, length, seed=1)
    counts = np.bincount(drawn(source, 2000), minlength=100)
    assert counts.min() > 0
    assert counts.max() < 60


DIGITS = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)


def generated(kind: str, root: Path, length: int) -> FrameClips:
    noise = np.random.default_rng(0)
    for index in range(6):
        path = root / "train" / str(index)
        path.mkdir(parents=True, exist_ok=True)
        for frame in range(4):
            picture = noise.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            cv2.imwrite(str(path / f"{frame}.png"), picture)
        cv2.imwrite(str(root / f"{index}.png"), picture)
    make = {
        "moving-digits": lambda: moving_digits(DIGITS, length, seed=3),
        "hidden-digit": lambda: hidden_digit(DIGITS, length, seed=3),
        "natural": lambda: natural(root, "train", 2, 16, length=length, seed=3),
        "photo-pans": lambda: photo_pans(root, "train", 4, 16, length=length, seed=3),
    }
    return make[kind]()


@pytest.mark.parametrize("kind", ["moving-digits", "hidden-digit", "natural", "photo-pans"])
def test_each_generated_clip_is_used_once_and_in_its_place(kind: str, tmp_path: Path) -> None:
    source = generated(kind, tmp_path, 9)
    samples = NumberedClips(source, 9, seed=5)
    assert len(source) == 9
    for index in range(9):
        assert torch.equal(samples[index], source[index])
    longer = NumberedClips(generated(kind, tmp_path, 20), 20, seed=5)
    assert torch.equal(longer[7], samples[7])
