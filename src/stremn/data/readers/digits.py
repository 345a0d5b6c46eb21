"""Clips of moving digits, and of a digit that goes away and returns."""

import gzip
import hashlib
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from stremn.data.readers.frame_clips import GeneratedClips, Split, check_index
from stremn.errors import StremnError


def read_digits(root: Path, split: Split) -> UInt8[np.ndarray, "n 28 28"]:
    """Read the digits of a split: train and validation from the training digits, test apart.

    Args:
        root: folder with `train-images-idx3-ubyte[.gz]` (or `digits_train_10k.npz`) and
            `t10k-images-idx3-ubyte[.gz]`, the files of the MNIST data set.
        split: "val" is every tenth of the training digits, "train" the rest. Not the last tenth:
            a file may be sorted by class, and then one split lacks a digit that another is made of.

    Raises:
        StremnError: a file is missing, cut off or damaged.
    """
    if split == "test":
        return _read_idx(_idx_file(root, "t10k-images-idx3-ubyte"))
    packed = root / "digits_train_10k.npz"
    if packed.exists():
        digits = _read_packed(packed)
    else:
        digits = _read_idx(_idx_file(root, "train-images-idx3-ubyte"))
    held_out = np.arange(len(digits)) % 10 == 9
    return digits[~held_out] if split == "train" else digits[held_out]


def _idx_file(root: Path, stem: str) -> Path:
    for name in (f"{stem}.gz", stem):
        if (root / name).exists():
            return root / name
    raise StremnError(
        f"No handwritten digits in {root}: expected {stem}.gz or {stem}. "
        "Download the four MNIST files into that folder."
    )


def _read_packed(path: Path) -> UInt8[np.ndarray, "n 28 28"]:
    content = BytesIO(path.read_bytes())
    try:
        with np.load(content) as arrays:
            digits = np.asarray(arrays["images"])
    except Exception as error:  # damaged archives raise whatever their reader stumbles over
        raise _unusable(path, f"it cannot be unpacked ({error})") from error
    if digits.dtype != np.uint8 or digits.shape[1:] != (28, 28):
        raise _unusable(path, f"it holds {digits.dtype} of shape {digits.shape}")
    return digits


def _read_idx(path: Path) -> UInt8[np.ndarray, "n 28 28"]:
    content = _content(path)
    if len(content) < 16:
        raise _unusable(path, f"it has only {len(content)} bytes")
    magic, count, height, width = struct.unpack(">IIII", content[:16])
    if magic != 2051 or len(content) != 16 + count * height * width:
        raise _unusable(path, f"magic number {magic} (expected 2051), {len(content)} bytes")
    return np.frombuffer(content, np.uint8, offset=16).reshape(count, height, width)


def _content(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _unusable(path, f"it cannot be unpacked ({error})") from error


def _unusable(path: Path, reason: str) -> StremnError:
    return StremnError(
        f"{path} is not an MNIST image file: {reason}. It may be cut off; download it again."
    )


def bounce(
    rng: np.random.Generator, frames: int, step: float = 0.1
) -> Float[np.ndarray, "frames 2"]:
    """Return positions in [0, 1]^2 of a point that moves straight and reflects at the walls.

    The start and the direction are uniform; `step` is the way per frame as a share of the room.
    """
    position = rng.random(2)
    angle = rng.random() * 2 * np.pi
    velocity = np.array([np.sin(angle), np.cos(angle)]) * step
    positions = np.empty((frames, 2))
    for index in range(frames):
        position = position + velocity
        hit = (position <= 0) | (position >= 1)
        velocity = np.where(hit, -velocity, velocity)
        position = np.clip(position, 0, 1)
        positions[index] = position
    return positions


def _resized(digits: UInt8[np.ndarray, "n 28 28"], side: int) -> UInt8[np.ndarray, "n side side"]:
    if digits.shape[1:] == (side, side):
        return digits
    return np.stack(
        [cv2.resize(digit, (side, side), interpolation=cv2.INTER_AREA) for digit in digits]
    )


def distorted(
    digit: UInt8[np.ndarray, "28 28"], strength: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "28 28"]:
    """Return a digit turned, sheared, stretched and moved at random.

    Args:
        digit: its picture.
        strength: 1 turns by up to 30 degrees, shears by up to 0.4, stretches each side by up to
            30 % and moves by up to 2 pixels; less does proportionally less.
        rng: random generator.
    """
    turn, shear = strength * rng.uniform(-1, 1, 2) * (np.pi / 6, 0.4)
    wide, high = 1 + strength * rng.uniform(-0.3, 0.3, 2)
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[wide, shear], [0, high]])
    middle = (np.array(digit.shape[::-1]) - 1) / 2
    move = middle - matrix @ middle + strength * rng.uniform(-2, 2, 2)
    affine = np.column_stack([matrix, move])
    return cv2.warpAffine(digit, affine, digit.shape[::-1], flags=cv2.INTER_LINEAR)


def _paste(
    canvas: UInt8[np.ndarray, "height width"],
    patch: UInt8[np.ndarray, "h w"],
    corner: Int[np.ndarray, "2"],
) -> None:
    """Lay a patch on the canvas; where two overlap, the brighter shows."""
    top, left = int(corner[0]), int(corner[1])
    region = canvas[top : top + patch.shape[0], left : left + patch.shape[1]]
    np.maximum(region, patch, out=region)


class FlyingDigits:
    """Digits of one size, and how they fly straight through a black square.

    Args:
        digits: images to draw from, of one split.
        size: side of the square in pixels.
        side: side of a digit in pixels.
        step: way per frame as a share of the free room.
        distortion: how far each drawn digit is turned, sheared, stretched and moved at random, in
            [0, 1] (see `distorted`); 0: digits are as they were written.
    """

    def __init__(
        self,
        digits: UInt8[np.ndarray, "n 28 28"],
        size: int,
        side: int,
        step: float,
        distortion: float = 0.0,
    ) -> None:
        if side > size:
            raise StremnError(f"A digit of {side} pixels does not fit a square of {size} pixels.")
        self._written, self._resized = digits, _resized(digits, side)
        self.names = frozenset(_name(digit) for digit in digits)
        self.size, self.side, self.step, self.distortion = size, side, step, distortion

    def pick(self, rng: np.random.Generator, count: int) -> UInt8[np.ndarray, "count side side"]:
        """Return `count` random digits."""
        chosen = rng.integers(len(self._written), size=count)
        if not self.distortion:
            return self._resized[chosen]
        drawn = [distorted(self._written[i], self.distortion, rng) for i in chosen]
        return _resized(np.stack(drawn), self.side) if drawn else self._resized[chosen]

    def black(self, frames: int) -> UInt8[np.ndarray, "frames size size"]:
        """Return an empty clip."""
        return np.zeros((frames, self.size, self.size), np.uint8)

    def way(self, rng: np.random.Generator, frames: int) -> Int[np.ndarray, "frames 2"]:
        """Return the top left corners of a digit that flies and bounces off the walls."""
        return (bounce(rng, frames, self.step) * (self.size - self.side)).astype(int)


DrawClip = Callable[[FlyingDigits, np.random.Generator], UInt8[np.ndarray, "t size size"]]
"""Draws a clip of digits."""


class DigitClips(GeneratedClips):
    """Clips of digits, made on the fly; clip `index` depends on `seed` and `index` alone.

    Args:
        flying: the digits.
        draw: what happens in a clip.
        length: number of clips.
        seed: of the clips.
    """

    def __init__(self, flying: FlyingDigits, draw: DrawClip, length: int, seed: int) -> None:
        super().__init__(length, seed)
        self.flying, self.draw = flying, draw

    def __getitem__(self, index: int) -> UInt8[Tensor, "t 1 size size"]:
        """Return the clip at `index`."""
        check_index(index, self.length)
        clip = self.draw(self.flying, np.random.default_rng((self.seed, index)))
        return torch.from_numpy(clip[:, None])

    def origin(self, index: int) -> str:
        """Return the clip itself: each is drawn independently."""
        return f"clip {index}"

    def origins(self) -> frozenset[str]:
        """Return a fingerprint of each digit image."""
        return self.flying.names


def moving_digits(
    digits: UInt8[np.ndarray, "n 28 28"],
    length: int,
    frames: int = 20,
    size: int = 64,
    side: int = 28,
    count: int = 2,
    step: float = 0.1,
    seed: int = 0,
) -> DigitClips:
    """Return Moving MNIST: `count` digits that bounce off the walls for `frames` frames.

    The generator of PhyDNet and OpenSTL in law: uniform start and direction, 0.1 of the free room
    per frame, overlap by maximum. Other arguments are those of `FlyingDigits` and `DigitClips`.
    """
    flying = FlyingDigits(digits, size, side, step)
    return DigitClips(flying, _Moving(frames, count), length, seed)


@dataclass(frozen=True)
class _Moving:
    """Draws `count` digits that bounce for `frames` frames."""

    frames: int
    count: int

    def __call__(
        self, flying: FlyingDigits, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "t size size"]:
        clip = flying.black(self.frames)
        for _ in range(self.count):
            (digit,) = flying.pick(rng, 1)
            for frame, corner in zip(clip, flying.way(rng, self.frames), strict=True):
                _paste(frame, digit, corner)
        return clip


def hidden_digit(
    digits: UInt8[np.ndarray, "n 28 28"],
    length: int,
    visible: int = 8,
    hidden: int = 12,
    returned: int = 6,
    size: int = 32,
    side: int = 14,
    step: float = 0.1,
    seed: int = 0,
    others: int = 1,
    alone: float = 0.0,
    distortion: float = 0.0,
) -> DigitClips:
    """Return moving digits, one of which leaves and returns: a task that needs memory.

    The last digit is shown for `visible` frames, then replaced for `hidden` frames by a small grey
    square that follows its way, bright in the last of them, then shown again for `returned` frames.
    Where and when it returns can be read from the last stack of frames; *which* digit it is cannot:
    a queue of five stacks of three has forgotten it if it was away for 8 frames or more, so that
    only a memory that kept an early frame draws it.
    `others` digits stay in view; in a share `alone` of the clips none does. Other arguments are
    those of `FlyingDigits` and `DigitClips`.
    """
    flying = FlyingDigits(digits, size, side, step, distortion)
    return DigitClips(flying, _Hiding(visible, hidden, returned, others, alone), length, seed)


@dataclass(frozen=True)
class _Hiding:
    """Draws digits, the last of which is away for `hidden` frames."""

    visible: int
    hidden: int
    returned: int
    others: int
    alone: float

    def __call__(
        self, flying: FlyingDigits, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "t size size"]:
        others = 0 if self.alone and rng.random() < self.alone else self.others
        back = self.visible + self.hidden
        clip = flying.black(back + self.returned)
        *steady, shy = flying.pick(rng, others + 1)
        ways = [flying.way(rng, len(clip)) for _ in range(others + 1)]
        for time, frame in enumerate(clip):
            for digit, way in zip(steady, ways, strict=False):
                _paste(frame, digit, way[time])
            if self.visible <= time < back:
                marker = np.full((4, 4), 255 if time == back - 1 else 110, np.uint8)
                _paste(frame, marker, ways[-1][time] + flying.side // 2 - 2)
            else:
                _paste(frame, shy, ways[-1][time])
        return clip


def _name(digit: UInt8[np.ndarray, "28 28"]) -> str:
    return "digit " + hashlib.sha256(digit.tobytes()).hexdigest()[:16]
