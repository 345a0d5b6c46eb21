"""Clips of a camera that pans away over a photo, and back: a task that needs memory.

What comes back into view on the way back was seen on the way out. Nothing in the last frames tells
what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from stremn.data.readers.folders import images_in
from stremn.data.readers.frame_clips import GeneratedClips, Split, check_index, split_of
from stremn.errors import StremnError

SPEEDS = (3, 4, 5)
"""Pixels that the camera goes from one frame to the next; one of these is drawn."""


@dataclass(frozen=True)
class Pan:
    """The way of a camera: along one axis, and back along it.

    Attributes:
        corners: top and left of the window in each frame, in pixels of the photo.
        axis: 0 for up and down, 1 for left and right.
    """

    corners: tuple[tuple[int, int], ...]
    axis: int


class PhotoPans(GeneratedClips):
    """Pans over photos; clip `index` depends on `seed` and `index` alone.

    The camera goes away for the first half of a clip and comes back in the second, and is where it
    began in the last frame. Photos are resized so that their shorter side is as long as a window
    and the longest way.

    Args:
        photos: image files.
        frames: frames in a clip.
        size: side of the window in pixels.
        length: number of clips.
        seed: other clips for every one.

    Raises:
        StremnError: no photos.
    """

    def __init__(
        self, photos: Sequence[Path], frames: int, size: int, length: int, seed: int
    ) -> None:
        if not photos:
            raise StremnError("There are no photos to pan over. Give a folder of images.")
        super().__init__(length, seed)
        self.photos, self.frames, self.size = tuple(photos), frames, size

    def __getitem__(self, index: int) -> UInt8[Tensor, "t 3 size size"]:
        """Return the clip at `index`."""
        photo, pan = self._drawn(index)
        windows = [
            photo[top : top + self.size, left : left + self.size] for top, left in pan.corners
        ]
        return torch.from_numpy(np.stack(windows).transpose(0, 3, 1, 2).copy())

    def returned(self, index: int, observed: int) -> Bool[Tensor, "n size size"]:
        """Say which pixels of the frames after `observed` ones the last observed does not show."""
        pan = self._drawn(index)[1]
        last = np.array(pan.corners[observed - 1])
        masks = []
        for corner in pan.corners[observed:]:
            places = np.arange(self.size) + (np.array(corner) - last)[pan.axis]
            unseen = (places < 0) | (places >= self.size)
            masks.append(np.broadcast_to(unseen[:, None] if pan.axis == 0 else unseen,
                                         (self.size, self.size)))  # fmt: skip
        return torch.from_numpy(np.stack(masks))

    def origin(self, index: int) -> str:
        """Return the path of the photo that a clip pans over."""
        return str(self.photos[self._photo(self._generator(index))])

    def origins(self) -> frozenset[str]:
        """Return the paths of the photos."""
        return frozenset(map(str, self.photos))

    def _generator(self, index: int) -> np.random.Generator:
        check_index(index, self.length)
        return np.random.default_rng((self.seed, index))

    def _photo(self, rng: np.random.Generator) -> int:
        return int(rng.integers(len(self.photos)))

    def _drawn(self, index: int) -> tuple[UInt8[np.ndarray, "height width 3"], Pan]:
        rng = self._generator(index)
        photo = _read(self.photos[self._photo(rng)], self.size + max(SPEEDS) * (self.frames // 2))
        room = np.array(photo.shape[:2]) - self.size
        axis, speed = int(rng.integers(2)), int(rng.choice(SPEEDS))
        ways = speed * np.minimum(np.arange(self.frames), np.arange(self.frames)[::-1])
        start = [int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1))]
        start[axis] = int(rng.integers(room[axis] - ways.max() + 1))
        along = start[axis] + ways
        if rng.integers(2):  # the other direction
            along = room[axis] - along
        corners = [(int(at), start[1]) if axis == 0 else (start[0], int(at)) for at in along]
        return photo, Pan(tuple(corners), axis)


def photo_pans(
    root: Path, split: Split, frames: int, size: int, *, length: int, seed: int
) -> PhotoPans:
    """Return pans over the photos of a split: a hash of its name puts each photo in one.

    Args:
        root: folder of images.
        split: which part: 8 of 10 photos for training, 1 for validation, 1 for testing.
        frames: frames in a clip.
        size: side of the window in pixels.
        length: number of clips.
        seed: of the draws.

    Raises:
        StremnError: no folder, or no photos.
    """
    if not root.is_dir():
        raise StremnError(f"{root} is not a folder; a folder of photos was expected.")
    photos = [path for path in images_in(root) if split_of(path.name) == split]
    if not photos:
        raise StremnError(
            f"{root} has no photos for the split {split!r}. Put photos into it; a hash of its name "
            "puts each in a split, and a split of a few photos may be empty."
        )
    return PhotoPans(photos, frames, size, length, seed)


def _read(path: Path, shorter_side: int) -> UInt8[np.ndarray, "height width 3"]:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise StremnError(f"{path} cannot be read as an image.")
    scale = shorter_side / min(image.shape[:2])
    target = [max(shorter_side, round(side * scale)) for side in image.shape[1::-1]]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.cvtColor(cv2.resize(image, target, interpolation=how), cv2.COLOR_BGR2RGB)
