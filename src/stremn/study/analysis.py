"""Section 4.3 and the qualitative figures: from what a run left on disk to pictures.

    analyze_memory([Path("out")], Path("figures"))             # what `stremn segment` wrote
    study = study_slots(read_davis(root), "small", (3, 4, 5, 6))
    analyze_data(study, Path("figures"))                        # a data set, several K
    analyze_training([Path("runs/mine")], Path("figures"))      # learning curves

Every function returns the pictures it wrote.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from stremn.data.segmentation import SequenceSet, VideoSequence, read_indices
from stremn.errors import StremnError
from stremn.media.masks import Labels, overlay
from stremn.media.video import open_frames
from stremn.model import STReMN
from stremn.pretrained import load_model
from stremn.sessions import SegmentationSession, fingerprint
from stremn.study.evaluation import (
    RECORDS,
    RunDescription,
    SequenceRecord,
    Watcher,
    evaluate,
    nobody,
)
from stremn.study.figures import (
    Panel,
    Picture,
    Tile,
    draw_ages,
    draw_bars,
    draw_score_lines,
    draw_tiles,
    draw_time_line,
    draw_training,
)
from stremn.study.memory_log import (
    AgeHistogram,
    MemoryRecorder,
    SlotHistory,
    age_histogram,
    read_histories,
)

TILE_HEIGHT = 220
"""Height in pixels of a frame in a picture of many."""

FrameOf = Callable[[int], Picture | None]
"""Returns a frame of a video by its index, None if there is no such frame."""


# The memory of videos that were segmented --------------------------------------------------------


def analyze_memory(sources: Sequence[Path], out: Path) -> list[Path]:
    """Draw what the memory did in runs of `stremn segment`.

    The time line of every object and the histogram of ages need `memory.json` alone; the retained
    frames and the strip are cut from the `overlay.mp4` beside it, if there is one.

    Args:
        sources: output folders, or `memory.json` files; with several the ages are compared.
        out: folder for the pictures.

    Raises:
        StremnError: no record of a memory, or no template old enough to count.
    """
    runs = [read_histories(source) for source in sources]
    drawn = []
    for source, histories in zip(sources, runs, strict=True):
        video = (source if source.is_dir() else source.parent) / "overlay.mp4"
        drawn += [_time_line(history, out) for history in histories]
        if video.is_file():
            drawn += _pictures_of_video(histories, video, out)
    labels = _labels([histories[0] for histories in runs])
    counted = _histograms(list(zip(labels, runs, strict=True)))
    if counted:
        drawn.append(draw_ages(counted, out / "ages.png", "How old are the kept frames?"))
    return drawn


def _labels(histories: Sequence[SlotHistory]) -> list[str]:
    """Name runs by their number of slots, and by their video where that is not enough."""
    labels = [f"{h.slots} slots" for h in histories]
    if len(set(labels)) == len(labels):
        return labels
    return [f"{h.video}, {h.slots} slots" for h in histories]


def _histograms(runs: Sequence[tuple[str, Sequence[SlotHistory]]]) -> list[AgeHistogram]:
    """Count the ages of each run that has any; two slots never do."""
    able = [(label, histories) for label, histories in runs if any(h.slots > 2 for h in histories)]
    return [age_histogram(label, histories) for label, histories in able]


def _time_line(history: SlotHistory, out: Path) -> Path:
    return draw_time_line(history, out / f"timeline-{_name(history)}.png")


def _name(history: SlotHistory) -> str:
    return f"{history.video}-object-{history.object_id}-{history.slots}-slots"


def _pictures_of_video(histories: Sequence[SlotHistory], video: Path, out: Path) -> list[Path]:
    """Draw retained frames and a strip from an overlay video."""
    frames = histories[0].frames
    shown = _evenly(frames.tolist(), 10)
    wanted = {*shown, *(f for h in histories for f in _with_neighbors(h))}
    with open_frames(video) as source:
        found = {f.index: _small(f.image) for f in source if f.index in wanted}
    tiles = [Tile(found.get(i), f"frame {i}") for i in shown]
    strip = draw_tiles(
        [tiles[:5], tiles[5:]],
        out / f"strip-{histories[0].video}.png",
        f"{histories[0].video}: what was segmented",
        "Frames evenly spaced over the video; the colored areas are the objects as found.",
    )
    return [strip, *(_retained(h, found.get, out) for h in histories)]


# Retained frames, Fig 6-7 ----------------------------------------------------------------------

NEIGHBORS = 5
"""Pictures in a row of the retained frames; the kept one is in the middle."""


def _stride(history: SlotHistory) -> int:
    """Frames between neighbors: enough to see a change, the more the longer the video."""
    return int(np.clip(len(history.frames) // 25, 1, 10))


def _around(frame: int, stride: int) -> list[int]:
    reach = NEIGHBORS // 2
    return [frame + stride * n for n in range(-reach, reach + 1)]


def _with_neighbors(history: SlotHistory) -> list[int]:
    return [i for frame in history.retained() for i in _around(frame, _stride(history))]


def _retained(history: SlotHistory, frame_of: FrameOf, out: Path) -> Path:
    """Draw a row for each frame that is held at the end, between its neighbors in time."""
    kept = history.retained()
    rows = [
        [_neighbor(frame_of, index, frame) for index in _around(frame, _stride(history))]
        for frame in kept
    ]
    last = int(history.frames[-1])
    stride = _stride(history)
    apart = "consecutive frames" if stride == 1 else f"{stride} frames apart"
    return draw_tiles(
        rows,
        out / f"retained-{_name(history)}.png",
        f"{history.video}, object {history.object_id}: what {history.slots} slots hold after "
        f"frame {last}",
        f"A row for each frame that the memory still holds at the end (red), between its "
        f"neighbors in time ({apart}); in color, the objects as segmented. Frame {history.given} "
        f"came with the true mask, frame {max(kept)} is the newest. A useful memory holds moments "
        "at which the object looks different.",
        ["given" if f == history.given else "newest" if f == last else "kept" for f in kept],
    )


def _neighbor(frame_of: FrameOf, index: int, kept: int) -> Tile:
    picture = frame_of(index) if index >= 0 else None
    caption = "" if picture is None else f"frame {index}"
    return Tile(picture, caption, marked=index == kept)


# A data set ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Study:
    """What to run for the analysis of a data set.

    Attributes:
        data: sequences, and how they are scored.
        model: the network.
        runs: what to run it with; pictures of single sequences are of the last.
        device: as for `SegmentationSession`.
        precision: likewise.
    """

    data: SequenceSet
    model: STReMN
    runs: tuple[RunDescription, ...]
    device: str = "auto"
    precision: str = "auto"

    def session(self, run: RunDescription) -> SegmentationSession:
        """Return a fresh session as the description says."""
        return SegmentationSession(
            self.model,
            device=self.device,
            precision=self.precision,
            memory_slots=run.slots,
            policy=run.policy,
            size=run.resolution,
            seed=run.seed,
        )


def study_slots(
    data: SequenceSet,
    source: str | Path,
    slots: Sequence[int],
    *,
    policy: str = "learned",
    resolution: int = 480,
    device: str = "auto",
    precision: str = "auto",
) -> Study:
    """Return a study of one rule with several numbers of slots.

    Args:
        data: sequences.
        source: the weights, as for `load_model`.
        slots: K of each run.
        policy: name of the replacement rule.
        resolution: shorter side in pixels that frames are reduced to.
        device: as for `SegmentationSession`.
        precision: likewise.
    """
    model = load_model(source).model
    weights = f"{fingerprint(model):08x}"
    runs = [RunDescription(str(source), policy, k, resolution, weights=weights) for k in slots]
    return Study(data, model, tuple(runs), device, precision)


def analyze_data(study: Study, out: Path, *, watch: Watcher = nobody) -> list[Path]:
    """Run a data set with each number of slots, and draw what the memory did and what was scored.

    Each run goes to `out/runs/<policy>-<slots>` (masks, scores, and the memory of each sequence)
    and is not repeated when it is there already.

    Raises:
        StremnError: no run, files of the data set that do not fit together, or nothing scored.
    """
    if not study.runs:
        raise StremnError("The analysis needs at least one number of slots.")
    folders = [_run(study, run, out, watch) for run in study.runs]
    runs = [_recorded(folder) for folder in folders]
    labels = [f"{run.slots} slots" for run in study.runs]
    counted = _histograms(list(zip(labels, runs, strict=True)))
    drawn = []
    if counted:
        name = study.runs[-1].policy
        title = f"How old are the kept frames? {study.data.name} {study.data.split}, rule {name}"
        drawn.append(draw_ages(counted, out / "ages.png", title))
    return drawn + _pictures_of_data(study.data, runs[-1], folders[-1], out)


def _run(study: Study, run: RunDescription, out: Path, watch: Watcher) -> Path:
    folder = out / "runs" / f"{run.policy}-{run.slots}"
    recorder = MemoryRecorder(lambda: study.session(run), folder / "memory")

    def told(sequence: str, done: int, total: int) -> None:
        recorder.watch(sequence, done, total)
        watch(f"{run.slots} slots | {sequence}", done, total)

    report = evaluate(study.data, recorder.session, folder, run, watch=told)
    if report.plain is None:
        reason = next(iter(report.failures.values()), "nothing to score")
        raise StremnError(f"No sequence of {study.data.name} could be scored: {reason}")
    return folder


def _recorded(folder: Path) -> list[SlotHistory]:
    files = sorted((folder / "memory").glob("*.json"))
    return [history for file in files for history in read_histories(file)]


def _pictures_of_data(
    data: SequenceSet, histories: Sequence[SlotHistory], folder: Path, out: Path
) -> list[Path]:
    drawn = []
    for history in histories:
        drawn.append(_time_line(history, out))
        drawn.append(_retained(history, _pictures_of(data[history.video], folder), out))
    records = read_records(folder)
    drawn += [_strip(data[record.sequence], record, folder, out) for record in records]
    drawn += draw_scores(records, out)
    drawn.append(draw_failures(data, records, folder, out))
    return drawn


def _pictures_of(sequence: VideoSequence, folder: Path) -> FrameOf:
    """Return what gives a frame with its segmentation, or bare where there is none on disk."""

    def picture(index: int) -> Picture | None:
        if index >= len(sequence):
            return None
        found = _segmented(sequence, index, folder)
        return _small(sequence.frame(index)) if found is None else found

    return picture


# Scores ----------------------------------------------------------------------------------------


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


def _strip(sequence: VideoSequence, record: SequenceRecord, folder: Path, out: Path) -> Path:
    """Draw the segmentation over the true masks at frames evenly spaced over the sequence."""
    scores: dict[int, list[float]] = {}
    for rows in record.plain.values():
        for row in rows:
            scores.setdefault(row.frame, []).append(row.j)
    shown = _evenly(sorted(scores), 6)
    found = [_segmented(sequence, i, folder) for i in shown]
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
                    _segmented(sequence, case.frame, folder),
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


def _segmented(sequence: VideoSequence, index: int, folder: Path) -> Picture | None:
    path = folder / sequence.name / f"{sequence.frame_name(index)}.png"
    if not path.is_file():
        return None
    return _overlaid(sequence.frame(index), read_indices(path))


def _truth(sequence: VideoSequence, index: int) -> Picture | None:
    labels = sequence.label(index)
    return None if labels is None else _overlaid(sequence.frame(index), labels)


def _overlaid(frame: Picture, labels: Labels) -> Picture:
    known = np.where(labels == 255, 0, labels).astype(labels.dtype)  # void belongs to nobody
    return overlay(_small(frame), _small(known))


def _small(picture: np.ndarray) -> np.ndarray:
    """Reduce a picture or label map to the height of a tile."""
    height, width = picture.shape[:2]
    if height <= TILE_HEIGHT:
        return picture
    how = cv2.INTER_AREA if picture.ndim == 3 else cv2.INTER_NEAREST
    size = (max(1, round(width * TILE_HEIGHT / height)), TILE_HEIGHT)
    return np.asarray(cv2.resize(picture, size, interpolation=how), dtype=picture.dtype)


def _evenly(items: Sequence[int], count: int) -> list[int]:
    """Return up to `count` of the items, evenly spaced, the first and the last among them."""
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[place] for place in places]


# Learning curves -------------------------------------------------------------------------------

Table = dict[str, tuple[np.ndarray, np.ndarray]]
"""Column -> steps and values."""


def analyze_training(runs: Sequence[Path], out: Path) -> list[Path]:
    """Draw the learning curves of trainings from the `log.csv` and `validation.csv` they wrote.

    Raises:
        StremnError: a folder without `log.csv`, or a log without a row.
    """
    return [_draw_run(run, out / f"training-{run.resolve().name}.png") for run in runs]


def _draw_run(run: Path, path: Path) -> Path:
    log = read_log(run / "log.csv")
    validation = read_log(run / "validation.csv") if (run / "validation.csv").is_file() else {}
    if not log:
        raise StremnError(f"{run / 'log.csv'} has no row yet: wait for the training's first ones.")
    steps = max(int(steps[-1]) for steps, _ in log.values())
    return draw_training(
        _panels(log, validation),
        path,
        f"Training {run.resolve().name}, {steps:,} steps",
        "Numbers in brackets are the last values. Training curves are means between two log rows. "
        "Validation runs on videos that are not trained on, with the averaged weights. The memory "
        "is read if the right memory scores high and another clip's, or an empty one, low.",
    )


def read_log(path: Path) -> Table:
    """Read a CSV log: each column with the steps at which it has a number."""
    if not path.is_file():
        raise StremnError(f"There is no {path}. Give the folder of a training (`stremn train`).")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = [name for name in (rows[0] if rows else {}) if name != "step"]
    table = {}
    for name in columns:
        kept = [(float(row["step"]), float(row[name])) for row in rows if row.get(name)]
        if kept:
            steps, values = np.array(kept).T
            table[name] = (steps, values)
    return table


_PANELS: tuple[tuple[str, tuple[str, ...], bool, bool], ...] = (
    (
        "Loss and its parts (logarithmic)",
        ("loss", "cross_entropy", "dice", "l1", "l2"),
        False,
        True,
    ),
    ("J in the last frame of training clips", ("J_last",), True, False),
    ("Evictions a clip and object", ("evictions",), False, False),
    ("How undecided the rule is (1: all slots alike)", ("policy_entropy",), True, False),
    ("Length of the gradient", ("gradient_norm",), False, True),
    ("Learning rate", ("lr",), False, False),
)
_AGREES = "agrees_"
_TIMES = ("seconds_per_step", "data_wait")
_PROBE = ("probe_right", "probe_wrong", "probe_empty")


def _panels(log: Table, validation: Table) -> list[Panel]:
    """Arrange columns into panels; those that no panel knows get one each."""
    panels = []
    scores = {name: curve for name, curve in validation.items() if name not in _PROBE}
    probe = {
        f"{name.removeprefix('probe_')} memory": validation[name]
        for name in _PROBE
        if name in validation
    }
    if "J" in scores:
        lines = {name.removeprefix("J_"): curve for name, curve in scores.items()}
        lines = {"mean J": lines.pop("J"), **lines}
        panels.append(Panel("Validation: J of each sequence", lines, "mean J", shared=True))
    elif scores:
        panels += [Panel(f"Validation: {name}", {name: c}) for name, c in scores.items()]
    if probe:
        panels.append(Panel("Does it read its memory? J with the ...", probe, shared=True))
    known = set(_TIMES)
    for title, names, shared, logarithmic in _PANELS:
        curves = {name: log[name] for name in names if name in log}
        known |= set(names)
        if any(np.any(values != values[0]) or len(values) == 1 for _, values in curves.values()):
            panels.append(Panel(title, curves, shared=shared, log=logarithmic))
    agreement = {n.removeprefix(_AGREES): log[n] for n in log if n.startswith(_AGREES)}
    if agreement:
        panels.append(Panel("Share of evictions as a hand-made rule", agreement, shared=True))
    rest = [name for name in log if name not in known and not name.startswith(_AGREES)]
    return panels + [Panel(name, {name: log[name]}) for name in rest]
