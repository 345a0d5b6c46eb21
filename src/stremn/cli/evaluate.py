"""`stremn evaluate` and `stremn score`: score models and masks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stremn.cli.options import Adapt, AnyModel, SessionOptions, grouped
from stremn.cli.panels import MEASURE
from stremn.cli.spread import RayAddress, WorkerCount, spread
from stremn.cli.terminal import output, say, sequence_progress, show
from stremn.errors import StremnError

if TYPE_CHECKING:
    from stremn.data.readers.sequences import SequenceSet
    from stremn.evaluation.segmentation.metrics import Scores
    from stremn.evaluation.segmentation.results import Report
    from stremn.evaluation.segmentation.run_description import RunDescription, Segmenter
    from stremn.networks.pretrained import Pretrained
    from stremn.segmentation.opening import Asked

evaluate_app = typer.Typer(no_args_is_help=True, help="Score models on a data set.")

Root = Annotated[Path, typer.Option(help="Folder of the data set, in its official layout.")]
Split = Annotated[str | None, typer.Option(help="Split. Default: the usual validation split.")]
Year = Annotated[int, typer.Option(help="Edition of the data set, where there are several.")]
Compat = Annotated[
    bool, typer.Option("--compat", help="Compute decay in 8 bits, as the DAVIS toolkit does.")
]
Zipped = Annotated[
    Path | None,
    typer.Option(
        "--zip",
        help="Write and check a submission file for the evaluation server: the whole split, "
        "without `--sequences`.",
    ),
]
Names = Annotated[str | None, typer.Option(help="Only these sequences, separated by commas.")]


class DataSet(StrEnum):
    """Supported layouts of data sets."""

    DAVIS = "davis"
    YOUTUBE_VOS = "youtube-vos"
    LVOS = "lvos"
    MOSE = "mose"
    LONG_TIME_VIDEO = "long-time-video"
    FOLDERS = "folders"


_NAMES = {
    DataSet.DAVIS: "DAVIS",
    DataSet.YOUTUBE_VOS: "YouTube-VOS",
    DataSet.LVOS: "LVOS",
    DataSet.MOSE: "MOSE",
    DataSet.LONG_TIME_VIDEO: "Long-Time Video",
    DataSet.FOLDERS: "folders of frames and masks",
}
"""What `--help` calls the data sets."""


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for data_set in DataSet:
        evaluate_app.command(
            data_set.value,
            help=f"Score a model on {_NAMES[data_set]}: J, F and J&F of every sequence.",
        )(_evaluate(data_set))
    app.add_typer(evaluate_app, name="evaluate", rich_help_panel=MEASURE)
    app.command("score", rich_help_panel=MEASURE)(score)


def read(kind: DataSet, root: Path, split: str | None, year: int, all_frames: bool) -> SequenceSet:
    """Open a data set."""
    from stremn.data.readers import layouts

    match kind:
        case DataSet.DAVIS:
            return layouts.read_davis(root, split or "val", year)
        case DataSet.YOUTUBE_VOS:
            return layouts.read_youtube_vos(root, split or "valid", year, all_frames)
        case DataSet.LVOS:
            return layouts.read_lvos(root, split or "valid")
        case DataSet.MOSE:
            return layouts.read_mose(root, split or "valid")
        case DataSet.LONG_TIME_VIDEO:
            return layouts.read_long_time_video(root)
        case DataSet.FOLDERS:
            return layouts.read_folders(root, None if split is None else Path(split))


@dataclass(frozen=True)
class _Run:
    """Which model is scored, and how it is run."""

    model: AnyModel = "small"
    scales: Annotated[
        str,
        typer.Option(
            help="Scales to average over, as factors of `--size`, such as `1.0,1.3` (STReMN-MS)."
        ),
    ] = "1.0"
    flip: Annotated[bool, typer.Option("--flip", help="Also average over mirrored frames.")] = False
    seed: Annotated[int, typer.Option(help="Seed of random rules.")] = 0
    adapt: Adapt = 0

    def how(self, session: SessionOptions) -> How:
        """Return the description of a run with these session options."""
        scales = tuple(numbers_in(self.scales))
        return How(self.model, session.asked(self.seed), scales, self.flip, self.adapt)


@dataclass(frozen=True)
class _Scoring:
    """How masks are written and scored."""

    filtered: Annotated[
        bool, typer.Option("--filtered", help="Write the masks after the far-region filter.")
    ] = False
    compat: Compat = False
    zipped: Zipped = None


def _evaluate(kind: DataSet) -> Callable[..., None]:
    """Return the command `stremn evaluate <kind>`."""

    @grouped
    def evaluate(
        root: Root,
        out: Annotated[Path, typer.Option("--out", "-o", help="Folder for masks and scores.")],
        session: SessionOptions,
        run: _Run,
        scoring: _Scoring,
        *,
        split: Split = None,
        year: Year = 2016 if kind is DataSet.DAVIS else 2019,
        sequences: Names = None,
        all_frames: Annotated[
            bool,
            typer.Option(
                "--all-frames", help="youtube-vos: read every frame, score those with masks."
            ),
        ] = False,
        workers: WorkerCount = 1,
        ray: RayAddress = None,
    ) -> None:
        from stremn.evaluation.segmentation.evaluation import evaluate

        how = run.how(session)
        source = Source(kind, root.resolve(), split, year, all_frames, sequences)
        masks = "filtered" if scoring.filtered else "plain"
        data = source.open()
        if scoring.zipped is not None:
            _check_zip(data, sequences)
        described, sessions = how.open()
        with sequence_progress() as watch:
            report = evaluate(
                data,
                sessions,
                out,
                described,
                written=masks,
                compat_decay=scoring.compat,
                watch=watch,
                elsewhere=spread(partial(_run_sequence, source, how, masks), workers, ray),
            )
        _print_report(report)
        if scoring.zipped is not None:
            _write_zip(data, out, scoring.zipped)
        if report.failures:
            raise typer.Exit(1)

    return evaluate


@dataclass(frozen=True)
class Source:
    """A data set as the command line names it; it can be sent to other processes."""

    kind: DataSet
    root: Path
    split: str | None
    year: int
    all_frames: bool = False
    names: str | None = None

    def open(self) -> SequenceSet:
        """Open it; raises StremnError if it is not there, or has no such sequences."""
        return only(read(self.kind, self.root, self.split, self.year, self.all_frames), self.names)


@dataclass(frozen=True)
class How:
    """A run as the command line describes it; it can be sent to other processes."""

    model: str
    asked: Asked
    scales: tuple[float, ...]
    flip: bool
    adapt: int

    def open(self) -> tuple[RunDescription, Callable[[], Segmenter]]:
        """Return the run's description for the record, and a function that opens a new session.

        Raises:
            StremnError: there is no such model, or it does not support an option.
        """
        from stremn.core.hardware import pick_device, precision_name
        from stremn.evaluation.segmentation.run_description import RunDescription
        from stremn.sam.opening import SamVideoModel, video_model

        chosen = video_model(self.model)
        is_sam = isinstance(chosen, SamVideoModel)
        if is_sam and (self.scales != (1.0,) or self.flip):
            raise StremnError(
                "--scales and --flip cannot be used: a SAM model processes every frame once, "
                "at its own size. Leave them out."
            )
        if self.adapt:
            chosen.check_adaptable()
        settled = chosen.settled(self.asked)
        size = chosen.side if isinstance(chosen, SamVideoModel) else settled.size
        assert settled.policy is not None  # settled
        assert settled.memory_slots is not None
        assert size is not None
        run = RunDescription(
            chosen.source,
            settled.policy,
            settled.memory_slots,
            size,
            self.scales,
            self.flip,
            settled.seed,
            None if settled.reach == math.inf else settled.reach,
            f"{chosen.fingerprint():08x}",
            precision_name(settled.precision, pick_device(settled.device)),
            self.adapt,
            settled.every or 1,
        )
        if is_sam:
            return run, lambda: chosen.open(settled)
        return run, _sessions(chosen.pretrained(), run, settled.device)


def _run_sequence(source: Source, how: How, written: str, name: str, out: Path) -> None:
    """Run one sequence of an evaluation in a process of its own."""
    from stremn.evaluation.segmentation.evaluation import run_sequence

    data = source.open()
    _, sessions = how.open()
    run_sequence(data[name], sessions(), data.rule, out, written)


def _sessions(pretrained: Pretrained, run: RunDescription, device: str) -> Callable[[], Segmenter]:
    """Return a function that opens a session, with a network of its own if it is adapted.

    One session is opened here, so that a wrong option is found before the first sequence.
    """
    from stremn.evaluation.segmentation.run_description import session_factory

    following = replace(run, adapt=0)
    plain = session_factory(pretrained.model, following, device=device)
    plain()
    if not run.adapt:
        return plain
    from stremn.training.segmentation.adaptation import AdaptedSession

    return lambda: AdaptedSession(
        pretrained,
        lambda model: session_factory(model, following, device=device)(),
        steps=run.adapt,
        device=device,
    )


def score(
    root: Root,
    predictions: Annotated[Path, typer.Option(help="Folder of `<sequence>/<frame>.png`.")],
    data: Annotated[DataSet, typer.Option(help="Layout of the data set.")] = DataSet.DAVIS,
    split: Split = None,
    year: Year = 2016,
    sequences: Names = None,
    compat: Compat = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of threads. Default: number of cores.")
    ] = None,
    zipped: Zipped = None,
) -> None:
    """Score masks on disk, made by any program: J, F and J&F as DAVIS defines them.

    Example: stremn score --root DAVIS --predictions masks
    """
    from stremn.evaluation.segmentation.stored_masks import score_predictions

    chosen = only(read(data, root, split, year, all_frames=False), sequences)
    if zipped is not None:
        _check_zip(chosen, sequences)
    report = score_predictions(chosen, predictions, workers=workers, compat_decay=compat)
    _print_report(report)
    if zipped is not None:
        _write_zip(chosen, predictions, zipped)


def only(data: SequenceSet, names: str | None) -> SequenceSet:
    """Return the sequences with these names, separated by commas; None returns all."""
    return data if names is None else data.only(names.split(","))


def _check_zip(data: SequenceSet, names: str | None) -> None:
    """Refuse a zip that no server takes, before anything takes long.

    Raises:
        StremnError: only some sequences are named, or the data set has no server.
    """
    from stremn.evaluation.segmentation.submission import top_folder

    if names is not None:
        raise StremnError(
            "--zip cannot be used with --sequences: a server expects all sequences of the split, "
            f"and only {names} would be in the zip. Leave one of the two options out."
        )
    top_folder(data)


def _write_zip(data: SequenceSet, predictions: Path, path: Path) -> None:
    from stremn.evaluation.segmentation.submission import write_submission

    made = write_submission(data, predictions, path)
    show(
        f"{made.path}: {made.masks} label maps of {made.sequences} sequences, "
        f"{made.nbytes / 1e6:.1f} MB, checked; ready to upload"
    )


def numbers_in(text: str) -> list[float]:
    """Parse numbers separated by commas; raise StremnError for anything else."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise StremnError(f"Expected numbers separated by commas, got {text!r}.")
    return found


def whole_numbers_in(text: str) -> list[int]:
    """Parse whole numbers separated by commas; raise StremnError for anything else."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise StremnError(f"Expected whole numbers separated by commas, got {text!r}.") from None


def _print_report(report: Report) -> None:
    from rich.table import Table

    if report.plain is None and not report.failures:
        say("No scores: the masks of this split are not public.")
    if report.plain is not None:
        table = Table(title="percent", caption=f"scored: {report.protocol['frames_scored']}")
        for head in ("sequence", "J", "F", "J&F"):
            table.add_column(head, justify="left" if head == "sequence" else "right")
        for name, scores in report.plain.by_sequence().items():
            table.add_row(name, *_percent(scores))
        table.add_section()
        for name, scores in report.plain.by_group().items():
            table.add_row(f"{name} classes", *_percent(scores))
        table.add_row("mean over objects", *_percent(report.plain.mean))
        if report.filtered is not None:
            table.add_row("mean, with the far-region filter", *_percent(report.filtered.mean))
        output.print(table)
        several = report.plain.swapped()
        if several:
            free = sum(share == 0 for share in several.values())
            show(
                f"{free} of {len(several)} sequences with several objects have no identity swap: "
                "no mask overlaps another object more than its own."
            )
    for name, reason in report.failures.items():
        say(f"failed: {name}: {reason}")


def _percent(scores: Scores) -> list[str]:
    return [f"{100 * x:.1f}" for x in (scores.j.mean, scores.f.mean, scores.j_and_f)]
