"""Clips of real video in color, with their proportions kept: for training without labels.

A folder holds `train`, `val` and `test`, each with video files or folders of images. Training clips
are drawn: a video, a moment, a stride, a square crop, a flip, a direction in time. The clips of the
other splits follow one another without overlap and are never augmented.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from stremn.data.readers.frame_clips import (
    KEPT_BYTES,
    GeneratedClips,
    Span,
    Split,
    check_index,
    count_frames,
    read_frames,
    videos_of,
)
from stremn.data.readers.lru_cache import Recent
from stremn.errors import StremnError

ROOM = 1.25
"""Shorter side of a decoded training video, in sides of a crop: how much closer a crop may go."""
STRIDES = (1, 1, 2)
"""Video frames from one training clip frame to the next; one of these is drawn."""


class _Videos:
    """Decoded videos, the latest used kept."""

    def __init__(self, shorter_side: int | None) -> None:
        self.shorter_side = shorter_side
        self._kept: Recent[Path, np.ndarray] = Recent(KEPT_BYTES, attrgetter("nbytes"))

    def frames(self, video: Path) -> UInt8[np.ndarray, "t height width 3"]:
        return self._kept.get(video, lambda: self._decode(video))

    def _decode(self, video: Path) -> UInt8[np.ndarray, "t height width 3"]:
        return np.stack([self._fit(frame) for frame in read_frames(video, 3)])

    def _fit(self, frame: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "h w 3"]:
        if self.shorter_side is None:
            return frame
        return to_shorter_side(frame, self.shorter_side)


class DrawnClips(GeneratedClips):
    """Training clips drawn at random from videos; the same index gives the same clip, always.

    Args:
        videos: files or folders of images.
        frames: frames in a clip.
        size: side of the square in pixels.
        length: number of clips.
        seed: other clips for every one.

    Raises:
        StremnError: no video is as long as a clip.
    """

    def __init__(
        self, videos: Sequence[Path], frames: int, size: int, length: int, seed: int
    ) -> None:
        super().__init__(length, seed)
        lengths = {video: count_frames(video) for video in videos}
        self.videos = [video for video, n in lengths.items() if n >= frames]
        if not self.videos:
            raise StremnError(
                f"No training video has the {frames} frames of a clip; the longest has "
                f"{max(lengths.values(), default=0)}. Ask for shorter clips, or give longer videos."
            )
        share = np.sqrt([lengths[video] for video in self.videos])  # long ones show less new
        self._share = share / share.sum()
        self.count, self.size = frames, size
        self._decoded = _Videos(round(ROOM * size))

    def __getitem__(self, index: int) -> UInt8[Tensor, "t 3 size size"]:
        """Return the clip at `index`."""
        check_index(index, self.length)
        rng = np.random.default_rng((self.seed, index))
        video = self._decoded.frames(self.videos[self._video(index)])
        fitting = [s for s in STRIDES if (self.count - 1) * s < len(video)]
        stride = int(rng.choice(fitting)) if fitting else 1
        start = int(rng.integers(len(video) - (self.count - 1) * stride))
        clip = video[start : start + (self.count - 1) * stride + 1 : stride]
        height, width = clip.shape[1:3]
        side = int(rng.integers(self.size, min(height, width) + 1))
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        clip = clip[:, top : top + side, left : left + side]
        if rng.random() < 0.5:
            clip = clip[:, :, ::-1]
        if rng.random() < 0.5:
            clip = clip[::-1]
        pictures = [_square(np.ascontiguousarray(frame), self.size) for frame in clip]
        return torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2).copy())

    def _video(self, index: int) -> int:
        rng = np.random.default_rng((self.seed, index, 1))
        return int(rng.choice(len(self.videos), p=self._share))

    def origin(self, index: int) -> str:
        """Return the path of the video that a clip is cut from."""
        return str(self.videos[self._video(index)].resolve())

    def origins(self) -> frozenset[str]:
        """Return the paths of the videos."""
        return frozenset(str(video.resolve()) for video in self.videos)


class WholeClips:
    """Clips of held-out videos, one after the other.

    Args:
        videos: files or folders of images.
        frames: frames in a clip.
        size: side of the middle square that is shown; None shows whole frames at their own size,
            less what goes beyond a multiple of `multiple`.
        multiple: of pixels, for frames at their own size.

    Raises:
        StremnError: no video is as long as a clip.
    """

    def __init__(
        self, videos: Sequence[Path], frames: int, size: int | None, multiple: int = 16
    ) -> None:
        self.spans = [
            Span(video, start, frames)
            for video in videos
            for start in range(0, count_frames(video) - frames + 1, frames)
        ]
        if not self.spans:
            raise StremnError(f"No video has the {frames} frames of a clip. Ask for shorter clips.")
        self.size, self.multiple = size, multiple
        self._decoded = _Videos(size)

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.spans)

    def __getitem__(self, index: int) -> UInt8[Tensor, "t 3 height width"]:
        """Return the clip at `index`."""
        check_index(index, len(self.spans))
        span = self.spans[index]
        clip = self._decoded.frames(span.video)[span.start : span.start + span.frames]
        height, width = clip.shape[1:3]
        high, wide = (
            (height - height % self.multiple, width - width % self.multiple)
            if self.size is None
            else (self.size, self.size)
        )
        top, left = (height - high) // 2, (width - wide) // 2
        clip = clip[:, top : top + high, left : left + wide]
        return torch.from_numpy(np.ascontiguousarray(clip.transpose(0, 3, 1, 2)))

    def origin(self, index: int) -> str:
        """Return the path of the video that a clip is cut from."""
        return str(self.spans[index].video.resolve())

    def origins(self) -> frozenset[str]:
        """Return the paths of the videos."""
        return frozenset(map(self.origin, range(len(self))))


def natural(
    root: Path, split: Split, frames: int, size: int | None, *, length: int, seed: int
) -> DrawnClips | WholeClips:
    """Return the clips of a split of a folder of real videos.

    Args:
        root: folder with `train`, `val` and `test`, or without: see `videos_of`.
        split: which part; "train" is drawn at random.
        frames: frames in a clip.
        size: side of the square in pixels; None, of held-out clips only, for whole frames.
        length: number of clips drawn for training.
        seed: of the draws.

    Raises:
        StremnError: no videos, or none that is long enough.
    """
    videos = videos_of(root, split)
    if split != "train":
        return WholeClips(videos, frames, size)
    if size is None:
        raise StremnError("Training clips have one size; give data.size in pixels, such as 128.")
    return DrawnClips(videos, frames, size, length, seed)


def to_shorter_side(
    frame: UInt8[np.ndarray, "height width c"], side: int
) -> UInt8[np.ndarray, "h w c"]:
    """Resize a frame so that its shorter side has `side` pixels; proportions are kept."""
    height, width = frame.shape[:2]
    scale = side / min(height, width)
    target = (max(side, round(width * scale)), max(side, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(frame, target, interpolation=how)


def _square(frame: UInt8[np.ndarray, "s s 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    if frame.shape[0] == size:
        return frame
    return cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
