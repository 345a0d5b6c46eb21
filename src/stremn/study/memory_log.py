"""Content of the slots per frame, read from `memory.json` or recorded in an evaluation.

The numbers of Section 4.3 come from here: the ages of templates, d^K[t], and the frames that are
still held at a video's end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from stremn.errors import StremnError
from stremn.media.files import JsonRows, make_folder, read_rows
from stremn.media.frames import Picture, frame_name
from stremn.media.masks import Labels
from stremn.memory.state import NEVER
from stremn.segmentation.reports import StepResult
from stremn.segmentation.sessions import SegmentationSession

MEMORY_FILE = "memory.json"


@dataclass(frozen=True)
class SlotHistory:
    """What the memory of one object held after each frame, from the given one on.

    Attributes:
        video: name of the video.
        object_id: whose memory it is.
        frames: indices of the frames that were segmented, in order, memorized or not; the first is
            the one whose true mask was given.
        held: frame in each slot after each of `frames`; -1 where a slot is empty.
        written: slot that took the frame's template; -1 if it was not stored.
        scores: what the rule compared at each frame; NaN where a slot was not open to it.
        backward: number of earlier frames that are left out, because a backward pass segmented them
            with a memory of its own.
    """

    video: str
    object_id: int
    frames: Int[np.ndarray, " t"]
    held: Int[np.ndarray, "t k"]
    written: Int[np.ndarray, " t"]
    scores: Float[np.ndarray, "t k"]
    backward: int = 0

    @property
    def slots(self) -> int:
        """K, the largest number of slots the memory had."""
        return self.held.shape[1]

    @property
    def given(self) -> int:
        """Frame whose true mask was given."""
        return int(self.frames[0])

    def retained(self) -> list[int]:
        """Return frames held after the last one, in order of time."""
        last = self.held[-1]
        return sorted(int(frame) for frame in last[last != NEVER])

    def memorized(self) -> Int[np.ndarray, " n"]:
        """Return the frames that the memory was offered, in order, whether a rule took them or not.

        These are every n-th frame, and those with a mask of their own. A file does not tell n. But
        a memory that is not full takes all it is offered, so n is the largest gap between the
        first K frames that were stored.
        """
        stored = np.union1d(self.held[self.held != NEVER], [self.given])
        gaps = np.diff(stored[: self.slots])
        if not len(gaps):
            return stored
        regular = (self.frames - stored[gaps.argmax()]) % gaps.max() == 0
        return np.union1d(stored, self.frames[regular])

    def evictions(self) -> Int[np.ndarray, " n"]:
        """Return rows (places in `frames`) at which a template was replaced by another."""
        rows = np.arange(1, len(self.frames))
        before = self.held[rows - 1, self.written[rows]]
        return rows[(self.written[rows] >= 0) & (before != NEVER)]


# Reading --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MemoryLog:
    """What a `memory.json` says about a run.

    Attributes:
        histories: the memory of each object.
        frames: indices of all frames of the run, in order.
        times: seconds from the video's first frame to each; NaN where the input has no times.
    """

    histories: list[SlotHistory]
    frames: Int[np.ndarray, " t"]
    times: Float[np.ndarray, " t"]


def read_histories(source: Path) -> list[SlotHistory]:
    """Read the memory of every object; raises as `read_memory`."""
    return read_memory(source).histories


def read_memory(source: Path) -> MemoryLog:
    """Read a `memory.json`, or that of a folder that holds one.

    Raises:
        StremnError: no such file, no frame in it that was segmented forward, or rows of something
            else.
    """
    path = source / MEMORY_FILE if source.is_dir() else source
    if not path.is_file():
        raise StremnError(
            f"There is no {path}. Give the output folder of `stremn segment`, or its {MEMORY_FILE}."
        )
    name = path.resolve().parent.name if path.name == MEMORY_FILE else path.stem
    rows = read_rows(path)
    try:
        histories = histories_of(name, rows)
        frames = np.array([int(row["frame"]) for row in rows], np.int64)
        times = np.array([float(row.get("time", np.nan)) for row in rows])
    except (KeyError, TypeError, ValueError) as error:
        raise StremnError(
            f"{path} is not a record of a memory ({type(error).__name__}: {error}). It should have "
            f"a row for each frame, as {MEMORY_FILE} of `stremn segment` does."
        ) from error
    if not histories:
        begun = any(row["objects"] for row in rows)
        reason = (
            "no frame of the forward pass, which is what is drawn. Continue the run with --resume"
            if begun
            else "no object: nothing was segmented yet"
        )
        raise StremnError(f"{path} holds {reason}.")
    return MemoryLog(histories, frames, times)


def histories_of(video: str, rows: Sequence[Mapping[str, Any]]) -> list[SlotHistory]:
    """Return the history of each object from the rows of a `memory.json`.

    A history begins with the object's given frame. Rows before it, which a backward pass wrote, are
    left out, and so are objects that have no other rows.
    """
    ids = dict.fromkeys(name for row in rows for name in row["objects"])
    found = (_history(video, name, rows) for name in ids)
    return [history for history in found if history is not None]


Entry = tuple[int, Mapping[str, Any]]
"""A frame, and what its row says about an object."""


def _history(video: str, name: str, rows: Sequence[Mapping[str, Any]]) -> SlotHistory | None:
    entries = [(int(row["frame"]), row["objects"][name]) for row in rows if name in row["objects"]]
    begin = _begin_of_forward_pass(entries)
    own = entries[begin:]
    if not own:
        return None
    slots = max(len(entry["slots"]) for _, entry in own)
    held = np.full((len(own), slots), NEVER, np.int64)
    scores = np.full((len(own), slots), np.nan)
    written = np.full(len(own), NEVER, np.int64)
    for i, (_, entry) in enumerate(own):
        held[i, : len(entry["slots"])] = [NEVER if f is None else f for f in entry["slots"]]
        if entry["replaced"] is not None:
            found = entry["replaced"]["scores"]
            scores[i, : len(found)] = [np.nan if s is None else s for s in found]
            written[i] = entry["replaced"]["slot"]
    frames = np.array([frame for frame, _ in own], np.int64)
    return SlotHistory(video, int(name), frames, held, written, scores, backward=begin)


def _begin_of_forward_pass(entries: Sequence[Entry]) -> int:
    """Return the place after the last entry of a backward pass: these hold later frames."""
    backward = [
        place
        for place, (frame, entry) in enumerate(entries)
        if any(held is not None and held > frame for held in entry["slots"])
    ]
    return backward[-1] + 1 if backward else 0


# Recording ------------------------------------------------------------------------------------


class MemoryRecorder:
    """Writes the memory of an evaluation's sessions to `folder/<sequence>.json`.

    recorder = MemoryRecorder(make_session, folder)
    evaluate(data, recorder.session, out, run, watch=recorder.watch)
    """

    def __init__(self, make_session: Callable[[], SegmentationSession], folder: Path) -> None:
        """Make `folder`, and the sessions to be recorded with `make_session`."""
        self._make = make_session
        self._folder = make_folder(folder)
        self._latest: StepResult | None = None
        self._rows: list[dict[str, Any]] = []

    def session(self) -> RecordedSession:
        """Return a fresh session whose steps are recorded."""
        self._rows, self._latest = [], None
        return RecordedSession(self._make(), self._take)

    def _take(self, result: StepResult) -> None:
        self._latest = result

    def watch(self, sequence: str, done: int, total: int) -> None:
        """Record that `done` of `total` frames are segmented; write the file after the last."""
        if self._latest is not None:
            self._rows.append(_row(done - 1, self._latest))
            self._latest = None
        if done == total:
            table = JsonRows(self._folder / f"{sequence}.json")
            for row in self._rows:
                table.append(row)
            table.close()


class RecordedSession:
    """A session that also passes every result to a callback."""

    def __init__(self, session: SegmentationSession, take: Callable[[StepResult], None]) -> None:
        self._session = session
        self._take = take

    def step(self, frame: Picture, mask: Labels | None = None) -> StepResult:
        """Segment the next frame."""
        result = self._session.step(frame, mask)
        self._take(result)
        return result


def _row(index: int, result: StepResult) -> dict[str, Any]:
    """Return a row of `memory.json`; frames are counted as the data set does.

    A session starts to count where the first object is given, which may be later.
    """
    late = index - result.frame
    table = result.memory.to_json()
    for entry in table["objects"].values():
        entry["slots"] = [None if f is None else f + late for f in entry["slots"]]
        if entry["replaced"] is not None and entry["replaced"]["frame"] is not None:
            entry["replaced"]["frame"] += late
    return {"frame": index, "name": frame_name(index), **table}


# Section 4.3, Fig 5 ---------------------------------------------------------------------------


@dataclass(frozen=True)
class AgeHistogram:
    """d^K[t]: how often a template is t frames older than the frame that reads it.

    Attributes:
        label: what was counted, such as "6 slots".
        shares: at index t, the share of all counted templates; sums to one.
        chance: the same for a memory that holds as many of the frames that were memorized, each
            with the same chance: what the lengths of the videos alone would give.
        templates: number of templates counted, over all frames, objects and videos.
    """

    label: str
    shares: Float[np.ndarray, " t"]
    chance: Float[np.ndarray, " t"]
    templates: int


def template_ages(history: SlotHistory) -> list[Int[np.ndarray, " n"]]:
    """Return ages of the templates that each query frame reads, in frames.

    The given frame and the newest memorized one are left out, as in Section 4.3: a memory of the
    paper always holds both. There every frame is memorized, so the newest is just before the query.
    """
    ages = []
    newest = _newest(history)
    for row, before in enumerate(history.frames[:-1]):  # after the last frame nobody reads
        held = history.held[row]
        counted = held[(held != NEVER) & (held != history.given) & (held != newest[row])]
        ages.append(before + 1 - counted)
    return ages


def _newest(history: SlotHistory) -> Int[np.ndarray, " t"]:
    """Return the newest memorized frame after each frame."""
    memorized = history.memorized()
    return memorized[np.searchsorted(memorized, history.frames, side="right") - 1]


def age_histogram(label: str, histories: Sequence[SlotHistory]) -> AgeHistogram:
    """Count d^K[t] over videos and objects, normalized to sum to one.

    Raises:
        StremnError: nothing to count: too few slots or frames.
    """
    longest = max(int(h.frames[-1] - h.memorized()[0]) for h in histories)
    counts, chance = np.zeros(longest + 1), np.zeros(longest + 1)
    for history in histories:
        for ages, possible in zip(template_ages(history), _possible_ages(history), strict=True):
            counts += np.bincount(ages, minlength=len(counts))
            if len(possible):
                chance[possible] += len(ages) / len(possible)
    total = counts.sum()
    if total == 0:
        raise StremnError(
            f"{label}: the memory held nothing but the given and the newest frame, so there are no "
            "ages to count. Use 3 slots or more, and videos of which more than 3 frames are "
            "memorized."
        )
    return AgeHistogram(label, counts / total, chance / chance.sum(), int(total))


def _possible_ages(history: SlotHistory) -> Iterator[Int[np.ndarray, " n"]]:
    """Yield the ages that a counted template can have at each query frame.

    It may be of any memorized frame but the given one that came before the newest.
    """
    memorized = history.memorized()
    others = memorized[memorized != history.given]
    ends = np.searchsorted(others, _newest(history))
    for before, end in zip(history.frames[:-1], ends[:-1], strict=True):
        yield before + 1 - others[:end]
