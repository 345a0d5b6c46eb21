"""Running a session over a data set and scoring what it segments.

:func:`evaluate` streams every sequence through a fresh session, writes the label maps as palette
PNGs and scores them with and without the far-false-positive filter. :func:`score_predictions`
scores label maps that are on disk already. Both write the protocol beside the scores: a number
without its protocol cannot be compared.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import UInt8

from stremn.data.sequences import (
    ScoringRule,
    SequenceSet,
    VideoSequence,
    image_size,
    label_ids,
    read_indices,
)
from stremn.errors import StremnError
from stremn.media.files import make_folder, write_whole
from stremn.media.masks import Labels, write_mask
from stremn.model import STReMN
from stremn.multiscale import MultiScaleSession
from stremn.postprocess import REACH, DistantRegionFilter
from stremn.sessions import SegmentationSession
from stremn.study.metrics import (
    Scores,
    Statistics,
    mean_scores,
    object_scores,
    score_frame,
    seen_unseen_mean,
)

logger = logging.getLogger(__name__)

Json = dict[str, Any]

RECORDS = ".scores"
"""Folder inside the output folder that keeps what each finished sequence scored."""


class Step(Protocol):
    """What a session answers for a frame."""

    @property
    def labels(self) -> Labels:
        """Label map of the size of the frame."""
        ...


class Session(Protocol):
    """Something that segments a video frame by frame, given masks of some frames."""

    def step(self, frame: UInt8[np.ndarray, "height width 3"], mask: Labels | None = None) -> Step:
        """Segment the next frame. ``mask`` gives objects (pixels of new ids only)."""
        ...


@dataclass(frozen=True)
class RunDescription:
    """What was run: the part of the protocol that the data set does not know.

    :func:`session_factory` makes the sessions that a description describes.

    Attributes:
        model: preset or file of the weights.
        policy: name of the replacement rule.
        slots: memory slots K.
        resolution: shorter side in pixels that frames are reduced to.
        scales: test-time scales; several make STReMN-MS.
        flip: whether horizontally flipped copies vote too.
        seed: seed of random rules.
        reach: far false positives are removed before a frame is memorized, within this reach of
            :func:`stremn.postprocess.near_regions`; None = they are not.
        weights: checksum of the weights, so that a file trained further is another run.
    """

    model: str
    policy: str
    slots: int
    resolution: int
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    seed: int = 0
    reach: float | None = None
    weights: str = ""

    def to_json(self) -> Json:
        """As a table for score files."""
        return {**asdict(self), "scales": list(self.scales)}


def session_factory(
    model: STReMN, run: RunDescription, *, device: str = "auto", precision: str = "auto"
) -> Callable[[], Session]:
    """Fresh sessions as a run's description says: single, or multi-scale (STReMN-MS).

    Args:
        model: the network, shared by all sessions.
        run: policy, slots, resolution, scales, flip, seed and reach.
        device: as for :class:`stremn.sessions.SegmentationSession`.
        precision: likewise.
    """

    def single(size: int) -> SegmentationSession:
        return SegmentationSession(
            model,
            device=device,
            precision=precision,
            memory_slots=run.slots,
            policy=run.policy,
            size=size,
            seed=run.seed,
            reach=run.reach,
        )

    def several() -> MultiScaleSession:
        return MultiScaleSession(single, size=run.resolution, scales=run.scales, flip=run.flip)

    plain = run.scales == (1.0,) and not run.flip
    return partial(single, run.resolution) if plain else several


Watcher = Callable[[str, int, int], None]
"""Told (sequence, frames done, frames in all) after every frame."""


def nobody(sequence: str, done: int, total: int) -> None:
    """A watcher that does nothing."""


# Scores ---------------------------------------------------------------------------------------


class FrameScore(NamedTuple):
    """J and F of one object in one frame (index within the sequence)."""

    frame: int
    j: float
    f: float


Rows = dict[int, list[FrameScore]]
"""Object id -> score of each scored frame in time order."""


@dataclass(frozen=True)
class SequenceRecord:
    """What one finished sequence scored, kept so that an interrupted run can go on.

    Attributes:
        sequence: name.
        frames: number of frames shown to the session.
        seconds: time the session took.
        plain: scores of the label maps as segmented.
        filtered: scores after the far-false-positive filter.
    """

    sequence: str
    frames: int
    seconds: float
    plain: Rows
    filtered: Rows

    def to_json(self) -> Json:
        """As a table; keys are strings."""
        return {
            "sequence": self.sequence,
            "frames": self.frames,
            "seconds": self.seconds,
            "plain": {str(i): [list(row) for row in rows] for i, rows in self.plain.items()},
            "filtered": {str(i): [list(row) for row in rows] for i, rows in self.filtered.items()},
        }

    @staticmethod
    def from_json(table: Json) -> SequenceRecord:
        """Inverse of :meth:`to_json`."""
        plain, filtered = (
            {int(i): [FrameScore(*row) for row in rows] for i, rows in table[kind].items()}
            for kind in ("plain", "filtered")
        )
        return SequenceRecord(table["sequence"], table["frames"], table["seconds"], plain, filtered)


class ScoredObject(NamedTuple):
    """Scores of one object; ``group`` is "seen", "unseen" or None."""

    sequence: str
    object_id: int
    group: str | None
    scores: Scores


@dataclass(frozen=True)
class Summary:
    """Scores of all objects of a run."""

    objects: tuple[ScoredObject, ...]

    @property
    def mean(self) -> Scores:
        """Average over objects, as DAVIS does."""
        return mean_scores(row.scores for row in self.objects)

    def by_sequence(self) -> dict[str, Scores]:
        """Average over the objects of each sequence."""
        return self._means(lambda row: row.sequence)

    def by_group(self) -> dict[str, Scores]:
        """Average over seen and over unseen objects; empty where the data set has no groups."""
        return {} if any(row.group is None for row in self.objects) else self._means(_group_name)

    def _means(self, key: Callable[[ScoredObject], str]) -> dict[str, Scores]:
        keys = dict.fromkeys(key(row) for row in self.objects)
        return {k: mean_scores(r.scores for r in self.objects if key(r) == k) for k in keys}

    def to_json(self) -> Json:
        """Means, groups, and each sequence with its objects."""
        by_sequence, groups = self.by_sequence(), self.by_group()
        table: Json = {**_scores_json(self.mean)}
        if groups:
            table["groups"] = {name: _scores_json(scores) for name, scores in groups.items()}
            table["seen_unseen_mean"] = seen_unseen_mean(groups)
        table["sequences"] = {
            name: {
                **_scores_json(scores),
                "objects": {
                    str(row.object_id): _scores_json(row.scores)
                    for row in self.objects
                    if row.sequence == name
                },
            }
            for name, scores in by_sequence.items()
        }
        return table


def _group_name(row: ScoredObject) -> str:
    return row.group or ""


def _scores_json(scores: Scores) -> Json:
    return {"J&F": scores.j_and_f, "J": _json(scores.j), "F": _json(scores.f)}


def _json(row: Statistics) -> Json:
    # JSON has no NaN; only the toolkit's overflowing decay can be one.
    return {k: None if math.isnan(v) else v for k, v in asdict(row).items()}


@dataclass(frozen=True)
class Report:
    """Result of an evaluation.

    Attributes:
        protocol: what was run on what and scored how.
        plain: scores without post-processing, None if nothing could be scored.
        filtered: scores with the far-false-positive filter, None if it was not applied.
        failures: sequence -> error, for sequences that failed.
        records: what each finished sequence scored.
    """

    protocol: Json
    plain: Summary | None
    filtered: Summary | None
    failures: Mapping[str, str] = field(default_factory=dict)
    records: tuple[SequenceRecord, ...] = ()

    def to_json(self) -> Json:
        """The contents of ``scores.json``."""
        return {
            "protocol": self.protocol,
            "without_postprocessing": None if self.plain is None else self.plain.to_json(),
            "with_postprocessing": None if self.filtered is None else self.filtered.to_json(),
            "frames_per_second": {r.sequence: r.frames / r.seconds for r in self.records},
            "failed": dict(self.failures),
        }


def summarize(
    data: SequenceSet, rows: Mapping[str, Rows], compat_decay: bool = False
) -> Summary | None:
    """Statistics of every object that has a scored frame; None if none has.

    Args:
        data: names the groups.
        rows: sequence name -> scores of its frames.
        compat_decay: see :func:`stremn.study.metrics.statistics`.
    """
    objects = [
        ScoredObject(name, i, data.group(data[name], i), _object_scores(scores, compat_decay))
        for name, by_object in rows.items()
        for i, scores in by_object.items()
        if scores
    ]
    return Summary(tuple(objects)) if objects else None


def _object_scores(rows: Sequence[FrameScore], compat_decay: bool) -> Scores:
    return object_scores(np.array([(row.j, row.f) for row in rows]), compat_decay)


# Running --------------------------------------------------------------------------------------


def given_mask(sequence: VideoSequence, index: int) -> Labels | None:
    """The mask that a session may see at a frame: pixels of the objects that it gives, no others.

    Every other ground-truth mask stays hidden.
    """
    ids = [i for i, first in sequence.objects.items() if first == index]
    if not ids:
        return None
    labels = sequence.label(index)
    if labels is None:
        raise StremnError(f"{sequence.name}: frame {index} gives objects {ids} but has no mask.")
    return np.where(np.isin(labels, ids), labels, 0).astype(labels.dtype)


def predict(sequence: VideoSequence, session: Session) -> Iterator[Labels]:
    """Label map of each frame. Frames before the first given object are background.

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
    make_session: Callable[[], Session],
    out: Path,
    run: RunDescription,
    *,
    written: str = "plain",
    reach: float = REACH,
    compat_decay: bool = False,
    watch: Watcher = nobody,
) -> Report:
    """Segment every sequence with a fresh session, write label maps and scores.

    Writes ``out/<sequence>/<frame name>.png`` and ``out/scores.json``. A sequence that fails is
    named in the report and the others go on. Started again on the same folder, finished sequences
    are not run again.

    Args:
        data: sequences and the rule that scores them.
        make_session: makes a session that has seen nothing.
        out: output folder.
        run: what the sessions are, for the protocol.
        written: which label maps become files, "plain" or "filtered".
        reach: of the far-false-positive filter.
        compat_decay: decay with the DAVIS toolkit's overflow.
        watch: told after every frame.

    Raises:
        StremnError: files of the data set do not fit together, or ``out`` holds another run.
    """
    if written not in ("plain", "filtered"):
        raise StremnError(f"written is {written!r}; it must be 'plain' or 'filtered'.")
    for sequence in data:
        sequence.check()
    protocol = _protocol(data, run) | {
        "postprocessing": {"reach": reach, "written": written},
        "decay": "DAVIS toolkit" if compat_decay else "mended",
    }
    _open_output(out, protocol)
    records, failures = [], {}
    for sequence in data:
        record = _load_record(out, sequence.name)
        if record is None:
            try:
                record = _run(sequence, make_session(), data.rule, out, written, reach, watch)
            except Exception as error:  # one bad sequence must not cost the others' results
                logger.exception("Sequence %s failed", sequence.name)
                failures[sequence.name] = f"{type(error).__name__}: {error}"
                continue
            _save_json(_record_path(out, sequence.name), record.to_json())
        records.append(record)
    report = Report(
        protocol | _counts(records),
        summarize(data, {r.sequence: r.plain for r in records}, compat_decay),
        summarize(data, {r.sequence: r.filtered for r in records}, compat_decay),
        failures,
        tuple(records),
    )
    _save_json(out / "scores.json", report.to_json())
    return report


def _run(
    sequence: VideoSequence,
    session: Session,
    rule: ScoringRule,
    out: Path,
    written: str,
    reach: float,
    watch: Watcher,
) -> SequenceRecord:
    """One sequence through one session, frame by frame: nothing grows with its length."""
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
    return SequenceRecord(sequence.name, len(sequence), seconds, plain, filtered)


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
    scores = score_frame(labels, truth, ids)
    again = scores if np.array_equal(labels, near) else score_frame(near, truth, ids)
    for table, values in zip(rows, (scores, again), strict=True):
        for i, (j, f) in zip(ids, values.tolist(), strict=True):
            table[i].append(FrameScore(index, j, f))


# Predictions on disk --------------------------------------------------------------------------


def score_predictions(
    data: SequenceSet,
    folder: Path,
    *,
    workers: int | None = None,
    compat_decay: bool = False,
) -> Report:
    """Score label maps ``folder/<sequence>/<frame name>.png`` made by anything.

    Args:
        data: ground truth.
        folder: the predictions.
        workers: threads; the work is in code that lets threads run side by side. Default: one for
            each core.
        compat_decay: decay with the DAVIS toolkit's overflow.

    Raises:
        StremnError: sequences or frames are missing, or predictions have other sizes or ids.
    """
    tasks = _tasks(data, folder)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for error in filter(None, pool.map(_wrong_size, tasks)):
            raise error
        scores = list(pool.map(_score_task, tasks))
    rows: dict[str, Rows] = {}
    for task, values in zip(tasks, scores, strict=True):
        table = rows.setdefault(task.sequence.name, {i: [] for i in task.sequence.objects})
        for i, (j, f) in zip(task.ids, values, strict=True):
            table[i].append(FrameScore(task.frame, j, f))
    protocol = _data_protocol(data) | {
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
    """One task for each scored frame, after checking that every file is there."""
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


def _score_task(task: _Task) -> list[tuple[float, float]]:
    labels, truth = read_indices(task.path), task.sequence.label(task.frame)
    other = sorted(set(label_ids(labels)) - set(task.sequence.objects))
    if other:
        raise StremnError(
            f"{task.path} holds ids {other[:3]} that are not objects of the sequence, which has "
            f"{sorted(task.sequence.objects)}. Write label maps with the given ids."
        )
    if truth is None:
        return []
    return [(j, f) for j, f in score_frame(labels, truth, task.ids).tolist()]


# Files ----------------------------------------------------------------------------------------


def _data_protocol(data: SequenceSet) -> Json:
    return {
        "data": data.name,
        "split": data.split,
        "sequences": [sequence.name for sequence in data],
        "frames_shown": data.frames,
        "frames_scored": data.rule.name,
    }


def _protocol(data: SequenceSet, run: RunDescription) -> Json:
    return _data_protocol(data) | run.to_json()


def _counts(records: Iterable[SequenceRecord]) -> Json:
    rows = [rows for record in records for rows in record.plain.values()]
    return {"scored_masks": sum(len(r) for r in rows)}


def _open_output(out: Path, protocol: Json) -> None:
    """Make the output folder, or check that it holds an earlier part of the same run."""
    path = _record_path(out, "protocol", "")
    if not path.is_file():
        _save_json(path, protocol)
        return
    before = json.loads(path.read_text())
    changed = [key for key in protocol if before.get(key) != protocol[key]]
    if changed:
        key = changed[0]
        raise StremnError(
            f"{out} holds another run: its {key} is {before.get(key)!r}, now {protocol[key]!r}. "
            "Choose another output folder, or remove this one."
        )


def _record_path(out: Path, name: str, kind: str = "sequences") -> Path:
    return out / RECORDS / kind / f"{name}.json"


def _load_record(out: Path, name: str) -> SequenceRecord | None:
    path = _record_path(out, name)
    return SequenceRecord.from_json(json.loads(path.read_text())) if path.is_file() else None


def _save_json(path: Path, table: Json) -> None:
    make_folder(path.parent)
    write_whole(path, (json.dumps(table, indent=1, allow_nan=False) + "\n").encode())
