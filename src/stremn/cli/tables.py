"""`stremn tables`: compare replacement rules, numbers of slots and fusion."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stremn.cli.evaluate import (
    DataSet,
    Names,
    Root,
    Source,
    Split,
    Year,
    numbers_in,
    whole_numbers_in,
)
from stremn.cli.options import Device, Size, Slots, asked, grouped
from stremn.cli.panels import MEASURE
from stremn.cli.spread import RayAddress, WorkerCount, spread
from stremn.cli.terminal import say, sequence_progress, show
from stremn.errors import StremnError
from stremn.networks.defaults import PAPER

if TYPE_CHECKING:
    from stremn.data.readers.sequences import SequenceSet
    from stremn.study.suites import Suite
    from stremn.study.tables import Cell, Row, Weights

tables_app = typer.Typer(
    no_args_is_help=True,
    help="Compare rules, slots and fusion (the paper's Tables 1, 2, 6). Hours on a CPU.",
)


Everywhere = Annotated[
    float | None,
    typer.Option(
        help="Search window: how far an object may move from one frame to the next, in object "
        "sizes. Default: inf, the whole frame, as in the paper."
    ),
]
Memorized = Annotated[
    int,
    typer.Option(
        min=1, help="Memorize every n-th frame only. Default: 1, every frame, as in the paper."
    ),
]
Rule = Annotated[
    str,
    typer.Option(
        help=f"Replacement rule: `{PAPER.policy}` (the paper's, default), `evidence`, `oldest`, "
        "`spread`, ... docs/concepts.md lists all rules."
    ),
]
Models = Annotated[
    list[str] | None, typer.Option(help="Weights. Repeatable, for several training runs.")
]
Seeds = Annotated[str, typer.Option(help="Seeds of random rules, separated by commas.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    tables_app.command("rules")(rules)
    tables_app.command("slots")(slots)
    tables_app.command("fusion")(fusion)
    app.add_typer(tables_app, name="tables", rich_help_panel=MEASURE)


@dataclass(frozen=True)
class _Shown:
    """Options of the suites, and how they are made from a data set."""

    suite: Annotated[
        str, typer.Option(help="Suites, separated by commas: short, long, occlusion.")
    ] = "short"
    frames: Annotated[
        int, typer.Option(help="long: number of frames to extend each sequence to.")
    ] = 1000
    gaps: Annotated[
        str, typer.Option(help="occlusion: numbers of inserted frames, separated by commas.")
    ] = "15,40"
    positions: Annotated[
        str, typer.Option(help="occlusion: where to insert, as fractions, separated by commas.")
    ] = "0.5"
    foreign: Annotated[
        int, typer.Option(help="occlusion: how many other sequences to insert into each.")
    ] = 1

    def open(self, data: SequenceSet, names: str | None = None) -> list[Suite]:
        """Make the suites; with `names` only these of them."""
        from stremn.study.suites import long_suite, occlusion_suite, short_suite

        made = {
            "short": lambda: short_suite(data),
            "long": lambda: long_suite(data, self.frames),
            "occlusion": lambda: occlusion_suite(
                data, whole_numbers_in(self.gaps), numbers_in(self.positions), self.foreign
            ),
        }
        chosen = (names or self.suite).split(",")
        unknown = [name for name in chosen if name not in made]
        if unknown:
            raise StremnError(f"There is no suite {unknown[0]!r}; known: {', '.join(made)}.")
        return [made[name]() for name in chosen]


@dataclass(frozen=True)
class _Runs:
    """Options that all tables share: data, session, workers, output folder."""

    root: Root
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the table.")]
    data: Annotated[DataSet, typer.Option(help="Layout of the data set.")] = DataSet.DAVIS
    split: Split = None
    year: Year = 2016
    sequences: Names = None
    size: Size = None
    reach: Everywhere = math.inf
    every: Memorized = PAPER.every
    device: Device = "auto"
    workers: WorkerCount = 1
    ray: RayAddress = None

    def source(self) -> Source:
        """Return the data set."""
        return Source(self.data, self.root.resolve(), self.split, self.year, names=self.sequences)


@grouped
def rules(
    runs: _Runs,
    shown: _Shown,
    *,
    model: Models = None,
    slots: Slots = PAPER.memory_slots,
    policies: Annotated[
        str | None, typer.Option(help="Only these replacement rules, separated by commas.")
    ] = None,
    seeds: Seeds = "0,1,2",
) -> None:
    """Compare replacement rules, with intervals and paired differences (Table 1)."""
    from stremn.study.tables import choose_rows, rule_rows

    rows = rule_rows(slots)
    if policies:
        rows = choose_rows(rows, policies.split(","))
    _write_table("rules", rows, _Parts(runs, shown, tuple(model or ["small"])), seeds)


@grouped
def slots(
    runs: _Runs,
    shown: _Shown,
    *,
    model: Models = None,
    policy: Rule = PAPER.policy,
    numbers: Annotated[
        str, typer.Option(help="Numbers of slots, separated by commas.")
    ] = "1,2,3,4,5,6,7,10,20",
    seeds: Seeds = "0",
) -> None:
    """Compare numbers of slots under one rule (Table 2)."""
    from stremn.study.tables import slot_rows

    rows = slot_rows(policy, whole_numbers_in(numbers))
    _write_table("slots", rows, _Parts(runs, shown, tuple(model or ["small"])), seeds)


@grouped
def fusion(
    runs: _Runs,
    shown: _Shown,
    model: Annotated[
        list[str], typer.Option(help="Weights with fusion. Repeatable, for several training runs.")
    ],
    *,
    slots: Slots = PAPER.memory_slots,
    policy: Rule = PAPER.policy,
) -> None:
    """Compare memory fusion (Appendix B) on and off (Table 6).

    Needs weights trained with recipes/small-fusion.toml.
    """
    from stremn.study.fusion_table import fusion_rows

    parts = _Parts(runs, shown, tuple(model), fusion=True)
    _write_table("fusion", fusion_rows(policy, slots), parts, "0", reference=policy)


@dataclass(frozen=True)
class _Parts:
    """A table as the command line describes it; it can be sent to other processes."""

    runs: _Runs
    shown: _Shown
    models: tuple[str, ...]
    fusion: bool = False

    def suites(self, names: str | None = None) -> list[Suite]:
        """Make the suites; with `names` only these of them."""
        return self.shown.open(self.runs.source().open(), names)

    def weights(self, only: str | None = None) -> list[Weights]:
        """Load the weights; with `only`, those with this name in the table."""
        from stremn.networks.pretrained import load_model
        from stremn.study.fusion_table import fusion_weights
        from stremn.study.tables import weights_of

        runs, found = self.runs, []
        for source in self.models:
            name = _name_of(source)
            if only not in (None, name):
                continue
            usual, loaded = asked(source, runs.size, runs.reach, runs.every), load_model(source)
            size, reach, every = usual.size, usual.reach, usual.every
            found.append(
                fusion_weights(name, loaded, size, reach, every, device=runs.device)
                if self.fusion
                else weights_of(name, loaded.model, size, reach, every=every, device=runs.device)
            )
        return found


def _name_of(source: str) -> str:
    """Return the name of weights in a table and in its folders: the end of their path."""
    path = Path(source.removesuffix(".safetensors"))
    return "-".join(part for part in path.parts[-2:] if part != path.anchor)


def _run_cell_sequence(parts: _Parts, cell: Cell, name: str, out: Path) -> None:
    """Run one sequence of a table's cell in a process of its own."""
    from stremn.evaluation.segmentation.evaluation import run_sequence

    (suite,) = parts.suites(cell.suite)
    (weights,) = parts.weights(cell.weights)
    session = weights.make_session(weights.run(cell.row, cell.seed))
    run_sequence(suite.data[name], session, suite.data.rule, out)


def _write_table(
    name: str,
    rows: tuple[Row, ...],
    parts: _Parts,
    seeds: str,
    reference: str = PAPER.policy,
) -> None:
    from stremn.core.atomic_files import output_folder
    from stremn.study.table_report import to_markdown, write_table
    from stremn.study.tables import run_table

    weights, suites = parts.weights(), parts.suites()
    out, workers, ray = parts.runs.out, parts.runs.workers, parts.runs.ray
    with output_folder(out), sequence_progress() as watch:
        table = run_table(
            f"Table: {name}",
            rows,
            suites,
            weights,
            out,
            seeds=whole_numbers_in(seeds),
            reference=reference,
            watch=watch,
            elsewhere=lambda cell: spread(partial(_run_cell_sequence, parts, cell), workers, ray),
        )
        files = write_table(table, out, name)
    show(to_markdown(table))
    say(f"written to {', '.join(map(str, files))}")
