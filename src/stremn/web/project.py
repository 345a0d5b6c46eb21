"""One visitor's work on one video: objects, drawings and runs, with undo."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stremn.errors import StremnError
from stremn.media.finding import MaskFinder
from stremn.media.mask_codes import MAX_ID
from stremn.media.masks import LabelMap, Labels
from stremn.web.adapting import Adaptation, Adapter
from stremn.web.downloads import Export, ExportStatus
from stremn.web.drawing import Drawing
from stremn.web.following import Order, Run, Status
from stremn.web.marks import parse_mark
from stremn.web.options import Options
from stremn.web.planning import plan
from stremn.web.shelf import FrameShelf
from stremn.web.takes import SavedStates, Take
from stremn.web.work import Work

if TYPE_CHECKING:
    from stremn.segmentation.opening import VideoModel

MOST_UNDONE = 200
"""Steps that can be taken back."""

MOST_OBJECTS = 100

LONGEST_NAME = 60


@dataclass(frozen=True)
class Tools:
    """Models, folders and limits that all visitors share.

    Attributes:
        find: finds an object from a prompt.
        model: what opens sessions.
        turn: held by the run that computes.
        device: where to compute.
    """

    find: Callable[[], MaskFinder]
    model: Callable[[], VideoModel]
    turn: threading.Lock
    device: str


class Project:
    """One video, its objects and results, in its own folder.

    Every method may be called by any thread. One that is refused changes nothing.
    """

    def __init__(self, video: Path, folder: Path, tools: Tools, most: int) -> None:
        self.video = video
        self.folder = folder
        self.shelf = FrameShelf(video, folder / "frames", most)
        self.version = 0
        self._tools = tools
        self._work = Work()
        self._past: list[Work] = []
        self._future: list[Work] = []
        self._takes: set[Take] = set()  # whose masks are on the disk
        self._lock = threading.RLock()
        self._states = SavedStates(folder / "states")
        self._numbers = itertools.count()
        self._run: Run | None = None
        self._adapter = Adapter(self.shelf, self._states, tools.device)
        self._export: Export | None = None

    # ------------------------------------------------------------ looking

    @property
    def work(self) -> Work:
        """The current state."""
        return self._work

    @property
    def status(self) -> Status:
        """Status of the latest run."""
        return Status() if self._run is None else self._run.status

    @property
    def export_status(self) -> ExportStatus:
        """Progress of the files for download."""
        return ExportStatus() if self._export is None else self._export.status

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to undo."""
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        """Whether there is a change to redo."""
        return bool(self._future)

    def labels(self, index: int) -> Labels:
        """Return the objects of a frame, "height width"; all 0 where there are none."""
        return self._work.labels(index, self.shelf.size)

    # ------------------------------------------------------------ changing

    def mark(self, index: int, item: int, data: object) -> None:
        """Apply one mark of an object in a frame; a run is paused first.

        Raises:
            StremnError: no such object or frame, or the gesture leads to no object.
        """
        mark = parse_mark(data)
        with self._lock:
            self._halt()
            work = self._work
            self._check_object(item)
            frame = self.shelf.picture(index)
            begun = work.drawings.get(index) or Drawing.on(index, self.labels(index))
            drawing = begun.only(work.objects.keys()).marked(frame, item, mark, self._tools.find())
            self._change(replace(work, drawings={**work.drawings, index: drawing}))

    def clear(self, index: int) -> None:
        """Remove all marks of a frame."""
        with self._lock:
            self._halt()
            rest = {i: one for i, one in self._work.drawings.items() if i != index}
            if len(rest) < len(self._work.drawings):
                self._change(replace(self._work, drawings=rest))

    def use_mask(self, index: int, mask: LabelMap) -> None:
        """Use the objects of a mask file for a frame."""
        with self._lock:
            self._halt()
            work = self._work
            if len(work.objects.keys() | set(mask.ids)) > MOST_OBJECTS:
                raise StremnError(f"The page follows at most {MOST_OBJECTS} objects.")
            objects = work.objects if work.given() or work.takes else {}
            named = {i: work.objects.get(i, f"Object {i}") for i in mask.ids}
            drawing = Drawing.on(index, np.zeros(self.shelf.size, np.uint8)).with_objects(mask)
            drawings = {**work.drawings, index: drawing}
            self._change(replace(work, objects={**objects, **named}, drawings=drawings))

    def add_object(self, name: str = "") -> int:
        """Add an object, and return its id.

        Raises:
            StremnError: there are too many.
        """
        with self._lock:
            objects = self._work.objects
            item = max(self._work.ids(), default=0) + 1  # masks of a removed one are not its own
            if len(objects) >= MOST_OBJECTS or item > MAX_ID:
                raise StremnError(f"The page follows at most {MOST_OBJECTS} objects.")
            named = {**objects, item: _name(name) or f"Object {item}"}
            self._change(replace(self._work, objects=named))
            return item

    def name_object(self, item: int, name: str) -> None:
        """Name an object; raises StremnError if it is not there, or the name is empty."""
        with self._lock:
            self._check_object(item)
            if not _name(name):
                raise StremnError("A name has at least one letter.")
            objects = {**self._work.objects, item: _name(name)}
            if objects != self._work.objects:
                self._change(replace(self._work, objects=objects))

    def remove_object(self, item: int) -> None:
        """Remove an object from all frames; raises StremnError if it is not there."""
        with self._lock:
            self._check_object(item)
            self._halt()
            objects = {i: name for i, name in self._work.objects.items() if i != item}
            self._change(replace(self._work, objects=objects))

    def undo(self) -> None:
        """Undo the latest change, also a run."""
        self._step_in_time(self._past, self._future)

    def redo(self) -> None:
        """Redo the change that was undone last."""
        self._step_in_time(self._future, self._past)

    def _step_in_time(self, source: list[Work], target: list[Work]) -> None:
        with self._lock:
            self._halt()
            if source:
                target.append(self._work)
                self._work = source.pop()
                self.version += 1

    def _change(self, work: Work) -> None:
        self._past.append(self._work)
        del self._past[:-MOST_UNDONE]
        self._future.clear()
        self._work = work
        self.version += 1
        self._remove_unreachable()

    def _remove_unreachable(self) -> None:
        """Remove the masks of runs that undo, redo and a running export can no longer reach."""
        works = [*self._past, self._work]
        if self._export is not None and self._export.status.running:
            works.append(self._export.work)
        reachable = {take for work in works for take in work.takes}
        for take in self._takes - reachable:
            shutil.rmtree(take.folder, ignore_errors=True)
        self._takes = reachable

    def _check_object(self, item: int) -> None:
        if item not in self._work.objects:
            raise StremnError(f"There is no object {item}. Add one first.")

    # ------------------------------------------------------------ following

    def follow(self, options: Options) -> None:
        """Start a run, or continue where results are missing or something was corrected.

        Raises:
            StremnError: no object is marked, all is followed already, or an impossible option.
        """
        with self._lock:
            if self.status.running:
                return
            work = self._work
            given, objects = work.given(), work.objects.keys()
            if not given:
                raise StremnError(
                    "Mark an object first: draw a box around it, click on it, or paint it."
                )
            options.check(self._tools.model(), self._tools.device)
            adaptation = self._adapter.choose(given, objects) if options.adapt else None
            legs = plan(
                options, options.settings(adaptation), self.shelf.count, work.takes, given,
                objects, self._states, lambda: self.folder / f"take-{next(self._numbers)}",
            )  # fmt: skip
            if not legs:
                raise StremnError(
                    "All frames are followed. Correct one, or change a setting, to go on from it."
                )
            order = Order(
                self.video, legs, frozenset(objects), options,
                lambda watch: self._model(adaptation, watch), self._tools.device,
            )  # fmt: skip
            self._change(replace(work, takes=(*work.takes, *(leg.take for leg in legs))))
            self._run = Run(order, self.shelf, self._states, self._tools.turn)

    def _model(
        self, adaptation: Adaptation | None, watch: Callable[[int, int], None]
    ) -> VideoModel:
        """Return the model, adapted where that is asked for."""
        model = self._tools.model()
        return model if adaptation is None else self._adapter.model(model, adaptation, watch)

    def pause(self) -> None:
        """Stop the run after its current frame; `follow` continues it."""
        if self._run is not None:
            self._run.pause()

    def _halt(self) -> None:
        """Pause the run and wait for its last frame."""
        if self._run is not None and self._run.status.running:
            self._run.pause()
            self._run.join()

    # ------------------------------------------------------------ downloads

    def export(self, kinds: Sequence[str]) -> None:
        """Start writing files in these formats; earlier ones are removed.

        Raises:
            StremnError: no such format, or nothing has been followed yet.
        """
        with self._lock:
            folder = self.folder / f"export-{next(self._numbers)}"
            export = Export(self.video, self._work, folder, kinds)
            if self._export is not None:
                self._export.close()
            self._export = export

    def download(self, name: str) -> Path:
        """Return a file that was written; raises StremnError if there is none of that name."""
        if self._export is None:
            raise StremnError("There is no such file. Prepare the files first.")
        return self._export.path(name)

    def close(self) -> None:
        """Stop the run and close the video."""
        self.pause()
        if self._export is not None:
            self._export.close()
        if self._run is not None:
            self._run.join(60)
        self.shelf.close()


def _name(text: str) -> str:
    """Return a name in one line without control characters."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())[:LONGEST_NAME]
