"""Predict the next frames of a video or folder: PNG files, a side-by-side video and a strip."""

from __future__ import annotations

import csv
import io
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch

from stremn.core.arguments import whole_number
from stremn.core.atomic_files import output_folder
from stremn.errors import StremnError
from stremn.media.encoding import write_video
from stremn.media.files import make_folder, write_whole
from stremn.media.frames import SQUARE, FrameSource
from stremn.media.run_folder import is_plain_name
from stremn.media.video import Source, open_frames
from stremn.prediction.frame_fit import fit_of
from stremn.prediction.model import FramePredictor
from stremn.prediction.sessions import (
    MOST_FRAMES,
    PredictionSession,
    as_unit_range,
    to_channels,
)
from stremn.prediction.showing import Picture, draw_pairs, draw_strip, rgb
from stremn.prediction.weights import load_memory_predictor

SHOWN = 10
"""Observed frames shown before the predicted ones; the strip shows as many of those."""
TRIED = 8
"""Frames, at most, for which a prediction is tried on what was observed already; below `SHOWN`."""
WRITTEN = ".written"
"""File in `frames/` that names the frames of the prediction."""
RATE = 10.0
"""Frames per second of the video where the input has no rate."""
PERFECT = 99.0
"""PSNR in dB that is written for a prediction without any error."""

Watcher = Callable[[str, int, int | None], None]
"""Called with what is done to frames ("observed", "predicted"), how many are done, and how many
there are, as far as the input says."""


@dataclass(frozen=True)
class Errors:
    """PSNR in dB of each predicted frame, and of the last observed frame in its place."""

    predicted: tuple[float, ...]
    copied: tuple[float, ...]

    def __str__(self) -> str:
        shown = "; ".join(
            f"{name} {' '.join(f'{value:.1f}' for value in values)}"
            for name, values in (("predicted", self.predicted), ("last frame", self.copied))
        )
        return f"PSNR in dB, frame by frame: {shown}"


@dataclass(frozen=True)
class PredictionFiles:
    """Files of `predict_video`, and the errors that are known.

    Attributes:
        tried: errors of the same prediction made earlier, on frames that were observed since; None
            where the video was too short to try.
        errors: errors of this prediction where the truth was held out.
    """

    frames: tuple[Path, ...]
    video: Path
    strip: Path
    note: str
    tried: Errors | None = None
    errors: Errors | None = None


def nobody(what: str, done: int, total: int | None) -> None:
    """Do nothing: the default watcher."""


def predict_video(
    source: Source,
    out: str | Path,
    *,
    frames: int = 8,
    observe: int | None = None,
    holdout: int = 0,
    weights: str | Path = "natural",
    size: int | None = 480,
    device: str = "auto",
    watch: Watcher = nobody,
) -> PredictionFiles:
    """Observe a video, predict the next frames, and write both. Body of `stremn predict`.

    Args:
        source: anything `open_frames` takes.
        out: folder for `frames/*.png` (named by frame index), `side_by_side.mp4`, `strip.png`, and
            `errors.csv` where the truth is known. An earlier prediction in it is replaced.
        frames: frames to predict.
        observe: frames to observe, a stack at least; the input's frames after them are shown beside
            the predicted ones as the truth. None observes all that `holdout` leaves.
        holdout: the input's last frames, which are not observed: they are the truth.
        weights: file, or name of shipped weights.
        size: shorter side in pixels, at most, of a predictor of any size; None: the frames' own.
        device: where to compute.
        watch: called after every frame; an error that it raises ends the prediction, and nothing
            is written.

    Raises:
        StremnError: input that cannot be used, another run in `out`, or numbered pictures in
            `out/frames` that no prediction wrote. Nothing has been written then.
    """
    out = Path(out)
    if observe is not None and holdout:
        raise StremnError("Give --observe or --holdout, not both: each says where truth begins.")
    frames = whole_number(frames, "The number of frames", 1, MOST_FRAMES)
    holdout = whole_number(holdout, "The number of frames to hold out", 0, MOST_FRAMES)
    model = load_memory_predictor(weights)
    if observe is not None:
        least, what = model.config.stack, "The number of frames to observe"
        observe = whole_number(observe, what, least, 2**62)
    view = _View(model, device, size if model.config.any_size else None, frames)
    _refuse_frames_of_others(out)
    with open_frames(source) as stream, output_folder(out):
        if stream.live and observe is None:
            raise StremnError(
                "A camera or live stream has no last frame to predict from. Say how many frames to "
                "observe with --observe N (observe=N); the next ones are shown as the truth."
            )
        shape, rate = stream.size, stream.fps or RATE
        true = _observed(stream, view, frames, observe, holdout, watch)
        session = view.session
        if observe is not None and session.frames_seen < observe:
            raise StremnError(
                f"The input has only {session.frames_seen} frames, fewer than the {observe} to "
                "observe. Ask for fewer."
            )
        if holdout and session.frames_seen < (stack := model.config.stack):
            raise StremnError(
                f"Prediction starts from a stack of {stack} frames, and {holdout} are to be held "
                f"out, so the input must have {stack + holdout} or more. Hold out fewer, or give "
                "a longer input."
            )
        ahead = session.predict(frames, lambda done: watch("predicted", done, frames))
        predicted = [rgb(picture) for picture in ahead]
        note = _note(shape, predicted[0].shape[:2], model, session, frames)
        tried, errors = view.tried, _errors(predicted, view.before[-1], true)
        aspect = stream.pixel_aspect if model.config.any_size else SQUARE
        before = list(view.before)
        return _write(out, predicted, before, true, session, rate, aspect, note, tried, errors)


def _observed(
    stream: FrameSource,
    view: _View,
    frames: int,
    observe: int | None,
    holdout: int,
    watch: Watcher,
) -> list[Picture]:
    """Give the view all frames except those held out, and return these: `frames` at most."""
    ends = [] if stream.count is None else [max(0, stream.count - holdout)]
    total = min(ends if observe is None else [*ends, observe], default=None)
    true: list[Picture] = []
    held: deque[np.ndarray] = deque()  # any of them may still have to be observed
    for frame in stream:
        if observe is not None and frame.index >= observe:
            if len(true) == frames:
                break
            true.append(view.shown(frame.image))
        elif holdout:
            held.append(frame.image)
            if len(held) > holdout:
                view.observe(held.popleft())
        else:
            view.observe(frame.image)
        watch("observed", view.session.frames_seen, total)
    return true or [view.shown(image) for image in islice(held, frames)]


@dataclass
class _View:
    """A session over a video, with the frames to show and to test on. Memory does not grow."""

    model: FramePredictor
    device: str
    size: int | None
    frames: int
    before: deque[Picture] = field(default_factory=lambda: deque(maxlen=SHOWN))

    def __post_init__(self) -> None:
        self.session = PredictionSession(self.model, device=self.device, size=self.size)
        self._earlier: deque[PredictionSession] = deque(maxlen=min(self.frames, TRIED))

    def observe(self, image: np.ndarray) -> None:
        """Observe a frame, and keep the session as it was before each of the last ones."""
        self._earlier.append(self.session.fork())
        self.session.observe(image)
        self.before.append(self.shown(image))

    @property
    def tried(self) -> Errors | None:
        """Errors of predicting the last observed frames from those before."""
        if not self._earlier or self._earlier[0].frames_seen <= self.model.config.stack:
            return None
        count = len(self._earlier)
        last, *true = list(self.before)[-count - 1 :]
        predicted = [rgb(picture) for picture in self._earlier[0].predict(count)]
        return _errors(predicted, last, true)

    def shown(self, image: np.ndarray) -> Picture:
        """Convert a frame to the size and colors of predictions."""
        config = self.model.config
        fit = fit_of(config, (image.shape[0], image.shape[1]), self.size)
        picture = to_channels(as_unit_range(image), config.channels)
        frame = fit.crop(fit.fit(picture)[None])[0].permute(1, 2, 0)
        return rgb((frame * 255).round().to(torch.uint8).numpy())


def _errors(predicted: list[Picture], last: Picture, true: list[Picture]) -> Errors | None:
    if not true:
        return None
    return Errors(
        tuple(_psnr(a, b) for a, b in zip(predicted, true, strict=False)),
        tuple(_psnr(last, b) for b in true[: len(predicted)]),
    )


def _psnr(first: Picture, second: Picture) -> float:
    squared = float(np.square(first.astype(np.float64) - second).mean())
    return PERFECT if squared == 0 else min(PERFECT, 10 * math.log10(255**2 / squared))


def _note(
    shape: tuple[int, int],
    worked: tuple[int, ...],
    model: FramePredictor,
    session: PredictionSession,
    frames: int,
) -> str:
    kind = "grey" if model.config.channels == 1 else "RGB"
    changed = "" if shape == worked else f" (input {shape[1]}x{shape[0]}, resized)"
    kept = ", ".join(map(str, session.remembered)) or "none"
    return (
        f"Observed {session.frames_seen} frames, predicted {frames} at {worked[1]}x{worked[0]} "
        f"{kind}{changed}; the memory holds the stacks that end at frames {kept}."
    )


def _write(
    out: Path,
    predicted: list[Picture],
    before: list[Picture],
    truth: list[Picture],
    session: PredictionSession,
    rate: float,
    aspect: Fraction,
    note: str,
    tried: Errors | None,
    errors: Errors | None,
) -> PredictionFiles:
    first = session.frames_seen
    folder = make_folder(out / "frames")
    paths = tuple(folder / f"{first + i:05d}.png" for i in range(len(predicted)))
    _replace_earlier(out, [path.name for path in paths])
    for path, picture in zip(paths, predicted, strict=True):
        write_whole(path, _png(picture))
    strip, video = out / "strip.png", out / "side_by_side.mp4"
    write_whole(strip, _png(draw_strip(before, truth[:SHOWN], predicted[:SHOWN])))
    write_video(video, draw_pairs(before, truth, predicted), rate, aspect)
    if errors is not None:
        write_whole(out / "errors.csv", _table(errors, first).encode())
    return PredictionFiles(paths, video, strip, note, tried, errors)


def _noted(out: Path) -> list[str]:
    """Return the names of the frames that an earlier prediction wrote."""
    note = out / "frames" / WRITTEN
    return note.read_text(encoding="utf-8").splitlines() if note.is_file() else []


def _refuse_frames_of_others(out: Path) -> None:
    """Refuse a folder whose numbered pictures are not those of an earlier prediction.

    They may be the video itself: predicted frames have names of the same kind.
    """
    noted = set(_noted(out))
    found = sorted(path.name for path in (out / "frames").glob("*.png"))
    others = [name for name in found if Path(name).stem.isdigit() and name not in noted]
    if others:
        raise StremnError(
            f"{out / 'frames'} holds {others[0]}, which no prediction wrote. Predicted frames "
            "would go there under such names. Choose another folder with --out."
        )


def _replace_earlier(out: Path, names: list[str]) -> None:
    """Remove what an earlier prediction left in `out`, and note which frames this one writes.

    Only noted files are removed: the folder may hold pictures of others.
    """
    note, earlier = out / "frames" / WRITTEN, _noted(out)
    write_whole(note, "".join(f"{name}\n" for name in sorted({*earlier, *names})).encode())
    for name in earlier:
        if is_plain_name(name) and name not in names:
            (out / "frames" / name).unlink(missing_ok=True)
    if earlier:
        (out / "errors.csv").unlink(missing_ok=True)
    write_whole(note, "".join(f"{name}\n" for name in names).encode())


def _table(errors: Errors, first: int) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["frame", "psnr_predicted", "psnr_last_frame"])
    for i, (ours, copied) in enumerate(zip(errors.predicted, errors.copied, strict=True)):
        writer.writerow([first + i, f"{ours:.3f}", f"{copied:.3f}"])
    return text.getvalue()


def _png(picture: Picture) -> bytes:
    return bytes(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1])
