"""A binary mask (0 and 255) of each object on its own: a folder of PNGs, or a video."""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from stremn.errors import StremnError
from stremn.media.codecs import H264
from stremn.media.files import make_folder
from stremn.media.formats.base import Place, TakesAnything, WrittenAtOnce
from stremn.media.formats.times import FrameTimes
from stremn.media.frame_results import FrameResult
from stremn.media.frames import Picture
from stremn.media.overlay_parts import OverlayParts
from stremn.media.run_folder import refuse_link

_MOST = 32


def _mask(result: FrameResult, item: int) -> UInt8[np.ndarray, "height width"]:
    return (result.labels == item).astype(np.uint8) * np.uint8(255)


def _as_picture(mask: np.ndarray) -> Picture:
    return mask.astype(np.uint8)[..., None].repeat(3, axis=2)


@dataclass(frozen=True)
class MaskFolders(TakesAnything):
    """`mask-folders/ID/FRAME.png`, from the first frame in which the object is followed."""

    name: str = "mask-folders"
    soft: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """One folder per object."""
        return (f"{self.name}/*/{{name}}.png",)

    def open(self, place: Place) -> MaskFoldersWriter:
        """Begin or go on."""
        return MaskFoldersWriter(place.out / self.name)


class MaskFoldersWriter(WrittenAtOnce):
    """Writes one file per object and frame."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = make_folder(folder)

    def write(self, result: FrameResult) -> None:
        """Write the frame's masks."""
        for item in result.followed():
            content = io.BytesIO()
            Image.fromarray(_mask(result, item)).save(content, "png")
            folder = self._folder / str(item)
            refuse_link(folder)
            self.put(make_folder(folder) / f"{result.frame.name}.png", content.getvalue())


@dataclass(frozen=True)
class MaskVideos:
    """`mask-videos/ID.mp4`, all as long as the video: black before the object is followed."""

    name: str = "mask-videos"
    soft: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """One file per object."""
        return (f"{self.name}/*.mp4",)

    def check(self, ids: Collection[int], size: tuple[int, int]) -> None:
        """Refuse more objects than can be encoded at a time."""
        if len(ids) > _MOST:
            raise StremnError(
                f"The format {self.name} writes a video for each of up to {_MOST} objects, and "
                f"there are {len(ids)}. Choose mask-folders."
            )

    def open(self, place: Place) -> MaskVideosWriter:
        """Begin or go on."""
        return MaskVideosWriter(place, place.out / self.name, self)


class MaskVideosWriter:
    """Encodes parts of each object's video, which are joined when it is closed."""

    def __init__(self, place: Place, folder: Path, chosen: MaskVideos) -> None:
        self._place = place
        self._folder = make_folder(folder)
        self._chosen = chosen
        self._count = place.written
        self._closed = False
        make_folder(place.work)
        self._times = FrameTimes(place)
        begun = {path.name.partition("-")[0] for path in place.work.glob("*-*.mp4")}
        self._videos = {int(number): self._video(int(number)) for number in begun}
        for item, video in list(self._videos.items()):
            video.remove_from(place.written)
            if not video.paths():
                del self._videos[item]

    def _video(self, item: int) -> OverlayParts:
        return OverlayParts(
            self._place.work,
            self._place.rate,
            stem=f"{item}",
            codec=H264(quality=10),
            pixel_aspect=self._place.pixel_aspect,
        )

    def write(self, result: FrameResult) -> None:
        """Encode the frame's masks."""
        for item in result.followed():
            if item not in self._videos:
                self._chosen.check({*self._videos, item}, result.labels.shape)
                self._videos[item] = self._video(item)
                for _ in range(self._count):
                    self._videos[item].add(self._count, _as_picture(np.zeros_like(result.labels)))
        for item, video in self._videos.items():
            video.add(self._count, _as_picture(_mask(result, item)))
        self._times.add(result.frame)
        self._count += 1

    def checkpoint(self) -> list[Path]:
        """End the parts."""
        for video in self._videos.values():
            video.close_part()
        parts = [path for video in self._videos.values() for path in video.take_new()]
        return [*parts, self._times.path]

    def close(self) -> None:
        """Join every object's parts."""
        if self._closed:
            return
        self._closed = True
        self._times.close()
        for item, video in self._videos.items():
            video.close_part()
            video.join(self._folder / f"{item}.mp4", self._count, times=self._times.read())
