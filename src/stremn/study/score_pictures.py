"""Pictures of what was scored: Fig 3 and 10 (results) and Fig 11 (failures)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stremn.data.sequences import SequenceSet, VideoSequence, read_indices
from stremn.errors import StremnError
from stremn.media.frames import Picture
from stremn.media.masks import Labels, overlay
from stremn.study.evaluation import RECORDS
from stremn.study.figures import Tile, draw_bars, draw_score_lines, draw_tiles
from stremn.study.scores import SequenceRecord
from stremn.study.tiles import evenly, small


def read_records(folder: Path) -> list[SequenceRecord]:
    """Read what each sequence scored from the output folder of an evaluation.

    Raises:
        StremnError: no evaluation there.
    """
    files = sorted((folder / RECORDS / "sequences").glob("*.json"))
    if not files:
        raise StremnError(f"{folder} holds no scores. Give the output folder of `stremn evaluate`.")
    return [SequenceRecord.from_json(json.loads(file.read_text())) for file in files]


def draw_scores(records: Sequence[SequenceRecord], out: Path) -> list[Path]:
    """Draw bars of J and F for each sequence, and J over the frames of each object."""
    means = {
        record.sequence: (
            float(np.mean([row.j for rows in record.plain.values() for row in rows])),
            float(np.mean([row.f for rows in record.plain.values() for row in rows])),
        )
        for record in records
        if any(record.plain.values())
    }
    if not means:
        raise StremnError("No frame of any sequence was scored.")
    overall = [100 * float(np.mean([pair[i] for pair in means.values()])) for i in (0, 1)]
    bars = draw_bars(
        means,
        out / "scores.png",
        f"Scores of {len(means)} sequences: mean J {overall[0]:.1f}, mean F {overall[1]:.1f}",
        "Mean over the scored frames of each sequence, the best at the top; no post-processing. "
        "The mean in the title is over sequences.",
    )
    lines = {
        _object_label(record, i): ([r.frame for r in rows], [r.j for r in rows])
        for record in records
        for i, rows in record.plain.items()
        if rows
    }
    over_time = draw_score_lines(
        lines,
        out / "scores-over-time.png",
        "J of every frame",
        "A panel for each object, with its mean. A line that falls and stays low is an object that "
        "was lost; one that returns was found again.",
    )
    return [bars, over_time]


def _object_label(record: SequenceRecord, object_id: int) -> str:
    return record.sequence + (f", object {object_id}" if len(record.plain) > 1 else "")


def draw_strip(sequence: VideoSequence, record: SequenceRecord, folder: Path, out: Path) -> Path:
    """Draw the segmentation over the true masks at frames evenly spaced over the sequence."""
    scores: dict[int, list[float]] = {}
    for rows in record.plain.values():
        for row in rows:
            scores.setdefault(row.frame, []).append(row.j)
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
