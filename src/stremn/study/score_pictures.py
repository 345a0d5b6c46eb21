"""Pictures of scored sequences: Fig 3 and 10 (results) and Fig 11 (failures)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stremn.data.readers.sequences import SequenceSet, VideoSequence, read_indices
from stremn.errors import StremnError
from stremn.evaluation.segmentation.results import SequenceRecord
from stremn.media.frames import Picture
from stremn.media.masks import Labels, overlay
from stremn.study.figures import SECOND, Tile, draw_tiles, drawing, head
from stremn.study.tiles import evenly, small


def draw_scores(records: Sequence[SequenceRecord], out: Path) -> list[Path]:
    """Draw bars of J and F for each sequence, and J over the frames of each object.

    Means are over objects, as in `scores.json`.

    Raises:
        StremnError: nothing was scored.
    """
    objects = {r.sequence: _object_means(r) for r in records if any(r.plain.values())}
    if not objects:
        raise StremnError("No frame of any sequence was scored.")
    j, f = 100 * np.mean([pair for pairs in objects.values() for pair in pairs], axis=0)
    bars = _draw_bars(
        {name: tuple(np.mean(pairs, axis=0).tolist()) for name, pairs in objects.items()},
        out / "scores.png",
        f"Scores of {_count(objects)}: mean J {j:.1f}, mean F {f:.1f}",
        "Mean over the objects of each sequence, the best at the top; no post-processing. The mean "
        "in the title is over all objects.",
    )
    lines = {
        _object_label(record, i): ([r.frame for r in rows], [r.j for r in rows])
        for record in records
        for i, rows in record.plain.items()
        if rows
    }
    over_time = _draw_lines(
        lines,
        out / "scores-over-time.png",
        "J of every frame",
        "A panel for each object, with its mean. A line that falls and stays low is an object that "
        "was lost; one that returns was found again.",
    )
    return [bars, over_time]


def _object_means(record: SequenceRecord) -> list[tuple[float, float]]:
    """Return the mean J and F of each scored object, over its frames."""
    return [
        (float(np.mean([row.j for row in rows])), float(np.mean([row.f for row in rows])))
        for rows in record.plain.values()
        if rows
    ]


def _count(sequences: Sized) -> str:
    return "1 sequence" if len(sequences) == 1 else f"{len(sequences)} sequences"


def _draw_bars(
    scores: Mapping[str, tuple[float, float]], path: Path, title: str, caption: str
) -> Path:
    """Draw mean J and F of each sequence, the best at the top; scores in [0, 1]."""
    names = sorted(scores, key=lambda name: sum(scores[name]))
    places = np.arange(len(names))
    with drawing((8.5, 1.9 + 0.42 * len(names)), path) as figure:
        axes = figure.subplots()
        j, f = (np.array([100 * scores[name][i] for name in names]) for i in (0, 1))
        for values, offset, color, label in (
            (j, 0.19, SECOND, "J, overlap of the area"),
            (f, -0.19, "#9dbfd9", "F, match of the outline"),
        ):
            axes.barh(places + offset, values, 0.38, color=color, label=label)
            for place, value in zip(places, values, strict=True):
                axes.text(value + 0.8, place + offset, f"{value:.1f}", va="center", fontsize=8)
        axes.set_yticks(places, names)
        axes.set_xlim(0, 105)
        axes.set_xlabel("percent (100 is perfect)")
        axes.tick_params(axis="y", length=0)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
        head(figure, title, caption)
    return path


def _draw_lines(
    lines: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    path: Path,
    title: str,
    caption: str,
) -> Path:
    """Draw J over the frames of each sequence in a panel of its own; J in [0, 1]."""
    columns = min(4, len(lines))
    rows = -(-len(lines) // columns)
    with drawing((2.9 * columns + 0.6, 1.9 * rows + 1.2), path) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for axes, (name, (frames, values)) in zip(grid, lines.items(), strict=False):
            percent = 100 * np.asarray(values)
            axes.fill_between(frames, percent, color=SECOND, alpha=0.15, lw=0)
            axes.plot(frames, percent, color=SECOND, lw=1.5)
            axes.set_title(f"{name}  {percent.mean():.1f}", fontsize=10)
            axes.set_ylim(0, 100)
            axes.margins(x=0)
        for axes in grid[len(lines) :]:
            axes.set_visible(False)
        for axes in grid[::columns]:
            axes.set_ylabel("J, percent")
        for axes in grid[max(0, len(lines) - columns) : len(lines)]:
            axes.set_xlabel("frame")
        head(figure, title, caption)
    return path


def _object_label(record: SequenceRecord, object_id: int) -> str:
    return record.sequence + (f", object {object_id}" if len(record.plain) > 1 else "")


def draw_strip(sequence: VideoSequence, record: SequenceRecord, folder: Path, out: Path) -> Path:
    """Draw the segmentation over the true masks at scored frames evenly spaced over the sequence.

    Raises:
        StremnError: no frame of the sequence was scored.
    """
    scores: dict[int, list[float]] = {}
    for rows in record.plain.values():
        for row in rows:
            scores.setdefault(row.frame, []).append(row.j)
    if not scores:
        raise StremnError(f"No frame of {sequence.name} was scored, so there is none to show.")
    shown = evenly(sorted(scores), 6)
    found = [segmented(sequence, i, folder) for i in shown]
    captions = [f"frame {i}, J {100 * float(np.mean(scores[i])):.0f}" for i in shown]
    tiles = [
        [Tile(picture, text) for picture, text in zip(found, captions, strict=True)],
        [Tile(_truth(sequence, i), "") for i in shown],
    ]
    return draw_tiles(
        tiles,
        out / f"strip-{sequence.name}.png",
        f"{sequence.name}: segmented and true masks",
        "Frames evenly spaced over the video. J is the overlap with the true mask in percent, the "
        "mean over the objects.",
        ["segmented", "true"],
    )


@dataclass(frozen=True)
class Failure:
    """The worst frame of an object: its J there, and its mean J over the sequence."""

    sequence: str
    object_id: int
    frame: int
    j: float
    mean: float


def find_failures(records: Iterable[SequenceRecord], count: int = 6) -> list[Failure]:
    """Return the objects of lowest mean J, the worst first, each with a frame that shows it.

    That frame is the one whose J is the lowest quarter's median, rather than the very lowest:
    that one is often a frame in which the object is all but hidden.
    """
    cases = []
    for record in records:
        for object_id, rows in record.plain.items():
            if rows:
                ranked = sorted(rows, key=lambda row: row.j)
                shown = ranked[len(ranked) // 8]
                mean = float(np.mean([row.j for row in rows]))
                cases.append(Failure(record.sequence, object_id, shown.frame, shown.j, mean))
    return sorted(cases, key=lambda case: case.mean)[:count]


def draw_failures(
    data: SequenceSet, records: Sequence[SequenceRecord], folder: Path, out: Path, count: int = 6
) -> Path:
    """Draw a page of failure cases, chosen by score: the given mask, what was found, the truth."""
    rows, labels = [], []
    for case in find_failures(records, count):
        sequence = data[case.sequence]
        given = sequence.objects[case.object_id]
        rows.append(
            [
                Tile(_truth(sequence, given), f"frame {given}: the mask that was given"),
                Tile(
                    segmented(sequence, case.frame, folder),
                    f"frame {case.frame}: found, J {100 * case.j:.0f}",
                    marked=True,
                ),
                Tile(_truth(sequence, case.frame), f"frame {case.frame}: the true mask"),
            ]
        )
        name = case.sequence
        if len(sequence.objects) > 1:
            name += f", object {case.object_id}"
        labels.append(f"{name}\nmean J {100 * case.mean:.0f}")
    return draw_tiles(
        rows,
        out / "failures.png",
        "Where it fails",
        "The objects of lowest mean J (overlap with the true mask, in percent), the worst first. "
        "The frame shown is a typical bad one: in one frame of eight the object scores lower.",
        labels,
    )


def segmented(sequence: VideoSequence, index: int, folder: Path) -> Picture | None:
    """Return a frame with the masks that an evaluation left in `folder`, None if there are none."""
    path = folder / sequence.name / f"{sequence.frame_name(index)}.png"
    if not path.is_file():
        return None
    return _overlaid(sequence.frame(index), read_indices(path))


def _truth(sequence: VideoSequence, index: int) -> Picture | None:
    labels = sequence.label(index)
    return None if labels is None else _overlaid(sequence.frame(index), labels)


def _overlaid(frame: Picture, labels: Labels) -> Picture:
    known = np.where(labels == 255, 0, labels).astype(labels.dtype)  # void belongs to nobody
    return overlay(small(frame), small(known))
