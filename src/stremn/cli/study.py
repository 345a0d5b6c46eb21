"""`stremn evaluate`, `tables`: for people who measure."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stremn.cli.segment import Device, Model, Policy, Precision, Size, Slots
from stremn.cli.terminal import console, output
from stremn.errors import StremnError

if TYPE_CHECKING:
    from stremn.data.segmentation import SequenceSet
    from stremn.evaluation import Report, Session
    from stremn.metrics import Scores
    from stremn.suites import Suite
    from stremn.tables import Row

evaluate_app = typer.Typer(no_args_is_help=True, help="Score models on a data set.")
tables_app = typer.Typer(no_args_is_help=True, help="The paper's tables, and beyond.")

Root = Annotated[Path, typer.Option(help="Folder of the data set in its official layout.")]
Split = Annotated[str | None, typer.Option(help="Split; default: the one that is usually scored.")]
Year = Annotated[int, typer.Option(help="Edition of the data set.")]
Scales = Annotated[str, typer.Option(help="Relative sizes, such as 1.0,1.3 (STReMN-MS).")]
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
        evaluate_app.command(data_set.value, help=f"Score a model on {data_set.value}.")(
            _evaluate(data_set)
        )
    app.add_typer(evaluate_app, name="evaluate")
    tables_app.command("rules")(rules)
    tables_app.command("slots")(slots)
    app.add_typer(tables_app, name="tables")


def read(kind: DataSet, root: Path, split: str | None, year: int, all_frames: bool) -> SequenceSet:
    """Open a data set."""
    from stremn.data import segmentation as readers

    match kind:
        case DataSet.DAVIS:
            return readers.read_davis(root, split or "val", year)
        case DataSet.YOUTUBE_VOS:
            return readers.read_youtube_vos(root, split or "valid", year, all_frames)
        case DataSet.LVOS:
            return readers.read_lvos(root, split or "valid")
        case DataSet.MOSE:
            return readers.read_mose(root, split or "valid")
        case DataSet.LONG_TIME_VIDEO:
            return readers.read_long_time_video(root)
        case DataSet.FOLDERS:
            return readers.read_folders(root, None if split is None else Path(split))


def _evaluate(kind: DataSet) -> Callable[..., None]:
    """Make the verb `stremn evaluate <kind>`."""

    def evaluate(
        root: Root,
        out: Annotated[Path, typer.Option("--out", "-o", help="Folder for masks and scores.")],
        split: Split = None,
        year: Year = 2016 if kind is DataSet.DAVIS else 2019,
        model: Model = "small",
        slots: Slots = 6,
        policy: Policy = "learned",
        device: Device = "auto",
        precision: Precision = "auto",
        size: Size = 480,
        scales: Scales = "1.0",
        flip: Annotated[bool, typer.Option(help="Mirrored copies vote too.")] = False,
        seed: Annotated[int, typer.Option(help="Of random rules.")] = 0,
        sequences: Names = None,
        all_frames: Annotated[bool, typer.Option(help="YouTube-VOS: read every frame.")] = False,
        filtered: Annotated[bool, typer.Option(help="Write masks after the filter.")] = False,
        zipped: Annotated[
            Path | None, typer.Option("--zip", help="Write and check the server's zip.")
        ] = None,
    ) -> None:
        from stremn.evaluation import RunDescription, evaluate
        from stremn.submission import write_submission

        data = read(kind, root, split, year, all_frames)
        data = data.only(sequences.split(",")) if sequences else data
        sizes = tuple(_number(scale) for scale in scales.split(","))
        run = RunDescription(model, policy, slots, size, sizes, flip, seed)
        make = sessions(model, device, precision, size, sizes, flip)
        report = evaluate(
            data,
            lambda: make(policy, slots, seed),
            out,
            run,
            written="filtered" if filtered else "plain",
            watch=_watch(),
        )
        _print_report(report)
        if zipped is not None:
            made = write_submission(data, out, zipped)
            output.print(f"{made}", markup=False)
        if report.failures:
            raise typer.Exit(1)

    return evaluate


def sessions(
    model: str, device: str, precision: str, size: int, scales: tuple[float, ...], flip: bool
) -> Callable[[str, int, int], Session]:
    """Return what makes fresh sessions on one set of weights."""
    from stremn.multiscale import MultiScaleSession
    from stremn.pretrained import load_model
    from stremn.sessions import SegmentationSession

    network = load_model(model).model

    def make(policy: str, slots: int, seed: int) -> Session:
        def single(side: int) -> SegmentationSession:
            return SegmentationSession(
                network,
                device=device,
                precision=precision,
                memory_slots=slots,
                policy=policy,
                size=side,
                seed=seed,
            )

        if scales == (1.0,) and not flip:
            return single(size)
        return MultiScaleSession(single, size=size, scales=scales, flip=flip)

    return make


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise StremnError(f"Scales are numbers separated by commas, got {text!r}.") from None


def _watch() -> Callable[[str, int, int], None]:
    def watch(sequence: str, done: int, total: int) -> None:
        if done == total:
            console.print(f"{sequence}: {done} frames", highlight=False)

    return watch


def _print_report(report: Report) -> None:
    from rich.table import Table

    if report.plain is None:
        raise StremnError("No sequence could be scored.")
    table = Table(title="percent, first and last frame not counted")
    for head in ("sequence", "J", "F", "J&F"):
        table.add_column(head, justify="left" if head == "sequence" else "right")
    for name, scores in report.plain.by_sequence().items():
        table.add_row(name, *_percent(scores))
    table.add_section()
    table.add_row("mean over objects", *_percent(report.plain.mean))
    if report.filtered is not None:
        table.add_row("the same, far false positives removed", *_percent(report.filtered.mean))
    output.print(table)
    for name, reason in report.failures.items():
        console.print(f"failed: {name}: {reason}", markup=False)


def _percent(scores: Scores) -> list[str]:
    return [f"{100 * x:.1f}" for x in (scores.j.mean, scores.f.mean, scores.j_and_f)]


def rules(
    root: Root,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the table.")],
    split: Split = None,
    year: Year = 2016,
    model: Annotated[list[str] | None, typer.Option(help="Weights; several trainings.")] = None,
    slots: Slots = 6,
    policies: Annotated[str | None, typer.Option(help="Only these, by commas.")] = None,
    suite: Annotated[str, typer.Option(help="short, long, occlusion, by commas.")] = "short",
    seeds: Annotated[str, typer.Option(help="Seeds of random rules, by commas.")] = "0,1,2",
    size: Size = 480,
    device: Device = "auto",
    sequences: Names = None,
) -> None:
    """Table 1: every replacement rule, with intervals and paired differences."""
    from stremn.tables import choose_rows, rule_rows

    rows = rule_rows(slots)
    if policies:
        rows = choose_rows(rows, policies.split(","))
    _table("rules", rows, root, out, split, year, model, suite, seeds, size, device, sequences)


def slots(
    root: Root,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the table.")],
    split: Split = None,
    year: Year = 2016,
    model: Annotated[list[str] | None, typer.Option(help="Weights; several trainings.")] = None,
    policy: Policy = "learned",
    numbers: Annotated[str, typer.Option(help="K, by commas.")] = "1,2,3,4,5,6,7,10,20",
    suite: Annotated[str, typer.Option(help="short, long, occlusion, by commas.")] = "short",
    seeds: Annotated[str, typer.Option(help="Seeds of random rules, by commas.")] = "0",
    size: Size = 480,
    device: Device = "auto",
    sequences: Names = None,
) -> None:
    """Table 2: one rule with several numbers of slots."""
    from stremn.tables import slot_rows

    rows = slot_rows(policy, [int(k) for k in numbers.split(",")])
    _table("slots", rows, root, out, split, year, model, suite, seeds, size, device, sequences)


def _table(
    name: str,
    rows: tuple[Row, ...],
    root: Path,
    out: Path,
    split: str | None,
    year: int,
    models: list[str] | None,
    suite: str,
    seeds: str,
    size: int,
    device: str,
    sequences: str | None,
) -> None:
    from stremn.tables import Weights, run_table, to_markdown, write_table

    data = read(DataSet.DAVIS, root, split, year, all_frames=False)
    data = data.only(sequences.split(",")) if sequences else data
    weights = [
        Weights(Path(m).stem, sessions(m, device, "auto", size, (1.0,), False))
        for m in models or ["small"]
    ]
    table = run_table(
        f"Table: {name}",
        rows,
        [_suite(data, each) for each in suite.split(",")],
        weights,
        out,
        seeds=[int(seed) for seed in seeds.split(",")],
        resolution=size,
        watch=_watch(),
    )
    files = write_table(table, out, name)
    output.print(to_markdown(table), markup=False, highlight=False)
    console.print(f"written to {', '.join(map(str, files))}")


def _suite(data: SequenceSet, name: str) -> Suite:
    from stremn import suites

    known = {
        "short": suites.short_suite,
        "long": suites.long_suite,
        "occlusion": suites.occlusion_suite,
    }
    if name not in known:
        raise StremnError(f"There is no suite {name!r}; known: {', '.join(known)}.")
    return known[name](data)
