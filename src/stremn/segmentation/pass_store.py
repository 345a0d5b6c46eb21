"""Store the results of a pass through a video on disk: probabilities per frame, and the progress.

One file per frame, so that neither pass nor reader holds more than one. Probabilities are kept at
the working resolution in steps of 1/255, compressed.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Integer

from stremn.errors import StremnError
from stremn.media.files import make_folder, write_whole, writing
from stremn.moved import with_current_facts
from stremn.networks.working_size import WorkingSize
from stremn.segmentation.reports import MemoryReport, ObjectMemory, Replacement, StepResult

_STEPS = 255


@dataclass(frozen=True)
class Kept:
    """What is stored of a frame.

    Attributes:
        given: for each object the number of its given frame that the pass met last.
        probabilities: probability of each of these objects, in their order.
        memory: what the memory held after the frame.
        size: at which the probabilities are.
    """

    given: Mapping[int, int]
    probabilities: Float[np.ndarray, "o h w"]
    memory: MemoryReport
    size: WorkingSize

    @property
    def ids(self) -> tuple[int, ...]:
        """The objects."""
        return tuple(self.given)

    @classmethod
    def of(cls, result: StepResult, given: Mapping[int, int]) -> Self:
        """Select what is stored of a result."""
        met = {item: given[item] for item in result.ids}
        return cls(met, result.layer_probabilities[1:], result.memory, result.size)


def write_kept(path: Path, kept: Kept) -> None:
    """Store the results of a frame; raises StremnError if that is not possible."""
    content = io.BytesIO()
    np.savez_compressed(
        content,
        ids=np.array(list(kept.given), np.int64),
        given=np.array(list(kept.given.values()), np.int64),
        shares=np.rint(kept.probabilities * _STEPS).astype(np.uint8),
        memory=_bytes(asdict(kept.memory)),
        size=_bytes(asdict(kept.size)),
    )
    write_whole(path, content.getvalue(), durable=False)


def read_kept(path: Path) -> Kept:
    """Return what `write_kept` wrote; raises OSError if it is gone or damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            given = dict(zip(kept["ids"].tolist(), kept["given"].tolist(), strict=True))
            probabilities = kept["shares"].astype(np.float32) / _STEPS
            memory = _report(json.loads(kept["memory"].tobytes()))
            size = _size(json.loads(kept["size"].tobytes()))
        if probabilities.ndim != 3 or len(probabilities) != len(given):
            raise ValueError(f"its probabilities have the shape {probabilities.shape}")
    except Exception as error:  # a damaged zip raises many kinds
        raise OSError(str(error)) from error
    return Kept(given, probabilities, memory, size)


class PassStore:
    """A folder with the results of a pass; it is removed when the run is finished."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        """Continue in a folder; empty it first without `resume`, or if it belongs to another run.

        Args:
            folder: where to keep it.
            settings: JSON values that a resumed pass must share with the interrupted one.
            resume: keep what is there.

        Raises:
            StremnError: no permission, disk full.
        """
        self._folder = folder
        self._settings = json.loads(json.dumps(settings))
        made = with_current_facts(self._progress().get("settings"))
        if not resume or made != self._settings:
            with writing(folder):
                shutil.rmtree(folder, ignore_errors=True)
            make_folder(folder)
        self._last = self._progress()

    @property
    def complete(self) -> bool:
        """Whether the pass is at its end."""
        return bool(self._last.get("complete"))

    @property
    def state_path(self) -> Path | None:
        """The session's state at the last checkpoint; None if there is none."""
        frame = self._last.get("frame")
        path = None if frame is None else self._state(frame)
        return path if path is not None and path.is_file() else None

    def add(self, frame: int, kept: Kept) -> None:
        """Store the results of a frame; raises StremnError if the disk is full."""
        write_kept(self._frame(frame), kept)

    def read(self, frame: int) -> Kept:
        """Return the stored results of a frame.

        Raises:
            StremnError: it is gone or damaged.
        """
        path = self._frame(frame)
        try:
            return read_kept(path)
        except OSError as error:
            raise StremnError(
                f"{path} of the backward pass is gone or damaged ({error}). Use --overwrite to "
                "start again."
            ) from error

    def checkpoint(
        self, frame: int, save_state: Callable[[Path], object], *, complete: bool = False
    ) -> None:
        """Make the pass resumable after a frame, or mark it as complete.

        Raises:
            StremnError: no permission, disk full; the checkpoint before stays in force.
        """
        old = self.state_path
        if not complete:
            save_state(self._state(frame))
        self._last = {"frame": frame, "complete": complete, "settings": self._settings}
        write_whole(self._folder / "pass.json", json.dumps(self._last).encode())
        if old is not None and old != self.state_path:
            old.unlink(missing_ok=True)

    def _progress(self) -> dict[str, Any]:
        try:
            found = json.loads((self._folder / "pass.json").read_bytes())
        except (OSError, ValueError):
            return {}
        known = isinstance(found, dict) and isinstance(found.get("frame", 0), int)
        return found if known else {}

    def _frame(self, frame: int) -> Path:
        return self._folder / f"{frame:09d}.npz"

    def _state(self, frame: int) -> Path:
        return self._folder / f"state-{frame:09d}.safetensors"


def _bytes(values: dict[str, Any]) -> Integer[np.ndarray, " n"]:
    return np.frombuffer(json.dumps(values).encode(), np.uint8)


def _size(values: dict[str, Any]) -> WorkingSize:
    """Return a working size from its JSON values."""
    pairs = {key: tuple(values[key]) for key in ("inner", "padded")}
    return WorkingSize(**(values | pairs))


def _report(values: dict[str, Any]) -> MemoryReport:
    """Return a report from its JSON values."""
    objects = tuple(
        ObjectMemory(
            row["id"],
            tuple(row["frames"]),
            tuple(row["pinned"]),
            None
            if row["replaced"] is None
            else Replacement(
                row["replaced"]["slot"],
                row["replaced"]["frame"],
                tuple(row["replaced"]["scores"]),
            ),
        )
        for row in values["objects"]
    )
    return MemoryReport(objects, values["nbytes"])
