"""`stremn evaluate` and `score`: how good masks are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stremn.cli.options import (
    Adapt,
    Device,
    Every,
    Model,
    Policy,
    Precision,
    Reach,
    Size,
    Slots,
    asked,
)
from stremn.cli.panels import MEASURE
from stremn.cli.terminal import output, say, sequence_progress, show
from stremn.errors import StremnError

if TYPE_CHECKING:
    from stremn.data.readers.sequences import SequenceSet
    from stremn.evaluation.segmentation.metrics import Scores
    from stremn.evaluation.segmentation.runs import RunDescription, Session
    from stremn.evaluation.segmentation.scores import Report
    from stremn.networks.pretrained import Pretrained

evaluate_app = typer.Typer(no_args_is_help=True, help="Score models on a data set.")

Root = Annotated[Path, typer.Option(help="Folder of the data set in its official layout.")]
Split = Annotated[str | None, typer.Option(help="Split; default: the one that is usually scored.")]
Year = Annotated[int, typer.Option(help="Edition of the data set, where it has several.")]
Scales = Annotated[
    str,
    typer.Option(help="Sizes beside `--size`, as factors: 1.0,1.3 votes twice (STReMN-MS)."),
]
Names = Annotated[str | None, typer.Option(help="Only these sequences, separated by commas.")]


class DataSet(StrEnum):
    """Data sets whose official layout is known."""

    DAVIS = "davis"
    YOUTUBE_VOS = "youtube-vos"
    LVOS = "lvos"
    MOSE = "mose"
    LONG_TIME_VIDEO = "long-time-video"
    FOLDERS = "folders"


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    for data_set in DataSet:
        evaluate_app.command(
            data_set.value,
            help=f"Score a model on {data_set.value}: J, F and J&F of every sequence.",
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


def _evaluate(kind: DataSet) -> Callable[..., None]:
    """Make the verb `stremn evaluate <kind>`."""

    def evaluate(
        root: Root,
        out: Annotated[Path, typer.Option("--out", "-o", help="Folder for masks and scores.")],
        split: Split = None,
        year: Year = 2016 if kind is DataSet.DAVIS else 2019,
        model: Model = "small",
        slots: Slots = 6,
        policy: Policy = "evidence",
        device: Device = "auto",
        precision: Precision = "auto",
        size: Size = None,
        scales: Scales = "1.0",
        flip: Annotated[bool, typer.Option("--flip", help="Mirrored copies vote too.")] = False,
        seed: Annotated[int, typer.Option(help="Seed of random rules.")] = 0,
        reach: Reach = None,
        every: Every = None,
        adapt: Adapt = 0,
        sequences: Names = None,
        all_frames: Annotated[
            bool,
            typer.Option(
                "--all-frames", help="youtube-vos: show every frame, score those with masks."
            ),
        ] = False,
        filtered: Annotated[
            bool,
            typer.Option(
                "--filtered", help="Write masks without false positives far from the object."
            ),
        ] = False,
        compat: Annotated[
            bool, typer.Option("--compat", help="Decay as the DAVIS toolkit has it.")
        ] = False,
        zipped: Annotated[
            Path | None,
            typer.Option("--zip", help="File: write, and check, what the split's server expects."),
        ] = None,
    ) -> None:
        from stremn.core.hardware import pick_device, precision_name
        from stremn.core.weights import fingerprint
        from stremn.evaluation.segmentation.evaluation import evaluate
        from stremn.evaluation.segmentation.runs import RunDescription
        from stremn.networks.pretrained import load_model

        data = only(read(kind, root, split, year, all_frames), sequences)
        sizes = tuple(numbers_in(scales))
        usual = asked(model, size, reach, every)
        pretrained = load_model(model)
        run = RunDescription(
            model,
            policy,
            slots,
            usual.size,
            sizes,
            flip,
            seed,
            usual.reach,
            f"{fingerprint(pretrained.model):08x}",
            precision_name(precision, pick_device(device)),
            adapt,
            usual.every,
        )
        sessions = _sessions(pretrained, run, device)
        with sequence_progress() as watch:
            report = evaluate(
                data,
                sessions,
                out,
                run,
                written="filtered" if filtered else "plain",
                compat_decay=compat,
                watch=watch,
            )
        _print_report(report)
        if zipped is not None:
            _write_zip(data, out, zipped)
        if report.failures:
            raise typer.Exit(1)

    return evaluate


def _sessions(pretrained: Pretrained, run: RunDescription, device: str) -> Callable[[], Session]:
    """Fresh sessions as the run says, each with a network of its own if that is adapted.

    One is opened here: a wrong option is found before the first sequence, and not in each.
    """
    from stremn.evaluation.segmentation.runs import session_factory

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
    compat: Annotated[
        bool, typer.Option("--compat", help="Decay as the DAVIS toolkit has it.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Threads; default: the cores.")] = None,
    zipped: Annotated[
        Path | None,
        typer.Option("--zip", help="File: write, and check, what the split's server expects."),
    ] = None,
) -> None:
    """Score label maps that are on disk, made by anything: J, F, J&F as DAVIS defines them.

    Example: stremn score --root DAVIS --predictions masks
    """
    from stremn.evaluation.segmentation.stored_masks import score_predictions

    chosen = only(read(data, root, split, year, all_frames=False), sequences)
    report = score_predictions(chosen, predictions, workers=workers, compat_decay=compat)
    _print_report(report)
    if zipped is not None:
        _write_zip(chosen, predictions, zipped)


def only(data: SequenceSet, names: str | None) -> SequenceSet:
    """The sequences of some names, separated by commas; all of them for None."""
    return data if names is None else data.only(names.split(","))


def _write_zip(data: SequenceSet, predictions: Path, path: Path) -> None:
    from stremn.evaluation.segmentation.submission import write_submission

    made = write_submission(data, predictions, path)
    show(
        f"{made.path}: {made.masks} label maps of {made.sequences} sequences, "
        f"{made.nbytes / 1e6:.1f} MB, checked; ready to upload"
    )


def numbers_in(text: str) -> list[float]:
    """Numbers separated by commas; raise StremnError for anything else."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise StremnError(f"Expected numbers separated by commas, got {text!r}.")
    return found


def whole_numbers_in(text: str) -> list[int]:
    """Whole numbers separated by commas; raise StremnError for anything else."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise StremnError(f"Expected whole numbers separated by commas, got {text!r}.") from None


def _print_report(report: Report) -> None:
    from rich.table import Table

    if report.plain is None and not report.failures:
        say("Nothing to score: the masks of this split are not public.")
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
            table.add_row("the same, far false positives removed", *_percent(report.filtered.mean))
        output.print(table)
        several = report.plain.swapped()
        if several:
            free = sum(share == 0 for share in several.values())
            show(
                f"{free} of {len(several)} sequences with several objects are free of swaps: no "
                "mask lies more on another object than on its own."
            )
    for name, reason in report.failures.items():
        say(f"failed: {name}: {reason}")


def _percent(scores: Scores) -> list[str]:
    return [f"{100 * x:.1f}" for x in (scores.j.mean, scores.f.mean, scores.j_and_f)]
