"""Files of a run of the page: one mask per frame, memory reports, saved sessions."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from stremn.errors import StremnError
from stremn.media.files import make_folder
from stremn.media.masks import Labels, write_mask
from stremn.segmentation.pass_store import Kept, read_kept, write_kept
from stremn.web.drawing import Packed

if TYPE_CHECKING:
    from stremn.web.options import Settings

Given = Mapping[int, Mapping[int, Packed]]
"""The masks that a run was given: by frame, the object's by its id."""


@dataclass(frozen=True)
class Way:
    """A pass through the video: forward (`step` 1) or backward (-1) from the frame `anchor`.

    Its own time counts the frames from there.
    """

    anchor: int
    step: int

    def time(self, index: int) -> int:
        """Return the time at which it reaches a frame; negative if it never does."""
        return (index - self.anchor) * self.step

    def index(self, time: int) -> int:
        """Return the frame that it reaches at a time."""
        return self.anchor + time * self.step

    def of(self, given: Given) -> Given:
        """Return the given masks that it meets."""
        return {index: masks for index, masks in given.items() if self.time(index) >= 0}

    def met(self, given: Given, index: int) -> dict[int, int]:
        """Return for each object the latest frame, up to a given one, in which it was given."""
        on_way = sorted(self.of(given), key=self.time)
        return {
            item: frame
            for frame in on_way
            if self.time(frame) <= self.time(index)
            for item in given[frame]
        }


class Take:
    """The results of one run in one direction. A later take replaces an earlier one.

    Attributes:
        way: where it goes.
        start: when on its way it begins.
        settings: what it was run with; takes of other settings do not go on from one another.
        given: the masks that it takes as the truth, on its way.
        ways: of the run that it belongs to, forward first; what is found on both is joined.
        rows: by frame, what the memory held after it (JSON values).
        reached: when on its way the next frame would come.
    """

    def __init__(
        self,
        folder: Path,
        way: Way,
        start: int,
        settings: Settings,
        given: Given,
        ways: tuple[Way, ...] = (),
    ) -> None:
        self.folder = make_folder(folder)
        self.way = way
        self.start = start
        self.settings = settings
        self.given = given
        self.ways = ways or (way,)
        self.rows: dict[int, dict[str, Any]] = {}
        self.reached = start

    def holds(self, index: int) -> bool:
        """Return whether it has a mask of a frame; the forward take has that of its anchor."""
        return index in self.rows and (self.way.step > 0 or index != self.way.anchor)

    def add(self, index: int, labels: Labels, kept: Kept, row: dict[str, Any]) -> None:
        """Store a frame's label map, its probabilities, and the content of the memory."""
        write_mask(self._path(index, "png"), labels, durable=False)
        write_kept(self._path(index, "npz"), kept)
        self.rows[index] = row
        self.reached = self.way.time(index) + 1

    def labels(self, index: int) -> Labels:
        """Return the label map of a frame that it holds."""
        with Image.open(self._path(index, "png")) as image:
            return np.asarray(image)

    def kept(self, index: int) -> Kept:
        """Return the probabilities of a frame that it holds.

        Raises:
            StremnError: they are gone.
        """
        try:
            return read_kept(self._path(index, "npz"))
        except OSError as error:
            raise StremnError(
                f"The mask of frame {index} is missing on the server's disk."
            ) from error

    def _path(self, index: int, kind: str) -> Path:
        return self.folder / f"{index}.{kind}"


@dataclass(frozen=True)
class SavedState:
    """A session saved after the frame at time `after` of a pass with these given masks."""

    path: Path
    way: Way
    after: int
    settings: Settings
    given: Given


MOST_STATES = 48
"""Saved sessions of one visitor; the older ones are thinned out."""


@dataclass
class SavedStates:
    """Saved sessions, from which runs continue.

    Attributes:
        folder: where they are written.
        kept: the ones that are there.
        wanted: those that the current run continues from; they are not removed before it does.
    """

    folder: Path
    kept: list[SavedState] = field(default_factory=list)
    wanted: Sequence[SavedState] = ()
    _names: itertools.count[int] = field(default_factory=itertools.count)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def save(self, take: Take, after: int, write: Callable[[Path], object]) -> None:
        """Save a session's state after the frame at time `after`; `write` writes it to a path."""
        make_folder(self.folder)
        path = self.folder / f"{next(self._names)}.safetensors"
        write(path)
        with self._lock:
            self.kept.append(SavedState(path, take.way, after, take.settings, take.given))
            if len(self.kept) > MOST_STATES:
                self._thin_out()

    def _thin_out(self) -> None:
        """Remove the least useful state: distances grow towards the past."""
        order = sorted(self.kept, key=lambda state: state.after)
        latest = order[-1].after

        def missed(place: int) -> float:
            gap = order[place + 1].after - order[place - 1].after
            return gap / (1 + latest - order[place].after)

        free = [place for place in range(1, len(order) - 1) if order[place] not in self.wanted]
        if not free:
            return
        self._remove(order[min(free, key=missed)])

    def remove(self, unusable: Callable[[SavedState], bool]) -> None:
        """Remove the states for which `unusable` is true, and their files."""
        with self._lock:
            for state in [state for state in self.kept if unusable(state)]:
                self._remove(state)

    def _remove(self, state: SavedState) -> None:
        self.kept.remove(state)
        state.path.unlink(missing_ok=True)

    def best(
        self, way: Way, before: int, settings: Settings, given: Given, objects: Set[int]
    ) -> SavedState | None:
        """Return the latest state before a time that fits these settings and masks.

        What it knows of other than `objects` does not matter: they can be removed from it.
        """
        with self._lock:
            fitting = [
                state
                for state in self.kept
                if (state.way, state.settings) == (way, settings)
                and state.after < before
                and not _changes(way, state.given, given, state.after, objects)
            ]
        return max(fitting, key=lambda state: state.after, default=None)


def first_change(take: Take, settings: Settings, given: Given, objects: Set[int]) -> int:
    """Return the time from which a take is no longer valid; its end if all of it is."""
    if take.settings != settings:
        return 0
    changed = _changes(take.way, take.given, given, take.reached - 1, objects)
    return min(changed, default=take.reached)


def _changes(way: Way, before: Given, now: Given, last: int, objects: Set[int]) -> list[int]:
    """Return the times up to `last` at which some of `objects` were given other masks."""

    def of(given: Given, index: int) -> dict[int, Packed]:
        return {i: mask for i, mask in given.get(index, {}).items() if i in objects}

    frames = [index for index in before.keys() | now.keys() if 0 <= way.time(index) <= last]
    return [way.time(index) for index in frames if of(before, index) != of(now, index)]
