"""Clips for video prediction: moving digits, a hidden digit, KTH, Human3.6M, folders of videos.

Every source is a sequence of clips, uint8 Tensor "t c height width"; the same index gives the same
clip, always. Every source names its origins (digits, persons, files), so that `check_disjoint` can
show that no two splits share one.
"""

import gzip
import hashlib
import re
import struct
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import av
import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from stremn.errors import StremnError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
VIDEO_SUFFIXES = frozenset({".avi", ".mp4", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v"})
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp"})


class FrameClips(Protocol):
    """A source of clips for prediction."""

    def __len__(self) -> int:
        """Number of clips."""
        ...

    def __getitem__(self, index: int) -> UInt8[Tensor, "t c height width"]:
        """The clip at `index`, always the same."""
        ...

    def origins(self) -> frozenset[str]:
        """Names of what the clips are made of; two splits must share none."""
        ...


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


# ---------------------------------------------------------------------------------- digits


def read_digits(root: Path, split: Split) -> UInt8[np.ndarray, "n 28 28"]:
    """Handwritten digits of a split: train and validation from the training digits, test apart.

    Args:
        root: folder with `train-images-idx3-ubyte[.gz]` (or `digits_train_10k.npz`) and
            `t10k-images-idx3-ubyte[.gz]`, the files of the MNIST data set.
        split: "train" is the first nine tenths of the training digits, "val" the rest.
    """
    if split == "test":
        return _read_idx(_first_existing(root, ("t10k-images-idx3-ubyte",), (".gz", "")))
    packed = root / "digits_train_10k.npz"
    if packed.exists():
        with np.load(packed) as arrays:
            digits = arrays["images"]
    else:
        digits = _read_idx(_first_existing(root, ("train-images-idx3-ubyte",), (".gz", "")))
    border = len(digits) * 9 // 10
    return digits[:border] if split == "train" else digits[border:]


def _first_existing(root: Path, stems: Sequence[str], suffixes: Sequence[str]) -> Path:
    names = [stem + suffix for stem in stems for suffix in suffixes]
    for name in names:
        if (root / name).exists():
            return root / name
    raise StremnError(
        f"No handwritten digits in {root}: expected {' or '.join(names)}. "
        "Download the four MNIST files into that folder."
    )


def _read_idx(path: Path) -> UInt8[np.ndarray, "n 28 28"]:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if len(content) < 16:
        raise StremnError(f"{path} is no MNIST image file: it has only {len(content)} bytes.")
    magic, count, height, width = struct.unpack(">IIII", content[:16])
    if magic != 2051 or len(content) != 16 + count * height * width:
        raise StremnError(
            f"{path} is no MNIST image file: magic number {magic} (expected 2051), "
            f"{len(content)} bytes. Download it again."
        )
    return np.frombuffer(content, np.uint8, offset=16).reshape(count, height, width)


def bounce(
    rng: np.random.Generator, frames: int, step: float = 0.1
) -> Float[np.ndarray, "frames 2"]:
    """Positions in [0, 1]^2 of a point that moves straight and reflects at the walls.

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


def _paste(
    canvas: UInt8[np.ndarray, "height width"],
    patch: UInt8[np.ndarray, "h w"],
    corner: Int[np.ndarray, "2"],
) -> None:
    """Lay a patch on the canvas; where two overlap, the brighter shows."""
    top, left = int(corner[0]), int(corner[1])
    region = canvas[top : top + patch.shape[0], left : left + patch.shape[1]]
    np.maximum(region, patch, out=region)


class MovingDigits:
    """Moving MNIST: digits that fly straight through a black square and bounce off its walls.

    The generator of PhyDNet and OpenSTL in law: uniform start and direction, 0.1 of the free room
    per frame, overlap by maximum. Clips are made on the fly; clip `index` depends on `seed` and
    `index` alone.

    Args:
        digits: images to draw from, of one split.
        length: number of clips.
        frames: frames in a clip.
        size: side of the square in pixels.
        side: side of a digit in pixels.
        count: digits in a clip.
        step: way per frame as a share of the free room.
        seed: of the clips.
    """

    def __init__(
        self,
        digits: UInt8[np.ndarray, "n 28 28"],
        length: int,
        frames: int = 20,
        size: int = 64,
        side: int = 28,
        count: int = 2,
        step: float = 0.1,
        seed: int = 0,
    ) -> None:
        if side > size:
            raise StremnError(f"A digit of {side} pixels does not fit a square of {size} pixels.")
        self.digits = _resized(digits, side)
        self.names = frozenset(_name(digit) for digit in digits)
        self.length, self.frames, self.size = length, frames, size
        self.side, self.count, self.step, self.seed = side, count, step, seed

    def __len__(self) -> int:
        """Number of clips."""
        return self.length

    def __getitem__(self, index: int) -> UInt8[Tensor, "t 1 size size"]:
        """The clip at `index`."""
        _check_index(index, self.length)
        rng = np.random.default_rng((self.seed, index))
        clip = np.zeros((self.frames, self.size, self.size), np.uint8)
        for _ in range(self.count):
            digit = self.digits[rng.integers(len(self.digits))]
            corners = (bounce(rng, self.frames, self.step) * (self.size - self.side)).astype(int)
            for frame, corner in zip(clip, corners, strict=True):
                _paste(frame, digit, corner)
        return torch.from_numpy(clip[:, None])

    def origins(self) -> frozenset[str]:
        """A fingerprint of each digit image."""
        return self.names


class HiddenDigit:
    """Two moving digits, one of which goes away and returns: a task that only memory can solve.

    The second digit is shown for `visible` frames, then replaced for `hidden` frames by a small
    grey square that follows its way, bright in the last of them, then shown again. Where and when
    it returns can be read from the last stack of frames; *which* digit it is cannot: a queue of
    five stacks has forgotten it, so only a memory that kept an early frame draws it.

    Args:
        digits: images to draw from, of one split.
        length: number of clips.
        visible: frames before the digit goes away.
        hidden: frames without it.
        returned: frames after its return.
        size: side of the square in pixels.
        side: side of a digit in pixels.
        step: way per frame as a share of the free room.
        seed: of the clips.
    """

    def __init__(
        self,
        digits: UInt8[np.ndarray, "n 28 28"],
        length: int,
        visible: int = 8,
        hidden: int = 12,
        returned: int = 6,
        size: int = 32,
        side: int = 14,
        step: float = 0.1,
        seed: int = 0,
    ) -> None:
        if side > size:
            raise StremnError(f"A digit of {side} pixels does not fit a square of {size} pixels.")
        self.digits = _resized(digits, side)
        self.names = frozenset(_name(digit) for digit in digits)
        self.length, self.size, self.side, self.step, self.seed = length, size, side, step, seed
        self.visible, self.hidden, self.returned = visible, hidden, returned

    def __len__(self) -> int:
        """Number of clips."""
        return self.length

    def __getitem__(self, index: int) -> UInt8[Tensor, "t 1 size size"]:
        """The clip at `index`; its digit returns at frame `visible + hidden`."""
        _check_index(index, self.length)
        rng = np.random.default_rng((self.seed, index))
        frames = self.visible + self.hidden + self.returned
        room = self.size - self.side
        clip = np.zeros((frames, self.size, self.size), np.uint8)
        steady, shy = self.digits[rng.integers(len(self.digits), size=2)]
        ways = [(bounce(rng, frames, self.step) * room).astype(int) for _ in range(2)]
        back = self.visible + self.hidden
        for time, frame in enumerate(clip):
            _paste(frame, steady, ways[0][time])
            if self.visible <= time < back:
                marker = np.full((4, 4), 255 if time == back - 1 else 110, np.uint8)
                _paste(frame, marker, ways[1][time] + self.side // 2 - 2)
            else:
                _paste(frame, shy, ways[1][time])
        return torch.from_numpy(clip[:, None])

    def origins(self) -> frozenset[str]:
        """A fingerprint of each digit image."""
        return self.names


def _name(digit: UInt8[np.ndarray, "28 28"]) -> str:
    return "digit " + hashlib.sha256(digit.tobytes()).hexdigest()[:16]


def _check_index(index: int, length: int) -> None:
    # IndexError, not our own error: it is what ends a `for` over a sequence.
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


class VideoClips:
    """Clips cut from video files or folders of images, all resized to one square size.

    Args:
        spans: the clips' places.
        size: side in pixels; the aspect ratio is not kept (the protocols do not keep it).
        channels: 1 for grey, 3 for RGB.
        kept: videos held decoded in memory at a time.
        names: origin of each video; the file's own path by default.
    """

    def __init__(
        self,
        spans: Sequence[Span],
        size: int,
        channels: int,
        kept: int = 8,
        names: Mapping[Path, str] | None = None,
    ) -> None:
        if channels not in (1, 3):
            raise StremnError(f"Frames have 1 channel (grey) or 3 (RGB); got {channels}.")
        self.spans, self.size, self.channels, self.kept = tuple(spans), size, channels, kept
        self._names = dict(names or {})
        self._decoded: OrderedDict[Path, UInt8[np.ndarray, "t height width c"]] = OrderedDict()

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.spans)

    def __getitem__(self, index: int) -> UInt8[Tensor, "t c size size"]:
        """The clip at `index`."""
        _check_index(index, len(self.spans))
        span = self.spans[index]
        video = self._video(span.video)
        last = span.start + (span.frames - 1) * span.stride
        if last >= len(video):
            raise StremnError(
                f"{span.video} has {len(video)} frames, but a clip needs frame {last}. "
                "Is the file complete, and does its list of sequences belong to it?"
            )
        clip = video[span.start : last + 1 : span.stride]
        return torch.from_numpy(np.ascontiguousarray(clip.transpose(0, 3, 1, 2)))

    def origins(self) -> frozenset[str]:
        """The persons or files the clips come from."""
        return frozenset(self._names.get(span.video, str(span.video)) for span in self.spans)

    def _video(self, path: Path) -> UInt8[np.ndarray, "t size size c"]:
        if path not in self._decoded:
            frames = [resize(frame, self.size) for frame in read_frames(path, self.channels)]
            self._decoded[path] = np.stack(frames)
            while len(self._decoded) > self.kept:
                self._decoded.popitem(last=False)
        self._decoded.move_to_end(path)
        return self._decoded[path]


def read_frames(path: Path, channels: int) -> Iterator[UInt8[np.ndarray, "height width c"]]:
    """Frames of a video file or of a folder of images in the order of their names.

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
        for image in sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES):
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
                array = decoded.to_ndarray(format="gray" if channels == 1 else "rgb24")
                yield array[..., None] if channels == 1 else array
    except (av.FFmpegError, IndexError) as error:
        raise StremnError(f"{path} cannot be decoded as a video: {error}.") from error


def resize(
    frame: UInt8[np.ndarray, "height width c"], size: int
) -> UInt8[np.ndarray, "size size c"]:
    """Bilinear resize to a square, channels kept last (as OpenCV's default does in the peers)."""
    resized = cv2.resize(frame, (size, size), interpolation=cv2.INTER_LINEAR)
    return resized.reshape(size, size, frame.shape[2])


# ------------------------------------------------------------------------------------- KTH

KTH_PERSONS: Mapping[Split, range] = {
    "train": range(1, 15),
    "val": range(15, 17),
    "test": range(17, 26),
}
"""Persons 1-16 train and 17-25 test as in every peer; 15 and 16 are held out for validation."""
KTH_FAST_ACTIONS = frozenset({"jogging", "running"})
_KTH_LINE = re.compile(r"^(person(\d\d)_([a-z]+)_d\d)\s+frames\s+(.+)$")


def kth_sequences(listing: Path) -> dict[str, tuple[tuple[int, int], ...]]:
    """Read KTH's `00sequences.txt`: name -> (first, last) frames, from 1, of each sub-sequence.

    Only these ranges hold a person; the official videos hold empty frames between them.
    """
    sequences: dict[str, tuple[tuple[int, int], ...]] = {}
    for line in listing.read_text(encoding="latin-1").splitlines():
        match = _KTH_LINE.match(line.strip())
        if match:
            pairs = re.findall(r"(\d+)\s*-\s*(\d+)", match.group(4))
            sequences[match.group(1)] = tuple((int(first), int(last)) for first, last in pairs)
    if not sequences:
        raise StremnError(
            f"{listing} lists no sequences; lines like "
            "'person01_boxing_d1  frames  1-95, 96-185' were expected."
        )
    return sequences


def kth(
    root: Path,
    split: Split,
    frames: int = 30,
    size: int = 128,
    persons: Sequence[int] | None = None,
) -> VideoClips:
    """KTH as the papers cut it: ranges of `00sequences.txt`, clips walked back from each end.

    Jogging and running advance by 3 frames between clips, the other actions by a whole clip. Frames
    are grey, the whole 160x120 picture resized to a square.

    Args:
        root: folder with `00sequences.txt` and the official `person01_boxing_d1_uncomp.avi`,
            directly or in folders per action.
        split: persons 1-14 train, 15-16 val, 17-25 test.
        frames: frames in a clip (10 observed and 20 predicted in the paper).
        size: side of the square in pixels.
        persons: other persons than the split's, for smoke tests on a part of the data.
    """
    listing = root / "00sequences.txt"
    if not listing.exists():
        raise StremnError(
            f"{root} is not KTH in its official layout: 00sequences.txt is missing. It belongs to "
            "the data set's download page; put it beside the avi files."
        )
    chosen = KTH_PERSONS[split] if persons is None else persons
    spans: list[Span] = []
    names: dict[Path, str] = {}
    videos = {p.stem.removesuffix("_uncomp"): p for p in sorted(root.rglob("person*_uncomp.*"))}
    for name, ranges in kth_sequences(listing).items():
        person, action = int(name[6:8]), name.split("_")[1]
        if person not in chosen or name not in videos:
            continue
        names[videos[name]] = f"person {person:02d}"
        stride = 3 if action in KTH_FAST_ACTIONS else frames
        for first, last in ranges:
            starts = range(last - frames, first - 2, -stride)  # from 0; `last` is inclusive
            spans.extend(Span(videos[name], start, frames) for start in starts)
    if not spans:
        raise StremnError(
            f"{root} holds no KTH clips of {frames} frames for persons "
            f"{', '.join(f'{p:02d}' for p in chosen)}: files like "
            "person01_boxing_d1_uncomp.avi were expected in it or in folders per action."
        )
    return VideoClips(spans, size, channels=1, names=names)


# ----------------------------------------------------------------------- Human3.6M walking

HUMAN_SUBJECTS: Mapping[Split, tuple[str, ...]] = {
    "train": ("S1", "S5", "S6", "S7"),
    "val": ("S8",),
    "test": ("S9", "S11"),
}
"""S1, S5-S8 train and S9, S11 test as in the reference loader; S8 is held out for validation."""
_HUMAN_NAME = re.compile(r"^(S\d+)_(Walking(?:[_ ]\d)?)\.(\d+)_(\d+)\.jpg$")


class HumanWalking:
    """Human3.6M, scenario Walking, by the reference loader's protocol.

    Images are stored every 5 raw frames; a clip takes every second of them (5 frames a second) and
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
        self.subjects: set[str] = set()
        advance = 10 if split == "train" else 5
        for subject, images in _human_videos(root, HUMAN_SUBJECTS[split]):
            ids = sorted(images)
            for start in range(0, len(ids) - 2 * (frames - 1), advance):
                chosen = ids[start : start + 2 * (frames - 1) + 1 : 2]
                if chosen[-1] - chosen[0] == 10 * (frames - 1):
                    self.clips.append(tuple(images[i] for i in chosen))
                    self.subjects.add(subject)
        if not self.clips:
            raise StremnError(
                f"{root} holds no Human3.6M walking clips of {', '.join(HUMAN_SUBJECTS[split])}: "
                "files like S11_Walking.54138969_000471.jpg, one for every fifth frame, were "
                "expected."
            )

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> UInt8[Tensor, "t 3 size size"]:
        """The clip at `index`."""
        _check_index(index, len(self.clips))
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

    def origins(self) -> frozenset[str]:
        """The subjects."""
        return frozenset(self.subjects)


def _human_videos(root: Path, subjects: Sequence[str]) -> Iterator[tuple[str, dict[int, Path]]]:
    """Images by raw frame number of each (subject, scenario, camera)."""
    videos: dict[tuple[str, str, str], dict[int, Path]] = {}
    for path in sorted(root.rglob("S*_Walking*.jpg")):
        match = _HUMAN_NAME.match(path.name)
        if match and match.group(1) in subjects:
            videos.setdefault((match[1], match[2], match[3]), {})[int(match[4])] = path
    for (subject, _, _), images in videos.items():
        yield subject, images


# ------------------------------------------------------------------------ folder of videos


def video_folder(
    root: Path,
    split: Split,
    frames: int,
    size: int,
    channels: int,
    stride: int = 1,
    advance: int | None = None,
) -> VideoClips:
    """Clips of any folder of videos (files, or subfolders of images).

    With subfolders `train`, `val` and `test` those are the splits. Otherwise a hash of the file's
    name puts each video in one: 8 of 10 train, 1 val, 1 test; the same name always in the same.

    Args:
        root: the folder.
        split: which part.
        frames: frames in a clip.
        size: side of the square in pixels.
        channels: 1 for grey, 3 for RGB.
        stride: video frames from one clip frame to the next.
        advance: video frames from one clip's start to the next; the clip's own length by default.
    """
    if not root.is_dir():
        raise StremnError(f"{root} is not a folder; a folder of videos was expected.")
    if all((root / name).is_dir() for name in SPLITS):
        videos = _videos(root / split)
    else:
        videos = [video for video in _videos(root) if _split_of(video.name) == split]
    if not videos:
        raise StremnError(
            f"{root} has no videos for the split {split!r}. Put video files or folders of images "
            "there, or make subfolders train, val and test yourself."
        )
    reach = (frames - 1) * stride + 1
    spans = [
        Span(video, start, frames, stride)
        for video in videos
        for start in range(0, _count_frames(video) - reach + 1, advance or reach)
    ]
    if not spans:
        raise StremnError(
            f"No video in {root} has the {reach} frames that a clip of {frames} frames at stride "
            f"{stride} needs. Ask for shorter clips."
        )
    return VideoClips(spans, size, channels)


def _videos(root: Path) -> list[Path]:
    return sorted(
        path
        for path in root.iterdir()
        if path.suffix.lower() in VIDEO_SUFFIXES
        or (path.is_dir() and any(p.suffix.lower() in IMAGE_SUFFIXES for p in path.iterdir()))
    )


def _split_of(name: str) -> Split:
    bucket = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % 10
    return "val" if bucket == 8 else "test" if bucket == 9 else "train"


def _count_frames(video: Path) -> int:
    if video.is_dir():
        return sum(path.suffix.lower() in IMAGE_SUFFIXES for path in video.iterdir())
    # Containers lie about their length; the packets do not, and need no decoding.
    try:
        with av.open(str(video)) as container:
            return sum(packet.size > 0 for packet in container.demux(video=0))
    except (av.FFmpegError, IndexError) as error:
        raise StremnError(f"{video} cannot be read as a video: {error}.") from error
