"""Write files for download in the formats that a visitor chose."""

import logging
import shutil
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from stremn.errors import StremnError
from stremn.media.formats.categories import Categories
from stremn.media.formats.choosing import choose_formats
from stremn.media.frame_results import FrameResult
from stremn.media.frames import Frame
from stremn.media.results import ResultWriter
from stremn.media.video import open_frames
from stremn.web.work import Work

logger = logging.getLogger(__name__)

_ALWAYS = ("masks", "overlay", "table", "memory")
"""What every run's folder has; the others are formats that are asked for."""

FORMATS = {
    "masks": "Masks (PNG, a number for each object)",
    "overlay": "Video with the objects drawn in",
    "table": "Where each object is in each frame (CSV)",
    "memory": "What the memory held (JSON)",
    "coco": "COCO with run lengths (JSON)",
    "coco-polygons": "COCO with polygons (JSON)",
    "yolo": "YOLO segmentation (text)",
    "youtube-vis": "YouTube-VIS (JSON)",
    "mots": "MOTS (text)",
    "cvat": "CVAT for video (XML)",
    "mask-folders": "Each object's masks, black and white (PNG)",
    "mask-videos": "Each object's masks, black and white (video)",
    "cut-out": "Cut out on nothing (PNG)",
    "cut-out-webm": "Cut out on nothing (WebM)",
    "cut-out-prores": "Cut out on nothing (ProRes 4444)",
    "green-screen": "On a green screen (video)",
    "black-background": "On black (video)",
    "blurred-background": "On the blurred background (video)",
    "exr": "Mattes (OpenEXR)",
}
"""The files to choose from, and their labels."""


@dataclass(frozen=True)
class ExportStatus:
    """Progress of the files.

    Attributes:
        running: whether they are being written.
        done: frames that are written.
        total: frames in all.
        files: names and sizes in bytes of what is there.
        words: what went wrong, or "".
    """

    running: bool = False
    done: int = 0
    total: int = 0
    files: tuple[tuple[str, int], ...] = ()
    words: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**vars(self), "files": [{"name": n, "bytes": size} for n, size in self.files]}


class _CancelledError(Exception):
    """Raised when other files were requested."""


class Export:
    """Writes the files in a thread.

    Attributes:
        folder: of the files.
        work: what is written.
        status: the progress.
    """

    def __init__(self, video: Path, work: Work, folder: Path, kinds: Sequence[str]) -> None:
        """Begin.

        Args:
            video: file of the video.
            work: what to write; it does not change.
            folder: for the files; emptied first.
            kinds: names in `FORMATS`.

        Raises:
            StremnError: no such format, none, a package for one is missing, or nothing has been
                followed yet.
        """
        unknown = [kind for kind in kinds if kind not in FORMATS]
        if unknown or not kinds:
            raise StremnError("Choose one or more of the formats that the page offers.")
        followed = work.followed()
        if not followed:
            raise StremnError("Nothing has been followed yet; press Follow first.")
        names = Categories(dict(work.objects))
        formats = choose_formats([kind for kind in kinds if kind not in _ALWAYS], names)
        self.folder = folder
        self.status = ExportStatus(running=True, total=followed[-1][1])
        self._video = video
        self.work = work
        self._kinds = tuple(kinds)
        self._formats = formats
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stremn-export", daemon=True)
        self._thread.start()

    def path(self, name: str) -> Path:
        """Return a finished file; raises StremnError if there is none of that name."""
        if name not in [known for known, _ in self.status.files]:
            raise StremnError("There is no such file. Prepare the files again.")
        return self.folder / name

    def close(self) -> None:
        """Stop writing and remove the files."""
        self._stop.set()
        self._thread.join()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ------------------------------------------------------------ in the thread

    def _run(self) -> None:
        try:
            results = self.folder / "results"
            files = tuple(self._pack(self._write(results)))
            shutil.rmtree(results, ignore_errors=True)
            self.status = replace(self.status, running=False, files=files)
        except _CancelledError:
            self.status = replace(self.status, running=False)
        except StremnError as error:
            self.status = replace(self.status, running=False, words=str(error))
        except Exception as error:
            logger.exception("Files for download could not be written")
            words = f"The files could not be written: {error}."
            self.status = replace(self.status, running=False, words=words)

    def _write(self, results: Path) -> dict[str, Path]:
        """Write all frames, and return the files by kind."""
        with open_frames(self._video) as frames:
            writer = ResultWriter(
                results,
                fps=frames.fps,
                existing="replace",
                formats=self._formats,
                pixel_aspect=frames.pixel_aspect,
                sound=frames.sound,
            )
            with writer:
                for frame in islice(frames, self.status.total):
                    if self._stop.is_set():
                        raise _CancelledError
                    writer.write(self._result(frame, writer.keeps_probabilities))
                    self.status = replace(self.status, done=frame.index + 1)
        return writer.files()

    def _result(self, frame: Frame, soft: bool) -> FrameResult:
        """Return the results of a frame, with probabilities if soft edges need them."""
        height, width = frame.image.shape[:2]
        work = self.work
        labels = work.labels(frame.index, (height, width))
        memory = _memory(work.row(frame.index))
        found = work.found(frame.index)
        if found is None:
            return FrameResult(frame, labels, memory)
        result = found.result()
        places = [place for place, item in enumerate(result.ids) if item in work.objects]
        return FrameResult(
            frame,
            labels,
            memory,
            tuple(result.ids[place] for place in places),
            result.probabilities[places] if soft else None,
            {item: sure for item, sure in result.confidences.items() if item in work.objects},
        )

    def _pack(self, written: dict[str, Path]) -> Iterator[tuple[str, int]]:
        """Collect the chosen files; folders become one archive."""
        for kind in self._kinds:
            source = written[kind]
            if source.is_dir():
                target = self.folder / f"{source.name}.zip"
                _zip(source, target)
            else:
                target = self.folder / source.name
                source.replace(target)
            yield target.name, target.stat().st_size


def _memory(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of `memory.json`, without data that only the page shows."""
    objects = row.get("objects", {}).items()
    kept = {item: {k: x for k, x in one.items() if k != "pinned"} for item, one in objects}
    return {"bytes": row.get("bytes", 0), "objects": kept}


def _zip(folder: Path, path: Path) -> None:
    """Write a folder's files to an archive; pictures are compressed already."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, Path(folder.name) / file.relative_to(folder))
