"""Human3.6M, scenario Walking, by the protocol of the reference loader."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from stremn.data.readers.frame_clips import Split, check_index, resize
from stremn.errors import StremnError

HUMAN_SUBJECTS: Mapping[Split, tuple[str, ...]] = {
    "train": ("S1", "S5", "S6", "S7"),
    "val": ("S8",),
    "test": ("S9", "S11"),
}
"""S1, S5-S8 train and S9, S11 test as in the reference loader; S8 is held out for validation."""
_HUMAN_NAME = re.compile(r"^(S\d+)_(Walking(?:[_ ]\d)?)\.(\d+)_(\d+)\.jpg$")


class HumanWalking:
    """Human3.6M, scenario Walking, by the reference loader's protocol.

    Images are stored every 5 raw frames; a clip takes every second of them (5 fps) and
    must have no gap. Clips start every 10 images in training and every 5 in val and test. The
    middle half of the picture in both axes is cut out, then resized.

    Args:
        root: folder (searched with subfolders) with files like `S11_Walking.54138969_000471.jpg`.
        split: train S1 S5 S6 S7, val S8, test S9 S11.
        frames: frames in a clip (4 observed and 4 predicted in the paper).
        size: side of the square in pixels.
        crop: "center_half" as in the reference loader, or "none".
    """

    def __init__(
        self,
        root: Path,
        split: Split,
        frames: int = 8,
        size: int = 128,
        crop: Literal["center_half", "none"] = "center_half",
    ) -> None:
        self.size, self.crop = size, crop
        self.clips: list[tuple[Path, ...]] = []
        self._subjects: list[str] = []
        advance = 10 if split == "train" else 5
        for subject, images in _human_videos(root, HUMAN_SUBJECTS[split]):
            ids = sorted(images)
            for start in range(0, len(ids) - 2 * (frames - 1), advance):
                chosen = ids[start : start + 2 * (frames - 1) + 1 : 2]
                if chosen[-1] - chosen[0] == 10 * (frames - 1):
                    self.clips.append(tuple(images[i] for i in chosen))
                    self._subjects.append(subject)
        if not self.clips:
            raise StremnError(
                f"{root} holds no Human3.6M walking clips of {', '.join(HUMAN_SUBJECTS[split])}: "
                "files like S11_Walking.54138969_000471.jpg, one for every fifth frame, were "
                "expected."
            )

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> UInt8[Tensor, "t 3 size size"]:
        """Return the clip at `index`."""
        check_index(index, len(self.clips))
        frames = []
        for path in self.clips[index]:
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is None:
                raise StremnError(f"{path} cannot be read as an image.")
            height, width = image.shape[:2]
            if self.crop == "center_half":
                image = image[height // 4 : height - height // 4, width // 4 : width - width // 4]
            frames.append(resize(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), self.size))
        return torch.from_numpy(np.stack(frames).transpose(0, 3, 1, 2).copy())

    def origin(self, index: int) -> str:
        """Return the subject."""
        return self._subjects[index]

    def origins(self) -> frozenset[str]:
        """Return the subjects."""
        return frozenset(self._subjects)


def _human_videos(root: Path, subjects: Sequence[str]) -> Iterator[tuple[str, dict[int, Path]]]:
    """Return images by raw frame number of each (subject, scenario, camera)."""
    videos: dict[tuple[str, str, str], dict[int, Path]] = {}
    for path in sorted(root.rglob("S*_Walking*.jpg")):
        match = _HUMAN_NAME.match(path.name)
        if match and match.group(1) in subjects:
            videos.setdefault((match[1], match[2], match[3]), {})[int(match[4])] = path
    for (subject, _, _), images in videos.items():
        yield subject, images
