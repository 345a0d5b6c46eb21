"""Any video or folder in, predicted frames out: PNG files, a side-by-side video and a strip."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from stremn.core.atomic_files import output_folder
from stremn.errors import StremnError
from stremn.media.encoding import write_video
from stremn.media.files import make_folder, write_whole
from stremn.media.frames import FrameSource
from stremn.media.video import Source, open_frames
from stremn.prediction.model import FramePredictor
from stremn.prediction.sessions import PredictionSession, as_unit_range, to_channels
from stremn.prediction.weights import load_memory_predictor

SHOWN = 10
"""Observed frames shown before the predicted ones."""
TILE = 128
"""Side of a picture in the video, at least, in pixels."""
TILE_SMALL = 64
"""Side of a picture in the strip in pixels."""
RATE = 10.0
"""Frames per second of the video where the input has no rate."""

Picture = UInt8[np.ndarray, "size size 3"]


@dataclass(frozen=True)
class PredictionFiles:
    """What `predict_video` wrote, and a line that says what was done."""

    frames: tuple[Path, ...]
    video: Path
    strip: Path
    note: str


def predict_video(
    source: Source,
    out: Path,
    *,
    frames: int = 20,
    observe: int | None = None,
    weights: str | Path = "digits",
    device: str = "auto",
) -> PredictionFiles:
    """Observe a video, predict what follows, and write both. Body of `stremn predict`.

    Args:
        source: anything `open_frames` takes.
        out: folder for `frames/*.png` (named by frame index), `side_by_side.mp4`, `strip.png`.
        frames: frames to predict.
        observe: frames to observe; the input's frames after them are shown beside the predicted
            ones as the truth. None observes all, and there is no truth.
        weights: file, or name of shipped weights.
        device: where to compute.

    Raises:
        StremnError: input that cannot be used, another run in `out`. Nothing has been written then.
    """
    model = load_memory_predictor(weights)
    with open_frames(source) as stream, output_folder(out):
        return _predict(stream, model, out, frames, observe, device)


def _predict(
    stream: FrameSource,
    model: FramePredictor,
    out: Path,
    frames: int,
    observe: int | None,
    device: str,
) -> PredictionFiles:
    session = PredictionSession(model, device=device)
    config = model.config
    before: deque[Picture] = deque(maxlen=SHOWN)
    truth: list[Picture] = []
    size, rate = stream.size, stream.fps or RATE
    for frame in stream:
        if observe is not None and frame.index >= observe:
            if len(truth) == frames:
                break
            truth.append(_fit(frame.image, config.size, config.channels))
            continue
        session.observe(frame.image)
        before.append(_fit(frame.image, config.size, config.channels))
    if observe is not None and session.frames_seen < observe:
        raise StremnError(
            f"The input has only {session.frames_seen} frames, fewer than the {observe} to "
            "observe. Ask for fewer."
        )
    first = session.frames_seen
    predicted = [_rgb(picture) for picture in session.predict(frames)]
    note = _note(size, config.size, config.channels, first, frames, session.remembered)
    return _write(out, predicted, list(before), truth, first, rate, note)


def _note(
    size: tuple[int, int], side: int, channels: int, seen: int, frames: int, kept: tuple[int, ...]
) -> str:
    kind = "grey" if channels == 1 else "RGB"
    changed = "" if size == (side, side) else f" (input {size[1]}x{size[0]}, resized)"
    return (
        f"Observed {seen} frames, predicted {frames} at {side}x{side} {kind}{changed}; "
        f"the memory holds the stacks that end at frames {', '.join(map(str, kept)) or 'none'}."
    )


def _write(
    out: Path,
    predicted: list[Picture],
    before: list[Picture],
    truth: list[Picture],
    first: int,
    rate: float,
    note: str,
) -> PredictionFiles:
    folder = make_folder(out / "frames")
    paths = tuple(folder / f"{first + i:05d}.png" for i in range(len(predicted)))
    for path, picture in zip(paths, predicted, strict=True):
        write_whole(path, _png(picture))
    strip, video = out / "strip.png", out / "side_by_side.mp4"
    write_whole(strip, _png(_strip(before, truth, predicted)))
    blank = np.full_like(predicted[0], 40)  # where there is no truth to show
    left = before + truth + [blank] * (len(predicted) - len(truth))
    right = before + predicted
    pairs = (_beside(_large(a), _large(b)) for a, b in zip(left, right, strict=True))
    write_video(video, pairs, rate)
    return PredictionFiles(paths, video, strip, note)


def _fit(image: UInt8[np.ndarray, "height width 3"], size: int, channels: int) -> Picture:
    """Resize as the session does, for showing."""
    shrinking = image.shape[0] > size
    how = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    resized = cv2.resize(image, (size, size), interpolation=how)
    if channels == 3:
        return resized
    return _rgb((to_channels(as_unit_range(resized), 1) * 255).round().astype(np.uint8))


def _rgb(picture: UInt8[np.ndarray, "size size c"]) -> Picture:
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture


def _large(picture: Picture) -> UInt8[np.ndarray, "height width 3"]:
    factor = max(1, -(-TILE // picture.shape[0]))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def _beside(left: Picture, right: Picture) -> UInt8[np.ndarray, "height width 3"]:
    bar = np.full((left.shape[0], 4, 3), 128, np.uint8)
    return np.concatenate([left, bar, right], axis=1)


def _strip(
    before: list[Picture], truth: list[Picture], predicted: list[Picture]
) -> UInt8[np.ndarray, "height width 3"]:
    """Return rows of pictures: what was observed, the truth where there is one, what was
    predicted."""
    rows = [row for row in (before, truth, predicted) if row]
    columns = max(map(len, rows))
    blank = np.full_like(predicted[0], 40)
    bar = np.full((4, columns * (TILE_SMALL + 2), 3), 128, np.uint8)
    drawn: list[np.ndarray] = []
    for row in rows:
        tiles = [_tile(picture) for picture in row + [blank] * (columns - len(row))]
        drawn += [np.concatenate(tiles, axis=1), bar]
    return np.concatenate(drawn[:-1])


def _tile(picture: Picture) -> UInt8[np.ndarray, "height width 3"]:
    small = cv2.resize(picture, (TILE_SMALL, TILE_SMALL), interpolation=cv2.INTER_NEAREST)
    return np.pad(small, ((0, 0), (0, 2), (0, 0)), constant_values=128)


def _png(picture: UInt8[np.ndarray, "height width 3"]) -> bytes:
    return bytes(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1])
