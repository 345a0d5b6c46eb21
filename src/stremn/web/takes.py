"""What a run leaves on disk for the page: a mask a frame, what the memory held, saved sessions."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stremn.media.files import make_folder
from stremn.media.masks import Labels, write_mask
from stremn.web.drawing import Packed

Given = Mapping[int, Mapping[int, Packed]]
"""The masks that a run was given: by frame, the object's by its id."""


class Take:
    """The frames of one run. A later take lies over an earlier one.

    Attributes:
        start: its first frame.
        settings: what it was run with; takes of other settings do not go on from one another.
        given: the masks that it takes as the truth.
        rows: by frame, what the memory held after it (JSON values).
    """

    def __init__(self, folder: Path, start: int, settings: object, given: Given) -> None:
        self.folder = make_folder(folder)
        self.start = start
        self.settings = settings
        self.given = given
        self.rows: dict[int, dict[str, Any]] = {}

    @property
    def reached(self) -> int:
        """The frame after the last one."""
        return max(self.rows, default=self.start - 1) + 1

    def _path(self, index: int) -> Path:
        return self.folder / f"{index}.png"

    def add(self, index: int, labels: Labels, row: dict[str, Any]) -> None:
        """Keep a frame's label map and what the memory held."""
        write_mask(self._path(index), labels, durable=False)
        self.rows[index] = row

    def labels(self, index: int) -> Labels | None:
        """Return a frame's label map; None if this take did not come to it."""
        if index not in self.rows:
            return None
        with Image.open(self._path(index)) as image:
            return np.asarray(image)


@dataclass(frozen=True)
class SavedState:
    """A session on disk, after frame `after` of a run with these settings and given masks."""

    path: Path
    after: int
    settings: object
    given: Given


MOST_STATES = 48
"""Saved sessions of one visitor; the older ones are thinned out."""


@dataclass
class SavedStates:
    """Sessions to go on from."""

    folder: Path
    kept: list[SavedState] = field(default_factory=list)
    _names: itertools.count[int] = field(default_factory=itertools.count)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def save(self, take: Take, after: int, write: Callable[[Path], object]) -> None:
        """Keep a session's state after a frame; `write` writes it to the path it is given."""
        make_folder(self.folder)
        path = self.folder / f"{next(self._names)}.safetensors"
        write(path)
        with self._lock:
            self.kept.append(SavedState(path, after, take.settings, take.given))
            if len(self.kept) > MOST_STATES:
                self._thin_out()

    def _thin_out(self) -> None:
        """Remove the state that is missed least: distances grow towards the past."""
        order = sorted(self.kept, key=lambda state: state.after)
        latest = order[-1].after

        def missed(place: int) -> float:
            gap = order[place + 1].after - order[place - 1].after
            return gap / (1 + latest - order[place].after)

        least = order[min(range(1, len(order) - 1), key=missed)]
        self.kept.remove(least)
        least.path.unlink(missing_ok=True)

    def best(
        self, before: int, settings: object, given: Given, objects: Set[int]
    ) -> SavedState | None:
        """Return the latest state before a frame that these settings and masks would lead to.

        What it knows of other than `objects` does not matter: they can be removed from it.
        """
        with self._lock:
            fitting = [
                state
                for state in self.kept
                if state.after < before
                and state.settings == settings
                and not _changes(state.given, given, state.after, objects)
            ]
        return max(fitting, key=lambda state: state.after, default=None)


def first_change(take: Take | None, settings: object, given: Given, objects: Set[int]) -> int:
    """Return the frame from which a take no longer holds; its end if all of it does.

    Raises:
        ValueError: no mask is given.
    """
    if take is None or take.settings != settings:
        return min(given)
    changed = _changes(take.given, given, take.reached - 1, objects)
    return min(changed, default=take.reached)


def _changes(before: Given, now: Given, last: int, objects: Set[int]) -> list[int]:
    """Return the frames up to `last` in which some of `objects` were given other masks."""

    def of(given: Given, index: int) -> dict[int, Packed]:
        return {i: mask for i, mask in given.get(index, {}).items() if i in objects}

    frames = [index for index in before.keys() | now.keys() if index <= last]
    return [index for index in frames if of(before, index) != of(now, index)]
