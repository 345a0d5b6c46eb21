"""Pictures and videos made by formula, for the tests of clips."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from stremn.data.clips.warps import Motion
from stremn.data.readers.still_sets import open_stills
from stremn.data.readers.stills import Kind, Still, StillImages


def ellipse(height: int, width: int, x: float, y: float, a: float, b: float) -> np.ndarray:
    """Mask (0 or 1) of an ellipse about (x, y)."""
    rows, columns = np.mgrid[:height, :width]
    return (((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 < 1).astype(np.uint8)


def disk(height: int, width: int, radius: float) -> np.ndarray:
    """Mask (0 or 1) of a disk in the middle."""
    y, x = np.mgrid[:height, :width]
    inside = (x - width / 2) ** 2 + (y - height / 2) ** 2 < radius**2
    return inside.astype(np.uint8)


def any_motion(frames: int, size: int, seed: int) -> Motion:
    """A motion in which everything changes at random from frame to frame."""
    r = np.random.default_rng(seed)
    return Motion(
        position=size / 2 + r.uniform(-0.2, 0.2, (frames, 2)) * size,
        scale=r.uniform(0.6, 1.6, frames),
        angle=r.uniform(-1, 1, frames),
        shear=r.uniform(-0.2, 0.2, frames),
        tilt=r.uniform(-0.002, 0.002, (frames, 2)),
    )


@dataclass(frozen=True)
class Ellipses:
    """Still pictures, each a bright ellipse (or two, ids 1 and 2) on dark noise."""

    count: int
    kind: Kind = "binary"
    objects: int = 1
    color: tuple[int, int, int] | None = None

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"ellipse {index}"

    def load(self, index: int) -> Still:
        rng = np.random.default_rng((77, index))
        image = rng.integers(0, 100, (150, 200, 3), dtype=np.uint8)
        ids = np.zeros((150, 200), dtype=np.uint8)
        for number in range(1, self.objects + 1):
            mask = ellipse(150, 200, 55 + 90 * (number - 1), 75, 30, 45)
            image[mask > 0] = rng.integers(150, 255, 3) if self.color is None else self.color
            ids[mask > 0] = number
        return Still(image, ids, self.kind)


@dataclass(frozen=True)
class MovingDisks:
    """A video: disks of `radius` that move to the right, over a plain `color`.

    Object o is seen in frames from entries[o - 1] on. Frames not in `labelled` have no label map.
    """

    name: str
    length: int
    color: tuple[int, int, int] = (0, 0, 80)
    entries: tuple[int, ...] = (0,)
    radius: float = 24.0
    labelled: tuple[int, ...] | None = None
    step: float = 2.0

    def __len__(self) -> int:
        return self.length

    def _mask(self, number: int, index: int) -> np.ndarray:
        y = 50.0 * number + 10
        return ellipse(160, 240, 40 + self.step * index, y, self.radius, self.radius)

    def frame(self, index: int) -> np.ndarray:
        image = np.empty((160, 240, 3), dtype=np.uint8)
        image[:] = self.color
        for number, entry in enumerate(self.entries, start=1):
            if index >= entry:
                image[self._mask(number, index) > 0] = (250, 60 * number, 30)
        return image

    def label(self, index: int) -> np.ndarray | None:
        if self.labelled is not None and index not in self.labelled:
            return None
        ids = np.zeros((160, 240), dtype=np.uint8)
        for number, entry in enumerate(self.entries, start=1):
            if index >= entry:
                ids[self._mask(number, index) > 0] = number
        return ids


def still_folder(root: Path, count: int = 4) -> StillImages:
    """`Ellipses` written to `images/` and `masks/`, and opened."""
    source = Ellipses(count)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        still = source.load(index)
        Image.fromarray(still.image).save(root / "images" / f"{index}.png")
        Image.fromarray(still.ids * np.uint8(255)).save(root / "masks" / f"{index}.png")
    return open_stills(root)


def some_digits(count, seed=0):
    rng = np.random.default_rng(seed)
    digits = np.zeros((count, 28, 28), np.uint8)
    digits[:, 6:22, 6:22] = rng.integers(60, 256, (count, 16, 16))
    return digits


def write_digits(folder):
    folder.mkdir()
    np.savez(folder / "digits_train_10k.npz", images=some_digits(40))
    test = some_digits(6, seed=1)
    header = np.array([2051, *test.shape], ">u4").tobytes()
    (folder / "t10k-images-idx3-ubyte").write_bytes(header + test.tobytes())
    return folder
