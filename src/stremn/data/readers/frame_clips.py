"""Clips of frames for video prediction: what a source of them is, and clips cut from videos.

The same index gives the same clip, always. Every source names its origins (digits, persons, files),
so that `check_disjoint` can show that no two splits share one.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Literal, Protocol

import av
import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from stremn.data.readers.folders import images_in
from stremn.data.readers.lru_cache import Recent
from stremn.errors import StremnError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
KEPT_BYTES = 2**30
"""Bytes of decoded videos that a source of clips holds, in each worker."""
VIDEO_SUFFIXES = frozenset({".avi", ".mp4", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v"})


class FrameClips(Protocol):
    """A source of clips for prediction."""

    def __len__(self) -> int:
        """Return the number of clips."""
        ...

    def __getitem__(self, index: int) -> UInt8[Tensor, "t c height width"]:
        """Return the clip at `index`, always the same."""
        ...

    def origin(self, index: int) -> str:
        """Return what a clip is a sample of: clips of one origin are not independent
        ones."""
        ...

    def origins(self) -> frozenset[str]:
        """Return names of what the clips are made of; two splits must share none."""
        ...


class GeneratedClips:
    """Base of sources that make their clips: as many as are asked for, each drawn independently.

    Clip `index` depends on `seed` and `index` alone, so the clips are in no order and the first
    ones are as good a sample as any. Stored clips are in the order of their videos.
    """

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed = length, seed

    def __len__(self) -> int:
        """Return the number of clips."""
        return self.length


def check_disjoint(splits: Mapping[str, FrameClips]) -> None:
    """Refuse splits that share an origin (a digit, a person, a file).

    Raises:
        StremnError: naming both splits and up to three shared origins.
    """
    names = list(splits)
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            shared = sorted(splits[first].origins() & splits[second].origins())
            if shared:
                raise StremnError(
                    f"The splits {first!r} and {second!r} share {len(shared)} origins, for example "
                    f"{', '.join(shared[:3])}. A score on {second!r} would mean nothing; split the "
                    "data so that each digit, person or video is in one split only."
                )


def check_index(index: int, length: int) -> None:
    """Refuse the index of a clip that is not there.

    Raises:
        IndexError: not our own error, as it is what ends a `for` over a sequence.
    """
    if not 0 <= index < length:
        raise IndexError(f"clip {index} of {length}")


# ---------------------------------------------------------------------------------- videos


@dataclass(frozen=True)
class Span:
    """A clip's place in a video: every `stride`-th frame from `start`, `frames` of them."""

    video: Path
    start: int
    frames: int
    stride: int = 1


class SpanClips:
    """Clips cut from video files or folders of images, all resized to one square size.

    Args:
        spans: the clips' places.
        size: side in pixels; the aspect ratio is not kept (the protocols do not keep it).
        channels: 1 for grey, 3 for RGB.
        names: origin of each video; the file's own path by default.
    """

    def __init__(
        self,
        spans: Sequence[Span],
        size: int,
        channels: int,
        names: Mapping[Path, str] | None = None,
    ) -> None:
        if channels not in (1, 3):
            raise StremnError(f"Frames have 1 channel (grey) or 3 (RGB); got {channels}.")
        self.spans, self.size, self.channels = tuple(spans), size, channels
        self._names = dict(names or {})
        self._decoded: Recent[Path, np.ndarray] = Recent(KEPT_BYTES, attrgetter("nbytes"))

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.spans)

    def __getitem__(self, index: int) -> UInt8[Tensor, "t c size size"]:
        """Return the clip at `index`."""
        check_index(index, len(self.spans))
        span = self.spans[index]
        video = self._decoded.get(span.video, lambda: self._decode(span.video))
        last = span.start + (span.frames - 1) * span.stride
        if last >= len(video):
            raise StremnError(
                f"{span.video} has {len(video)} frames, but a clip needs frame {last}. "
                "Is the file complete, and does its list of sequences belong to it?"
            )
        clip = video[span.start : last + 1 : span.stride]
        return torch.from_numpy(np.ascontiguousarray(clip.transpose(0, 3, 1, 2)))

    def origin(self, index: int) -> str:
        """Return the person or file a clip comes from."""
        video = self.spans[index].video
        return self._names.get(video, str(video))

    def origins(self) -> frozenset[str]:
        """Return the persons or files the clips come from."""
        return frozenset(map(self.origin, range(len(self))))

    def _decode(self, path: Path) -> UInt8[np.ndarray, "t size size c"]:
        most = KEPT_BYTES // (self.size * self.size * self.channels)
        frames = [
            resize(frame, self.size) for frame in islice(read_frames(path, self.channels), most + 1)
        ]
        if len(frames) > most:
            raise StremnError(
                f"{path} has more than the {most} frames of {self.size}x{self.size} that are held "
                "decoded. Cut it into shorter videos; clips never reach from one into another."
            )
        return np.stack(frames)


def read_frames(path: Path, channels: int) -> Iterator[UInt8[np.ndarray, "height width c"]]:
    """Read the frames of a video file or of a folder of images, `frame2` before `frame10`.

    Args:
        path: the file or folder.
        channels: 1 for grey, 3 for RGB.

    Raises:
        StremnError: nothing readable there, or frames of different sizes.
    """
    shape: tuple[int, ...] | None = None
    for number, frame in enumerate(_raw_frames(path, channels)):
        if shape is not None and frame.shape != shape:
            raise StremnError(
                f"Frames of {path} differ in size: the first is {shape[1]}x{shape[0]}, frame "
                f"{number} is {frame.shape[1]}x{frame.shape[0]}. Resize them to one size first."
            )
        shape = frame.shape
        yield frame
    if shape is None:
        raise StremnError(f"No frames in {path}.")


def _raw_frames(path: Path, channels: int) -> Iterator[UInt8[np.ndarray, "height width c"]]:
    if path.is_dir():
        for image in images_in(path):
            frame = cv2.imread(
                str(image), cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR
            )
            if frame is None:
                raise StremnError(f"{image} cannot be read as an image.")
            yield frame[..., None] if channels == 1 else cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        return
    if not path.exists():
        raise StremnError(f"There is no video at {path}.")
    try:
        with av.open(str(path)) as container:
            for decoded in container.decode(video=0):
                array = decoded.to_ndarray(format="gray" if channels == 1 else "rgb24", threads=1)
                yield array[..., None] if channels == 1 else array
    except (av.FFmpegError, IndexError) as error:
        raise StremnError(f"{path} cannot be decoded as a video: {error}.") from error


def resize(
    frame: UInt8[np.ndarray, "height width c"], size: int
) -> UInt8[np.ndarray, "size size c"]:
    """Resize to a square bilinearly, channels last (as OpenCV's default does)."""
    resized = cv2.resize(frame, (size, size), interpolation=cv2.INTER_LINEAR)
    return resized.reshape(size, size, frame.shape[2])


# ------------------------------------------------------------------------ folder of videos


def video_folder(
    root: Path,
    split: Split,
    frames: int,
    size: int,
    channels: int,
    stride: int = 1,
) -> SpanClips:
    """Return the clips of a folder of videos (files, or subfolders of images).

    Subfolders `train`, `val` and `test` that hold videos are the splits; not all are needed.
    Without any, a hash of the file's name puts each video in one: 8 of 10 train, 1 val, 1 test;
    the same name always in the same.
    The clips of a video follow one another without overlap.

    Args:
        root: the folder.
        split: which part.
        frames: frames in a clip.
        size: side of the square in pixels.
        channels: 1 for grey, 3 for RGB.
        stride: video frames from one clip frame to the next.
    """
    videos = videos_of(root, split)
    span = (frames - 1) * stride + 1
    spans = [
        Span(video, start, frames, stride)
        for video in videos
        for start in range(0, count_frames(video) - span + 1, span)
    ]
    if not spans:
        raise StremnError(
            f"No video in {root} has the {span} frames that a clip of {frames} frames at stride "
            f"{stride} needs. Ask for shorter clips."
        )
    return SpanClips(spans, size, channels)


def videos_of(root: Path, split: Split) -> list[Path]:
    """Return the videos of a split: see `video_folder`.

    Raises:
        StremnError: no folder, or no videos for the split.
    """
    if not root.is_dir():
        raise StremnError(f"{root} is not a folder; a folder of videos was expected.")
    splits = [n for n in SPLITS if (root / n).is_dir() and not images_in(root / n)]
    if splits:
        videos = _videos(root / split) if split in splits else []
    else:
        videos = [video for video in _videos(root) if split_of(video.name) == split]
    if not videos:
        raise StremnError(
            f"{root} has no videos for the split {split!r}. Put video files or folders of images "
            "there, or in a subfolder of that name: train, val or test."
        )
    return videos


def _videos(root: Path) -> list[Path]:
    return sorted(
        path
        for path in root.iterdir()
        if path.suffix.lower() in VIDEO_SUFFIXES or (path.is_dir() and images_in(path))
    )


def split_of(name: str) -> Split:
    """Return the split that a hash of a file's name puts it in."""
    bucket = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % 10
    return "val" if bucket == 8 else "test" if bucket == 9 else "train"


def count_frames(video: Path) -> int:
    """Return the number of frames of a video file or folder of images; nothing is decoded."""
    if video.is_dir():
        return len(images_in(video))
    # Containers lie about their length; the packets do not, and need no decoding.
    try:
        with av.open(str(video)) as container:
            return sum(packet.size > 0 for packet in container.demux(video=0))
    except (av.FFmpegError, IndexError) as error:
        raise StremnError(f"{video} cannot be read as a video: {error}.") from error
