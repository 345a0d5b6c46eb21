"""Score the masks of boxes and clicks: IoU after each prompt, and clicks to a threshold."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from stremn.core.atomic_files import output_folder
from stremn.data.readers.still_sets import open_stills
from stremn.errors import StremnError
from stremn.evaluation.intervals import Interval, mean_interval
from stremn.evaluation.unfinished import telling_what_is_kept
from stremn.media.files import JsonRows, write_whole
from stremn.media.finding import Click, MaskFinder
from stremn.media.frames import Picture
from stremn.media.mask_codes import VOID
from stremn.media.prompts import Box
from stremn.prompting.planes import Plane, next_click

CLICKS = 20
"""Clicks given at most, as in the literature."""

RESULTS = "prompts.json"
UNFINISHED = "prompts-unfinished.json"
"""The objects that are scored so far; a run that ends well replaces it by `RESULTS`."""

SHOWN = (1, 2, 3, 5)
THRESHOLDS = (0.85, 0.90)


@dataclass(frozen=True)
class Example:
    """An object to find: a frame, its mask, and void pixels."""

    name: str
    frame: Picture
    truth: Plane
    void: Plane | None = None


@dataclass(frozen=True)
class PromptScores:
    """IoU in [0, 1] of one object: after a tight and a loose box, and after 1, 2, ... clicks."""

    name: str
    tight: float
    loose: float
    clicks: tuple[float, ...]

    def clicks_to(self, threshold: float) -> int:
        """Return the number of clicks to an IoU (NoC); the most given where it is not reached."""
        reached = [number for number, iou in enumerate(self.clicks, 1) if iou >= threshold]
        return reached[0] if reached else len(self.clicks)

    def values(self) -> dict[str, float]:
        """Return the numbers of the table, by name."""
        rows = {"box": self.tight, "loose box": self.loose}
        for count in SHOWN:
            if count <= len(self.clicks):
                rows["1 click" if count == 1 else f"{count} clicks"] = self.clicks[count - 1]
        for threshold in THRESHOLDS:
            rows[f"NoC@{threshold:.0%}"] = float(self.clicks_to(threshold))
        return rows

    def to_json(self) -> dict[str, Any]:
        """Return the scores as a table for score files."""
        return {
            "name": self.name,
            "box": self.tight,
            "loose_box": self.loose,
            "clicks": list(self.clicks),
        }


def iou(found: Plane, truth: Plane, void: Plane | None = None) -> float:
    """Return intersection over union, without void pixels; 1 where both are empty."""
    if void is not None:
        found, truth = found & ~void, truth & ~void
    union = (found | truth).sum()
    return float((found & truth).sum() / union) if union else 1.0


def score(
    find: MaskFinder, example: Example, *, clicks: int = CLICKS, loose: float = 0.2
) -> PromptScores:
    """Return the scores of one object.

    The loose box is wider and higher than the tight one by the share `loose`. The first click lies
    in the object's middle; each further one at the centre of the largest error (see
    `planes.next_click`), and all are given together. Where nothing is found, the IoU is 0.
    """
    truth, void = example.truth, example.void
    left, top, width, height = cv2.boundingRect(truth.astype(np.uint8))
    tight = Box(left, top, width, height)
    dx, dy = loose / 2 * width, loose / 2 * height
    wide = Box(left - dx, top - dy, width + 2 * dx, height + 2 * dy)
    boxed = [iou(_found(find, example, box=box), truth, void) for box in (tight, wide)]
    given: list[Click] = []
    found, results = np.zeros_like(truth), []
    for _ in range(clicks):
        click = next_click(found, truth, void)
        if click is not None:
            given.append(click)
            found = _found(find, example, clicks=given)
        results.append(iou(found, truth, void))
    return PromptScores(example.name, boxed[0], boxed[1], tuple(results))


def _found(
    find: MaskFinder, example: Example, *, box: Box | None = None, clicks: Sequence[Click] = ()
) -> Plane:
    try:
        return find(example.frame, box=box, clicks=clicks)
    except StremnError:  # nothing was found
        return np.zeros_like(example.truth)


def summary(scores: Iterable[PromptScores]) -> dict[str, Interval]:
    """Return the mean of every number with its 95 % interval over objects, by name."""
    rows = [each.values() for each in scores]
    once = np.ones(len(rows), np.int64)
    return {name: mean_interval(np.array([row[name] for row in rows]), once) for name in rows[0]}


def stills(root: Path, layout: str, names: Path | None) -> Iterator[Example]:
    """Yield the objects of still pictures: those named in a file (one per line), or all.

    Every instance of a picture with several is an object of its own.

    Raises:
        StremnError: no such set, or a name that it does not have.
    """
    kind = "binary" if layout in ("duts", "ecssd", "hku-is", "msra10k") else "instances"
    found = open_stills(root, kind, layout)  # type: ignore[arg-type]
    by_name = {Path(found.name(index)).stem: index for index in range(len(found))}
    wanted = sorted(by_name) if names is None else names.read_text(encoding="utf-8").split()
    missing = [name for name in wanted if name not in by_name]
    if missing:
        raise StremnError(f"{root} has no picture {missing[0]!r} (and {len(missing) - 1} more).")
    for name in wanted:
        still = found.load(by_name[name])
        void = still.ids == VOID
        for number in np.unique(still.ids):
            if number not in (0, VOID):
                yield Example(f"{name}/{number}", still.image, still.ids == number, void)


def first_frames(root: Path, split: str | None, year: int) -> Iterator[Example]:
    """Yield the objects of the first frames of a data set in DAVIS's layout."""
    from stremn.data.readers.layouts import read_davis

    for video in read_davis(root, split or "val", year):
        frame, labels = video.frame(0), video.label(0)
        assert labels is not None  # DAVIS labels every frame
        void = labels == VOID
        for number in np.unique(labels):
            if number not in (0, VOID):
                yield Example(f"{video.name}/{number}", frame, labels == number, void)


def run(
    find: MaskFinder,
    examples: Iterable[Example],
    out: Path,
    *,
    clicks: int,
    watch: Callable[[PromptScores], None],
) -> dict[str, Interval]:
    """Score objects, write `prompts.json` (every number of every object), return the summary.

    The scores of each object are on the disk as soon as it is scored: a run that is interrupted or
    fails leaves those before in `prompts-unfinished.json`.

    Raises:
        StremnError: there is no object.
    """
    with output_folder(out), _unfinished(out / UNFINISHED) as rows:
        scores = []
        for example in examples:
            scores.append(score(find, example, clicks=clicks))
            rows.append(scores[-1].to_json())
            watch(scores[-1])
        if not scores:
            raise StremnError("There is no object to find in this data.")
        result = summary(scores)
        _write(scores, result, out / RESULTS)
    return result


@contextmanager
def _unfinished(path: Path) -> Iterator[JsonRows]:
    """Give a file that grows by rows; it stays only if the block ends too early and has any."""
    rows, finished = JsonRows(path), False
    try:
        with telling_what_is_kept(lambda: _kept(rows)):
            yield rows
        finished = True
    finally:
        rows.close()
        if finished or not rows.count:
            path.unlink(missing_ok=True)


def _kept(rows: JsonRows) -> str:
    return f"Scored objects in {rows.path}: {rows.count}." if rows.count else ""


def _write(scores: Sequence[PromptScores], result: Mapping[str, Interval], path: Path) -> None:
    """Write the summary and all objects; an interval over too few objects is null."""
    means = {
        name: [each.mean, each.low, each.high] if each.known else [each.mean, None, None]
        for name, each in result.items()
    }
    table = {"summary": means, "objects": [each.to_json() for each in scores]}
    write_whole(path, (json.dumps(table, indent=2) + "\n").encode())
