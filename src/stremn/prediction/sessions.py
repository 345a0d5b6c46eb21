"""Predict from a stream: observe frames as they arrive, predict the next ones at any time.

    session = PredictionSession(load_memory_predictor("digits"))
    for frame in frames:
        session.observe(frame)
    future = session.predict(20)

The memory never grows, however long the stream is. `predict` leaves the session as it was.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from stremn.core.arguments import whole_number
from stremn.core.checkpoints import read_tensors, write_tensors
from stremn.core.config import build, read_json
from stremn.core.guarded_calls import GuardedCalls, guarded
from stremn.core.hardware import pick_device
from stremn.errors import StremnError
from stremn.moved import with_current_facts
from stremn.networks.inference import placed
from stremn.prediction.frame_fit import fit_of
from stremn.prediction.model import Encoded, FramePredictor, Past
from stremn.prediction.saved_sessions import SessionFacts, session_parts

_KEY = "stremn_prediction_session"
_FORMAT = 1

_STATE = ("frames_seen", "surprise", "_fit", "_past", "_window", "_last", "_shape")

SMALLEST, MOST_PIXELS = 16, 2**14
"""Allowed working resolutions: shorter side in pixels."""
MOST_FRAMES = 1_000_000
"""Maximum number of frames of one call, which are all held in memory."""


class PredictionSession:
    """Streams frames into a predictor's memory.

    Args:
        model: a predictor with weights; copied if it is in training mode or on another device.
        device: "auto", "cpu", "cuda", "cuda:1", "mps", ...
        size: for predictors of any size: larger frames are resized to this shorter side in pixels;
            None keeps their size. Other predictors have a fixed size and refuse this argument.
        score: predict every frame before it is observed, and store the error in `surprise`. This
            takes one more decoding per frame.

    Raises:
        StremnError: an unknown device, or a size for a predictor of fixed size.
    """

    def __init__(
        self,
        model: FramePredictor,
        *,
        device: str = "auto",
        size: int | None = None,
        score: bool = False,
    ) -> None:
        self._device = pick_device(device)
        self._side = None if size is None else whole_number(size, "size", SMALLEST, MOST_PIXELS)
        if size is not None and not model.config.any_size:
            side = model.config.size
            raise StremnError(
                f"This predictor works at {side}x{side} pixels and takes no size; got size={size}. "
                "Leave it out, or choose a predictor of any size, such as natural."
            )
        self.model = placed(model, self._device, torch.float32)
        self.score = score
        self.frames_seen = 0
        self.surprise: float | None = None
        """With `score`: root mean squared error of the latest frame's prediction, values in [0, 1].
        None before a frame could be predicted."""
        square = (model.config.size, model.config.size)
        self._fit = fit_of(model.config, square, self._side)
        self._past = self._empty()
        self._window: list[Float[Tensor, "c height width"]] = []
        self._last: Encoded | None = None  # the latest stack: read with it before it is written
        self._shape: tuple[int, int] | None = None
        self._calls = GuardedCalls(_STATE)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the memory and a carried state; the same from the first frame to the last."""
        return self._past.nbytes

    @property
    def remembered(self) -> tuple[int, ...]:
        """Index of the last frame of each stack in memory, oldest first."""
        return tuple(sorted(t for t in self._past.memory.written_at[0].tolist() if t >= 0))

    @guarded
    def fork(self) -> PredictionSession:
        """Return an independent copy of the session.

        It is cheap: tensors are shared, and no call changes one in place.
        """
        other = copy.copy(self)
        other._calls = GuardedCalls(_STATE)
        return other

    @guarded
    def observe(self, frame: np.ndarray) -> None:
        """Observe the next frame.

        Args:
            frame: uint8, or floating point in [0, 1]; "height width", or channels last with 1 or 3
                channels. It is converted to gray or RGB and resized for the model.

        Raises:
            StremnError: a frame that cannot be used; the session is then as before.
        """
        picture = self._prepare(frame)
        self.surprise = self._error_at(picture) if self.score else None
        window = [*self._window, picture][-self.model.config.stack :]
        if self._last is not None:
            self._past = self.model.memorize(self._past, self._last, self.frames_seen - 1)
            self._last = None
        self._window = window
        self._shape = (frame.shape[0], frame.shape[1])
        if len(window) == self.model.config.stack:
            self._last = self.model.encode_query(torch.stack(window)[None])
            self._past = self.model.carry(self._past, self._last)
        self.frames_seen += 1

    def _error_at(self, picture: Float[Tensor, "c height width"]) -> float | None:
        """Measure how far a frame is from its prediction; None if there can be none yet."""
        if self._last is None or not self.remembered:
            return None
        predicted = self._fit.crop(self.model.recall(self._past, self._last))[0]
        return float((predicted - self._fit.crop(picture[None])[0]).square().mean().sqrt())

    @guarded
    def predict(
        self, frames: int, watch: Callable[[int], None] = lambda done: None
    ) -> UInt8[np.ndarray, "frames height width c"]:
        """Predict the next `frames` frames at the working resolution; the session does not change.

        Args:
            frames: how many.
            watch: called with the number of frames done after each; an error that it raises ends
                the prediction.

        Raises:
            StremnError: fewer frames were observed than a stack has, or `frames` is below 1.
        """
        frames = whole_number(frames, "The number of frames", 1, MOST_FRAMES)
        size = self.model.config.stack
        if self._last is None:
            raise StremnError(
                f"Prediction starts from a stack of {size} frames, but only {self.frames_seen} "
                "were observed. Observe more frames first."
            )
        past, stack, window = self._past, self._last, list(self._window)
        if not self.remembered:  # one stack cannot be both memory and query: repeat the first
            past = self._after_repeated_frame(window, stack)
        predicted = []
        for step in range(frames):
            shown = self.model.draw(past, stack)
            predicted.append(self._picture(shown.frame))
            watch(step + 1)
            if step < frames - 1:
                past = self.model.memorize(past, stack, self.frames_seen - 1 + step)
                window = [*window[1:], shown.frame[0]]
                stack = self.model.encode_query(torch.stack(window)[None], shown)
                past = self.model.carry(past, stack)
        return np.stack(predicted)

    def _picture(
        self, frame: Float[Tensor, "1 c padded_height padded_width"]
    ) -> UInt8[np.ndarray, "height width c"]:
        """Return a predicted frame as a picture, without padding: 8 bits, so that many fit."""
        picture = self._fit.crop(frame)[0].permute(1, 2, 0)
        return (picture * 255).round().to(torch.uint8).contiguous().cpu().numpy()

    def _after_repeated_frame(
        self, window: list[Float[Tensor, "c height width"]], stack: Encoded
    ) -> Past:
        """Return the past of the first stack, as if the video's first frame had come twice."""
        first = self.model.encode_query(torch.stack([window[0], *window[:-1]])[None])
        past = self.model.carry(self._empty(), first)
        past = self.model.memorize(past, first, self.frames_seen - 2)
        return self.model.carry(past, stack)

    @guarded
    def save(self, path: str | Path) -> None:
        """Write the session's state (not the weights) to a file, in one move."""
        facts = {
            "format": _FORMAT,
            "config": self.model.config.model_dump(mode="json"),
            "frames_seen": self.frames_seen,
            "filled": self._past.memory.filled,
            "shape": self._shape,
            "side": self._side,
            "score": self.score,
            "surprise": self.surprise,
        }
        tensors = {f"memory.{name}": x for name, x in self._past.memory.tensors().items()}
        tensors |= {f"carried.{i}": x for i, x in enumerate(self._past.carried)}
        tensors |= {f"window.{i}": picture for i, picture in enumerate(self._window)}
        tensors = {name: x.cpu().contiguous() for name, x in tensors.items()}
        write_tensors(Path(path), tensors, {_KEY: json.dumps(facts)})

    @classmethod
    def load(
        cls, path: str | Path, model: FramePredictor, *, device: str = "auto"
    ) -> PredictionSession:
        """Load a saved session; it continues exactly as the saved one would have.

        Raises:
            StremnError: no session in the file, or one of another model.
        """
        where, path = pick_device(device), Path(path)
        header, found = read_tensors(path, "saved session")
        if _KEY not in header:
            raise StremnError(f"{path} holds no prediction session.")
        what = f"The header of {path}"
        content = with_current_facts(read_json(header[_KEY], what))
        if content.get("format") != _FORMAT:
            raise StremnError(
                f"The session {path} has format {content.get('format')}, this version reads format "
                f"{_FORMAT}. Observe the frames again."
            )
        facts = build(SessionFacts, content, what)
        # Read as a configuration, so that fields newer than the session have their defaults.
        if facts.config != model.config:
            raise StremnError(
                f"The session {path} belongs to a model with another configuration. Load the "
                "weights it was saved with."
            )
        session = cls(model, device=device, size=facts.side, score=facts.score)
        session.surprise = facts.surprise
        if facts.shape is not None:
            session._fit = fit_of(model.config, facts.shape, facts.side)
            # Before memory of that size is asked for: a damaged size may be any.
            size = (model.config.channels, *session._fit.padded)
            if "window.0" not in found or found["window.0"].shape != size:
                height, width = facts.shape
                raise StremnError(
                    f"{path} is damaged: it holds no frames of {width}x{height}, the size that it "
                    "names. Observe the frames again."
                )
            session._past = session._empty()
        try:
            parts = session_parts(facts, found, session._past, session._fit.padded)
        except ValueError as error:
            raise StremnError(f"{path} is damaged: {error}. Observe the frames again.") from error
        memory, carried, window = ({n: x.to(where) for n, x in part.items()} for part in parts)
        session._past = Past(
            replace(
                session._past.memory, **memory, filled=facts.filled, growth=model.config.growth
            ),
            tuple(carried.values()),
        )
        session._window = list(window.values())
        session.frames_seen = facts.frames_seen
        session._shape = facts.shape
        if len(session._window) == model.config.stack:
            with torch.inference_mode():
                session._last = session.model.encode_query(torch.stack(session._window)[None])
        return session

    def _empty(self) -> Past:
        return self.model.empty(1, *self._fit.padded, self._device)

    def _prepare(self, frame: np.ndarray) -> Float[Tensor, "c height width"]:
        if not isinstance(frame, np.ndarray) or frame.ndim < 2 or 0 in frame.shape:
            found = getattr(frame, "shape", type(frame).__name__)
            raise StremnError(f"A frame is an array (height, width) or with channels; got {found}.")
        if self._shape is not None and frame.shape[:2] != self._shape:
            raise StremnError(
                f"Frames differ in size: the first is {self._shape[1]}x{self._shape[0]}, frame "
                f"{self.frames_seen} is {frame.shape[1]}x{frame.shape[0]}. A session takes one "
                "size; resize the frames, or start another session."
            )
        picture = to_channels(as_unit_range(frame), self.model.config.channels)
        if self._shape is None:
            shape = (frame.shape[0], frame.shape[1])
            self._fit = fit_of(self.model.config, shape, self._side)
            self._past = self._empty()
        return self._fit.fit(picture).to(self._device)


def as_unit_range(frame: np.ndarray) -> Float[np.ndarray, "height width *c"]:
    """Return a frame as float32 in [0, 1]; uint8 is divided by 255.

    Raises:
        StremnError: other types, or values outside [0, 1].
    """
    if frame.dtype == np.uint8:
        return frame.astype(np.float32) / 255
    if not np.issubdtype(frame.dtype, np.floating):
        raise StremnError(
            f"Frames are uint8, or floating point in [0, 1]; got {frame.dtype}. Convert them first."
        )
    low, high = float(frame.min()), float(frame.max())
    if not (low >= 0 and high <= 1):
        raise StremnError(
            f"Floating-point frames must hold values in [0, 1], but these reach from {low:g} to "
            f"{high:g}. Divide 8-bit values by 255."
        )
    return frame.astype(np.float32)


def to_channels(
    frame: Float[np.ndarray, "height width *c"], channels: int
) -> Float[np.ndarray, "height width channels"]:
    """Convert between grey and RGB; grey is the usual weighted sum (ITU-R 601).

    Raises:
        StremnError: no picture of 1 or 3 channels.
    """
    if frame.ndim == 2:
        frame = frame[..., None]
    if frame.ndim != 3 or frame.shape[2] not in (1, 3) or 0 in frame.shape:
        raise StremnError(
            "A frame has the shape (height, width), (height, width, 1) or (height, width, 3); "
            f"got {frame.shape}."
        )
    if frame.shape[2] == channels:
        return frame
    if channels == 1:
        return frame @ np.array([[0.299], [0.587], [0.114]], np.float32)
    return np.repeat(frame, 3, axis=2)
