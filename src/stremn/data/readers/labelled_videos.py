"""Videos with label maps to train on: what one is, reading them with a cache, what is broken."""

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
from jaxtyping import Integer, UInt8

from stremn.data.readers.checking import Told, look_at_each
from stremn.data.readers.lru_cache import Recent
from stremn.data.readers.problems import DataProblem
from stremn.data.shapes import Mask, id_counts
from stremn.errors import StremnError
from stremn.media.frames import Picture
from stremn.media.mask_codes import VOID


class LabelledVideo(Protocol):
    """A video with label maps for some of its frames."""

    @property
    def name(self) -> str:
        """Name, for messages; unique among the videos of a source."""
        ...

    def __len__(self) -> int: ...

    def frame(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return frame `index`, RGB."""
        ...

    def label(self, index: int) -> Integer[np.ndarray, "height width"] | None:
        """Return the label map of a frame (0 background, 255 void), or None if it has none."""
        ...


class VideoReader:
    """Videos, with the frames read last kept in memory.

    limit: bytes of what is kept, decoded. short_side: pixels to which frames that are larger on
    their shorter side are reduced.
    """

    def __init__(
        self, videos: Sequence[LabelledVideo], limit: int = 512 * 2**20, short_side: int = 480
    ) -> None:
        if not videos:
            raise StremnError("Video clips need at least one video.")
        self.videos = list(videos)
        self.limit = limit
        self._short_side = short_side
        self._recent: Recent[tuple[int, int], tuple[Picture, Mask | None]] = Recent(limit, _bytes)

    def length(self, video: int) -> int:
        """Return the number of frames."""
        return len(self.videos[video])

    def read(self, video: int, index: int) -> tuple[Picture, Mask | None]:
        """Return frame `index` and its label map, or None where there is none.

        Raises StremnError for files that cannot be read, unequal sizes and ids above 255.
        """
        return self._recent.get((video, index), lambda: self._load(video, index))

    def _load(self, video: int, index: int) -> tuple[Picture, Mask | None]:
        source = self.videos[video]
        frame, label = source.frame(index), source.label(index)
        if label is not None and label.max() > VOID:
            raise StremnError(
                f"Frame {index} of {source.name} holds id {int(label.max())}; "
                "training clips take ids up to 254."
            )
        ids = None if label is None else label.astype(np.uint8)
        if ids is not None and ids.shape != frame.shape[:2]:
            raise StremnError(
                f"Frame {index} of {source.name} has {frame.shape[1]}x{frame.shape[0]} pixels, "
                f"its label map {ids.shape[1]}x{ids.shape[0]}; they must be equal."
            )
        factor = self._short_side / min(frame.shape[:2])
        if factor >= 1:
            return frame, ids
        size = (round(frame.shape[1] * factor), round(frame.shape[0] * factor))
        small = (
            None if ids is None else cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST_EXACT)
        )
        return cv2.resize(frame, size, interpolation=cv2.INTER_AREA), small


def joined(readers: Sequence[VideoReader]) -> VideoReader:
    """Join readers into one, with room for what they all may keep.

    A single one is returned as it is, with what it has read.
    """
    if len(readers) == 1:
        return readers[0]
    videos = [video for reader in readers for video in reader.videos]
    return VideoReader(videos, sum(reader.limit for reader in readers))


def _bytes(item: tuple[Picture, Mask | None]) -> int:
    return item[0].nbytes + (0 if item[1] is None else item[1].nbytes)


def check_videos(videos: Sequence[LabelledVideo], told: Told | None = None) -> list[DataProblem]:
    """Read every frame of the videos and list what cannot be used.

    Found are unreadable files, unequal sizes, ids that are too large, and videos in which no
    frame has an object. Single empty label maps are no problem: objects leave.
    """
    if not videos:
        return []
    reader = VideoReader(videos, limit=0)
    frames = [(video, index) for video in range(len(videos)) for index in range(len(videos[video]))]

    def look(place: int) -> bool | DataProblem:
        """Return whether a frame shows an object, or what is wrong with it."""
        video, index = frames[place]
        try:
            _, ids = reader.read(video, index)
        except StremnError as error:
            return DataProblem(videos[video].name, str(error))
        return ids is not None and bool(id_counts(ids).any())

    found = list(look_at_each(look, len(frames), told))
    shown = {video for (video, _), each in zip(frames, found, strict=True) if each is True}
    problems: dict[int, list[DataProblem]] = {video: [] for video in range(len(videos))}
    for (video, _), each in zip(frames, found, strict=True):
        if isinstance(each, DataProblem):
            problems[video].append(each)
    for video in problems.keys() - shown:
        reason = "No frame has a label map with an object."
        problems[video].append(DataProblem(videos[video].name, reason))
    return [problem for listed in problems.values() for problem in listed]
