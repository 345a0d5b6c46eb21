"""Score label maps on disk, made by any program."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stremn.data.readers.sequences import (
    SequenceSet,
    VideoSequence,
    image_size,
    label_ids,
    read_indices,
)
from stremn.errors import StremnError
from stremn.evaluation.segmentation.evaluation import (
    counted,
    data_protocol,
    frame_scores,
    summarize,
)
from stremn.evaluation.segmentation.results import FrameScore, Report, Rows
from stremn.media.mask_codes import VOID
from stremn.media.masks import Labels


def score_predictions(
    data: SequenceSet,
    folder: Path,
    *,
    workers: int | None = None,
    compat_decay: bool = False,
) -> Report:
    """Score label maps ``folder/<sequence>/<frame name>.png`` made by any program.

    Args:
        data: ground truth.
        folder: the predictions.
        workers: threads; the work is in code that lets threads run side by side. Default: one for
            each core.
        compat_decay: decay with the DAVIS toolkit's overflow.

    Raises:
        StremnError: sequences or frames are missing, or predictions have other sizes or ids; fewer
            workers than one.
    """
    if workers is not None and workers < 1:
        raise StremnError(
            f"Masks are scored by one thread or more, got workers={workers}. Leave it out for one "
            "thread per core."
        )
    tasks = _tasks(data, folder)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for error in filter(None, pool.map(_wrong_size, tasks)):
            raise error
        scores = list(pool.map(_score_task, tasks))
    rows: dict[str, Rows] = {}
    for task, values in zip(tasks, scores, strict=True):
        table = rows.setdefault(task.sequence.name, {i: [] for i in task.sequence.objects})
        for i, score in zip(task.ids, values, strict=True):
            table[i].append(score)
    protocol = data_protocol(data) | {
        "predictions": folder.name,
        "decay": "DAVIS toolkit" if compat_decay else "mended",
        "scored_masks": sum(len(task.ids) for task in tasks),
    }
    return Report(protocol, summarize(data, rows, compat_decay), None)


class _Task(NamedTuple):
    sequence: VideoSequence
    frame: int
    ids: list[int]
    path: Path


def _tasks(data: SequenceSet, folder: Path) -> list[_Task]:
    """Return one task per scored frame, after checking that every file is there."""
    absent = [s.name for s in data if not (folder / s.name).is_dir()]
    if absent:
        raise StremnError(
            f"{folder} lacks {len(absent)} sequences of {data.name} {data.split}: "
            f"{', '.join(absent[:3])}. Expected {folder}/<sequence>/<frame name>.png."
        )
    tasks = [
        _Task(s, index, ids, folder / s.name / f"{s.frame_name(index)}.png")
        for s in data
        for index, ids in counted(s, data.rule).items()
    ]
    missing = [f"{t.sequence.name}/{t.path.name}" for t in tasks if not t.path.is_file()]
    if missing:
        raise StremnError(
            f"{folder} lacks {len(missing)} scored frames: {', '.join(missing[:3])}. "
            "Predictions are palette or gray PNGs named like the frames."
        )
    return tasks


def _wrong_size(task: _Task) -> StremnError | None:
    """Compare sizes by headers alone, so that it takes no time."""
    expected, found = task.sequence.size(), image_size(task.path)
    if found == expected:
        return None
    return StremnError(
        f"{task.path} is {found[0]}x{found[1]} pixels, the video {expected[0]}x{expected[1]}. "
        "Predictions must have the size of the ground truth."
    )


def _score_task(task: _Task) -> list[FrameScore]:
    labels, truth = _read(task), task.sequence.label(task.frame)
    other = sorted(set(label_ids(labels)) - set(task.sequence.objects))
    if other:
        raise StremnError(
            f"{task.path} holds ids {other[:3]} that are not objects of the sequence, which has "
            f"{sorted(task.sequence.objects)}. Write label maps with the given ids."
        )
    if truth is None:
        return []
    return frame_scores(task.frame, labels, truth, task.ids)


def _read(task: _Task) -> Labels:
    """Read the predicted label map; a black and white mask shows the sequence's one object."""
    labels = read_indices(task.path)
    objects = list(task.sequence.objects)
    if len(objects) == 1 and not label_ids(labels):
        return np.where(labels == VOID, objects[0], 0).astype(labels.dtype)
    return labels
