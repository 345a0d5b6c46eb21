"""Section 4.3 and the qualitative figures: runs of a data set with several K, and their pictures.

    study = study_slots(read_davis(root), "small", (3, 4, 5, 6))
    analyze_data(study, Path("figures"))

The pictures that were written are returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stremn.data.readers.sequences import SequenceSet, VideoSequence
from stremn.errors import StremnError
from stremn.evaluation.segmentation.evaluation import Watcher, evaluate, nobody
from stremn.evaluation.segmentation.records import read_records
from stremn.evaluation.segmentation.run_description import (
    RunDescription,
    single_session,
    slots_label,
)
from stremn.media.frames import Picture
from stremn.moved import earlier_arguments
from stremn.networks.defaults import PAPER
from stremn.networks.model import STReMN
from stremn.networks.pretrained import load_model
from stremn.segmentation.sessions import SegmentationSession
from stremn.study.memory_log import MemoryRecorder, SlotHistory, read_histories
from stremn.study.memory_pictures import FrameOf, draw_ages, draw_history, draw_retained, histograms
from stremn.study.score_pictures import (
    draw_failures,
    draw_scores,
    draw_strip,
    segmented,
)
from stremn.study.tables import slot_rows, weights_of
from stremn.study.tiles import small


@dataclass(frozen=True)
class Study:
    """What to run for the analysis of a data set.

    Attributes:
        data: sequences, and how they are scored.
        model: the network.
        runs: what to run it with; pictures of single sequences are of the last.
        device: as for `SegmentationSession`.
    """

    data: SequenceSet
    model: STReMN
    runs: tuple[RunDescription, ...]
    device: str = "auto"

    def session(self, run: RunDescription) -> SegmentationSession:
        """Return a fresh session as the description says."""
        return single_session(self.model, run, device=self.device)


@earlier_arguments(resolution="size", slots="memory_slots")
def study_slots(
    data: SequenceSet,
    source: str | Path,
    memory_slots: Sequence[int],
    *,
    policy: str = PAPER.policy,
    size: int = PAPER.size,
    reach: float | None = PAPER.reach,
    every: int = PAPER.every,
    device: str = "auto",
    precision: str = "auto",
) -> Study:
    """Return a study of one rule with several numbers of slots.

    Args:
        data: sequences.
        source: the weights, as for `load_model`.
        memory_slots: K of each run.
        policy: name of the replacement rule.
        size: working resolution: shorter side in pixels.
        reach: how far an object may go between frames, as for `SegmentationSession`.
        every: which frames are memorized, likewise.
        device: as for `SegmentationSession`.
        precision: likewise.
    """
    model = load_model(source).model
    weights = weights_of(
        str(source), model, size, reach, every=every, device=device, precision=precision
    )
    runs = tuple(weights.run(row, seed=0) for row in slot_rows(policy, memory_slots))
    return Study(data, model, runs, device)


def analyze_data(study: Study, out: Path, *, watch: Watcher = nobody) -> list[Path]:
    """Run a data set with each number of slots, and draw what the memory did and what was scored.

    Each run goes to `out/runs/<policy>-<memory slots>` (masks, scores, and the memory of each
    sequence) and is not repeated when it is there already.

    Raises:
        StremnError: no run, files of the data set that do not fit together, or nothing scored.
    """
    if not study.runs:
        raise StremnError("The analysis needs at least one number of slots.")
    folders = [_run(study, run, out, watch) for run in study.runs]
    runs = [_recorded(folder) for folder in folders]
    labels = [slots_label(run.memory_slots) for run in study.runs]
    counted = histograms(list(zip(labels, runs, strict=True)))
    drawn = []
    if counted:
        name = study.runs[-1].policy
        title = f"How old are the kept frames? {study.data.name} {study.data.split}, rule {name}"
        drawn.append(draw_ages(counted, out / "ages.png", title))
    return drawn + _pictures_of_data(study.data, runs[-1], folders[-1], out)


def _run(study: Study, run: RunDescription, out: Path, watch: Watcher) -> Path:
    folder = out / "runs" / f"{run.policy}-{run.memory_slots}"
    recorder = MemoryRecorder(lambda: study.session(run), folder / "memory")

    def told(sequence: str, done: int, total: int) -> None:
        recorder.watch(sequence, done, total)
        watch(f"{run.memory_slots} slots | {sequence}", done, total)

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
        drawn.append(draw_history(history, out))
        drawn.append(draw_retained(history, _pictures_of(data[history.video], folder), out))
    records = read_records(folder)
    drawn += [
        draw_strip(data[record.sequence], record, folder, out)
        for record in records
        if any(record.plain.values())
    ]
    drawn += draw_scores(records, out)
    drawn.append(draw_failures(data, records, folder, out))
    return drawn


def _pictures_of(sequence: VideoSequence, folder: Path) -> FrameOf:
    """Return a function that gives a frame with its segmentation, or without if none is stored."""

    def picture(index: int) -> Picture | None:
        if index >= len(sequence):
            return None
        found = segmented(sequence, index, folder)
        return small(sequence.frame(index)) if found is None else found

    return picture
