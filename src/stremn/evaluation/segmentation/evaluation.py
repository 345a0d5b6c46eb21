"""Running a session over a data set and scoring what it segments.

:func:`evaluate` streams every sequence through a fresh session, writes the label maps as palette
PNGs and scores them with and without the far-false-positive filter. The protocol is written beside
the scores: a number without its protocol cannot be compared.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from stremn.core.atomic_files import output_folder
from stremn.data.readers.sequences import ScoringRule, SequenceSet, VideoSequence
from stremn.errors import StremnError
from stremn.evaluation.segmentation.metrics import Scores, object_scores, score_frame, swapped
from stremn.evaluation.segmentation.records import (
    has_record,
    load_record,
    open_output,
    save_json,
    save_record,
)
from stremn.evaluation.segmentation.results import (
    FrameScore,
    Json,
    Report,
    Rows,
    ScoredObject,
    SequenceRecord,
    Summary,
)
from stremn.evaluation.segmentation.run_description import RunDescription, Segmenter
from stremn.evaluation.unfinished import telling_what_is_kept
from stremn.media.files import make_folder
from stremn.media.masks import Labels, write_mask
from stremn.segmentation.postprocess import REACH, DistantRegionFilter

logger = logging.getLogger(__name__)

Watcher = Callable[[str, int, int], None]
"""Called with (sequence, frames done, frames in all) after every frame."""


Elsewhere = Callable[[Sequence[str], Path], None]
"""Runs the sequences of these names by `run_sequence` in other processes, into a folder."""


def nobody(sequence: str, done: int, total: int) -> None:
    """Do nothing."""


def summarize(
    data: SequenceSet, rows: Mapping[str, Rows], compat_decay: bool = False
) -> Summary | None:
    """Return statistics of every object that has a scored frame; None if none has.

    Args:
        data: names the groups.
        rows: sequence name -> scores of its frames.
        compat_decay: see :func:`stremn.evaluation.segmentation.metrics.statistics`.
    """
    objects = [
        ScoredObject(
            name,
            i,
            data.group(data[name], i),
            _object_scores(scores, compat_decay),
            sum(row.swapped for row in scores) / len(scores),
        )
        for name, by_object in rows.items()
        for i, scores in by_object.items()
        if scores
    ]
    return Summary(tuple(objects)) if objects else None


def _object_scores(rows: Sequence[FrameScore], compat_decay: bool) -> Scores:
    return object_scores(np.array([(row.j, row.f) for row in rows]), compat_decay)


def data_protocol(data: SequenceSet) -> Json:
    """Return the data set's part of the protocol."""
    return {
        "data": data.name,
        "split": data.split,
        "sequences": [sequence.name for sequence in data],
        "frames_shown": data.frames,
        "frames_scored": data.rule.name,
    }


# Running --------------------------------------------------------------------------------------


def given_mask(sequence: VideoSequence, index: int) -> Labels | None:
    """Return the mask that a session may see at a frame: only the objects given there.

    Every other ground-truth mask stays hidden.
    """
    ids = [i for i, first in sequence.objects.items() if first == index]
    if not ids:
        return None
    labels = sequence.label(index)
    if labels is None:
        raise StremnError(f"{sequence.name}: frame {index} gives objects {ids} but has no mask.")
    return np.where(np.isin(labels, ids), labels, 0).astype(labels.dtype)


def predict(sequence: VideoSequence, session: Segmenter) -> Iterator[Labels]:
    """Yield the label map of each frame. Frames before the first given object are background.

    Raises:
        StremnError: the session answers in another size.
    """
    started = False
    for index in range(len(sequence)):
        frame, mask = sequence.frame(index), given_mask(sequence, index)
        started = started or mask is not None
        labels = (
            session.step(frame, mask).labels if started else np.zeros(frame.shape[:2], np.uint8)
        )
        if labels.shape != frame.shape[:2]:
            raise StremnError(
                f"{sequence.name}: the session answered {labels.shape} for a frame of "
                f"{frame.shape[:2]} (height, width)."
            )
        yield labels


def counted(sequence: VideoSequence, rule: ScoringRule) -> dict[int, list[int]]:
    """Index of each scored frame -> ids of the objects that it scores."""
    annotated = [i for i in range(len(sequence)) if sequence.annotated(i)]
    frames = annotated if rule.count_last else annotated[:-1]
    result = {
        index: [
            i
            for i, first in sequence.objects.items()
            if (index > first or (rule.count_given and index == first))
            and sequence.counts(index, i)
        ]
        for index in frames
    }
    return {index: ids for index, ids in result.items() if ids}


def evaluate(
    data: SequenceSet,
    make_session: Callable[[], Segmenter],
    out: Path,
    run: RunDescription,
    *,
    written: str = "plain",
    reach: float = REACH,
    compat_decay: bool = False,
    watch: Watcher = nobody,
    elsewhere: Elsewhere | None = None,
) -> Report:
    """Segment every sequence with a fresh session, write label maps and scores.

    Writes ``out/<sequence>/<frame name>.png`` and ``out/scores.json``. A sequence that fails is
    named in the report and the others continue. Called again on the same folder, it skips
    finished sequences.

    Args:
        data: sequences and the rule that scores them.
        make_session: makes a new session.
        out: output folder.
        run: what the sessions are, for the protocol.
        written: which label maps become files, "plain" or "filtered".
        reach: of the far-false-positive filter.
        compat_decay: decay with the DAVIS toolkit's overflow.
        watch: called after every frame.
        elsewhere: runs unfinished sequences first; those that it leaves are run here.

    Raises:
        StremnError: files of the data set do not fit together, or ``out`` holds another run.
    """
    if written not in ("plain", "filtered"):
        raise StremnError(f"written is {written!r}; it must be 'plain' or 'filtered'.")
    for sequence in data:
        sequence.check()
    protocol = (
        data_protocol(data)
        | run.to_json()
        | {
            "postprocessing": {"reach": reach, "written": written},
            "decay": "DAVIS toolkit" if compat_decay else "mended",
        }
    )
    with output_folder(out):
        open_output(out, protocol)
        left = [s.name for s in data if load_record(out, s.name) is None]
        with telling_what_is_kept(lambda: _kept(data, out)):
            if elsewhere is not None and left:
                elsewhere(left, out)
            records, failures = [], {}
            for sequence in data:
                record = load_record(out, sequence.name)
                if record is None:
                    try:
                        record = run_sequence(
                            sequence, make_session(), data.rule, out, written, reach, watch
                        )
                    except Exception as error:  # one bad sequence must not cost the others' results
                        known = isinstance(error, StremnError)  # a sentence, and no fault of ours
                        logger.error("Sequence %s failed", sequence.name, exc_info=not known)
                        failures[sequence.name] = f"{type(error).__name__}: {error}"
                        continue
                records.append(record)
        masks = sum(len(rows) for record in records for rows in record.plain.values())
        report = Report(
            protocol | {"scored_masks": masks},
            summarize(data, {r.sequence: r.plain for r in records}, compat_decay),
            summarize(data, {r.sequence: r.filtered for r in records}, compat_decay),
            failures,
            tuple(records),
        )
        save_json(out / "scores.json", report.to_json())
    return report


def _kept(data: SequenceSet, out: Path) -> str:
    done = sum(has_record(out, sequence.name) for sequence in data)
    of_all = f"{done} of {len(data)} sequences are finished in {out}"
    return f"{of_all}; the same command goes on from there." if done else ""


def run_sequence(
    sequence: VideoSequence,
    session: Segmenter,
    rule: ScoringRule,
    out: Path,
    written: str = "plain",
    reach: float = REACH,
    watch: Watcher = nobody,
) -> SequenceRecord:
    """Run one sequence through one session, frame by frame; write its label maps and its record.

    Several processes may do so in one folder, each with a sequence of its own. The arguments are
    those of :func:`evaluate`.
    """
    frames, distant = counted(sequence, rule), DistantRegionFilter(reach)
    plain: Rows = {i: [] for i in sequence.objects}
    filtered: Rows = {i: [] for i in sequence.objects}
    folder = make_folder(out / sequence.name)
    seconds, clock = 0.0, time.perf_counter()
    for index, labels in enumerate(predict(sequence, session)):
        seconds += time.perf_counter() - clock
        near = distant(labels)
        if sequence.submits(index):
            kept = labels if written == "plain" else near
            write_mask(folder / f"{sequence.frame_name(index)}.png", kept)
        _score(sequence, index, frames.get(index, []), (labels, near), (plain, filtered))
        watch(sequence.name, index + 1, len(sequence))
        clock = time.perf_counter()
    record = SequenceRecord(sequence.name, len(sequence), seconds, plain, filtered)
    save_record(out, record)
    return record


def _score(
    sequence: VideoSequence,
    index: int,
    ids: Sequence[int],
    label_maps: tuple[Labels, Labels],
    rows: tuple[Rows, Rows],
) -> None:
    """Append the scores of a frame to both tables; the same label map is scored once."""
    truth = sequence.label(index) if ids else None
    if truth is None:
        return
    labels, near = label_maps
    scores = frame_scores(index, labels, truth, ids)
    again = scores if np.array_equal(labels, near) else frame_scores(index, near, truth, ids)
    for table, found in zip(rows, (scores, again), strict=True):
        for i, score in zip(ids, found, strict=True):
            table[i].append(score)


def frame_scores(index: int, labels: Labels, truth: Labels, ids: Sequence[int]) -> list[FrameScore]:
    """Score a frame, with one entry for each of `ids`."""
    values, places = score_frame(labels, truth, ids).tolist(), swapped(labels, truth, ids).tolist()
    return [FrameScore(index, j, f, s) for (j, f), s in zip(values, places, strict=True)]
