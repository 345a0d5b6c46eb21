"""`stremn analyze`: draw the memory, scores and learning curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from stremn.cli.evaluate import DataSet, Names, Root, Split, Year, only, read, whole_numbers_in
from stremn.cli.options import (
    Device,
    Every,
    Model,
    Policy,
    Precision,
    Reach,
    Size,
    asked,
    grouped,
)
from stremn.cli.panels import MEASURE
from stremn.cli.terminal import sequence_progress, show
from stremn.networks.defaults import SHIPPED

analyze_app = typer.Typer(
    no_args_is_help=True,
    help="Draw the memory, scores and learning curves.",
)

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    analyze_app.command()(memory)
    for data_set in DataSet:
        what = f"Run {data_set.value} with several numbers of slots; draw the memory and the masks."
        analyze_app.command(data_set.value, help=what)(_analyze(data_set))
    analyze_app.command()(scores)
    analyze_app.command()(training)
    app.add_typer(analyze_app, name="analyze", rich_help_panel=MEASURE)


def memory(
    sources: Annotated[
        list[Path], typer.Argument(help="Output folders of `stremn segment`, or memory.json.")
    ],
    out: Out = Path("figures"),
) -> None:
    """Draw the frames that the memory held: time line, ages, retained frames.

    Example: stremn analyze memory out -o figures
    """
    from stremn.core.atomic_files import output_folder
    from stremn.study.memory_pictures import analyze_memory

    with output_folder(out):
        _list(analyze_memory(sources, out))


@dataclass(frozen=True)
class _Run:
    """Which model is run, and how."""

    model: Model = "small"
    policy: Policy = SHIPPED.policy
    device: Device = "auto"
    precision: Precision = "auto"
    size: Size = None
    reach: Reach = None
    every: Every = None


def _analyze(kind: DataSet) -> Callable[..., None]:
    """Return the command `stremn analyze <kind>`."""

    @grouped
    def analyze(
        root: Root,
        run: _Run,
        *,
        out: Out = Path("figures"),
        split: Split = None,
        year: Year = 2016 if kind is DataSet.DAVIS else 2019,
        slots: Annotated[
            str,
            typer.Option(
                help="Numbers of slots, separated by commas; masks are drawn for the last."
            ),
        ] = "3,4,5,6",
        sequences: Names = None,
    ) -> None:
        from stremn.core.atomic_files import output_folder
        from stremn.study.analysis import analyze_data, study_slots

        data = only(read(kind, root, split, year, all_frames=False), sequences)
        usual = asked(run.model, run.size, run.reach, run.every)
        study = study_slots(
            data,
            run.model,
            whole_numbers_in(slots),
            policy=run.policy,
            size=usual.size,
            reach=usual.reach,
            every=usual.every,
            device=run.device,
            precision=run.precision,
        )
        with output_folder(out), sequence_progress() as watch:
            _list(analyze_data(study, out, watch=watch))

    return analyze


def scores(
    folder: Annotated[Path, typer.Argument(help="Output folder of `stremn evaluate`.")],
    out: Out = Path("figures"),
) -> None:
    """Draw the scores of each sequence and J of each frame.

    Example: stremn analyze scores scored -o figures
    """
    from stremn.core.atomic_files import output_folder
    from stremn.evaluation.segmentation.records import read_records
    from stremn.study.score_pictures import draw_scores

    records = read_records(folder)
    with output_folder(out):
        _list(draw_scores(records, out))


def training(
    runs: Annotated[list[Path], typer.Argument(help="Folders of `stremn train`.")],
    out: Out = Path("figures"),
) -> None:
    """Draw the learning curves of training runs.

    Example: stremn analyze training runs/small-still runs/small-video -o figures
    """
    from stremn.core.atomic_files import output_folder
    from stremn.study.learning_curves import analyze_training

    with output_folder(out):
        _list(analyze_training(runs, out))


def _list(pictures: Sequence[Path]) -> None:
    for path in pictures:
        show(str(path))
