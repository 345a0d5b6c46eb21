"""Draw learning curves of training runs from their logs."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from stremn.data.readers.folders import distinct
from stremn.errors import StremnError
from stremn.study.figures import INK, colors, drawing, head

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]
"""Steps, and as many values."""

Columns = dict[str, Curve]
"""Column of a log -> its values, and the steps at which it has one."""


@dataclass(frozen=True)
class Panel:
    """A part of the picture of a training: curves that share an axis.

    `main` is drawn bold; `shared` bounds the axis to [0, 1]; `log` makes it logarithmic.
    """

    title: str
    curves: Mapping[str, Curve]
    main: str | None = None
    shared: bool = False
    log: bool = False


def analyze_training(runs: Sequence[Path], out: Path) -> list[Path]:
    """Draw learning curves of training runs from their `log.csv` and `validation.csv`.

    Several runs are taken for the stages of one training, in order: J against hours is drawn too.

    Raises:
        StremnError: a folder without `log.csv`, or a log that is damaged or without a row.
    """
    names = distinct(runs)
    made = [
        _draw_run(run, name, out / f"training-{name.replace('/', '-')}.png")
        for run, name in zip(runs, names, strict=True)
    ]
    hours = by_hours(runs) if len(runs) > 1 else []
    return [*made, _draw_hours(hours, out / "training-hours.png")] if hours else made


def _draw_run(run: Path, name: str, path: Path) -> Path:
    log = read_log(run / "log.csv")
    if not log:
        raise StremnError(
            f"{run / 'log.csv'} has no rows yet. Wait until the training has logged some."
        )
    steps = max(int(steps[-1]) for steps, _ in log.values())
    return _draw_training(
        panels_of(log, _read_validation(run)),
        path,
        f"Training {name}, {steps:,} steps",
        "Numbers in brackets are the last values. Training curves are means between two log rows. "
        "Validation runs on videos that are not trained on, with the averaged weights. The memory "
        "is read if the right memory scores high and another clip's, or an empty one, low.",
    )


def by_hours(runs: Sequence[Path]) -> list[Panel]:
    """Draw J of a clip's last frame and of validation over hours since the first stage began.

    Hours are those of training steps; validation and pauses are not in them. A curve has the name
    of its run's folder, with as many folders above it as tell the runs apart. Nothing is returned
    for logs without times.

    Raises:
        StremnError: a folder without `log.csv`, or a log that is damaged.
    """
    begun = 0.0
    panels: dict[str, dict[str, Curve]] = {"J_last": {}, "J": {}}
    for run, stage in zip(runs, distinct(runs), strict=True):
        log = read_log(run / "log.csv")
        if "seconds_per_step" not in log:
            return []
        steps, seconds = log["seconds_per_step"]
        hours = begun + np.cumsum(np.diff(steps, prepend=0) * seconds) / 3600
        for name, columns in (("J_last", log), ("J", _read_validation(run))):
            if name in columns:
                at, values = columns[name]
                curve = np.interp(at, np.append(0, steps), np.append(begun, hours)), values
                panels[name][stage] = curve
        begun = hours[-1]
    titles = {"J_last": "J in the last frame of training clips", "J": "Validation: mean J"}
    return [Panel(titles[name], lines, shared=True) for name, lines in panels.items() if lines]


def _draw_hours(panels: Sequence[Panel], path: Path) -> Path:
    return _draw_training(
        panels,
        path,
        "J against hours of training",
        "Numbers in brackets are the last values. Hours are those of training steps, one stage "
        "after the other; stages differ in clips and, if their recipes do, in what they validate "
        "on.",
        along="hours",
    )


def read_log(path: Path) -> Columns:
    """Read a CSV log: each column with the steps at which it has a number.

    A last line without an end was cut off, and is left out.

    Raises:
        StremnError: there is no such file, it cannot be read, or a line of it is damaged.
    """
    if not path.is_file():
        raise StremnError(f"There is no {path}. Give the folder of a training (`stremn train`).")
    lines = _lines(path)
    first, names = next(lines, (1, ["step"]))
    if "step" not in names:
        raise _damaged(path, first, "a column 'step'", f"the columns {', '.join(names)}")
    table: dict[str, list[tuple[float, float]]] = {name: [] for name in names if name != "step"}
    for number, cells in lines:
        step, values = _numbers(path, number, names, cells)
        for name, value in values.items():
            table[name].append((step, value))
    return {name: _curve(pairs) for name, pairs in table.items() if pairs}


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each line that is whole and not empty."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StremnError(f"{path} cannot be read: {error.strerror}.") from error
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            cells = next(csv.reader([line.decode()]), [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise _damaged(path, number, "a line of CSV in UTF-8", str(error)) from error
        if cells:
            yield number, cells


def _numbers(
    path: Path, line: int, names: Sequence[str], cells: Sequence[str]
) -> tuple[float, dict[str, float]]:
    """Return the step of a line, and the numbers of its cells that are not empty."""
    if len(cells) != len(names):
        raise _damaged(path, line, f"{len(names)} cells", str(len(cells)))
    texts = dict(zip(names, cells, strict=True))
    try:
        step = float(int(texts.pop("step")))
        return step, {name: float(text) for name, text in texts.items() if text}
    except (ValueError, OverflowError) as error:
        raise _damaged(path, line, "a step and numbers", repr(",".join(cells)[:80])) from error


def _damaged(path: Path, line: int, expected: str, got: str) -> StremnError:
    return StremnError(
        f"{path} is damaged in line {line}: expected {expected}, got {got}. Correct the line; a "
        "line of numbers may also be removed."
    )


def _curve(pairs: Sequence[tuple[float, float]]) -> Curve:
    steps, values = np.array(pairs).T
    return steps, values


def _read_validation(run: Path) -> Columns:
    """Read the validation of a run; without one there are no columns."""
    path = run / "validation.csv"
    return read_log(path) if path.is_file() else {}


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
_STAKES = {
    "eviction_stake": "J between best and worst choice",
    "evictions_that_matter": "share with more than a point",
}


def panels_of(log: Columns, validation: Columns) -> list[Panel]:
    """Arrange columns into panels; those that no panel knows get one each."""
    return [*_validation_panels(validation), *_log_panels(log)]


def _validation_panels(validation: Columns) -> list[Panel]:
    panels = []
    scores = {name: curve for name, curve in validation.items() if name not in (*_PROBE, *_STAKES)}
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
    stakes = {text: validation[name] for name, text in _STAKES.items() if name in validation}
    if stakes:
        panels.append(Panel("What one eviction is worth", stakes, shared=True))
    return panels


def _log_panels(log: Columns) -> list[Panel]:
    panels = []
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


def _draw_training(
    panels: Sequence[Panel], path: Path, title: str, caption: str, along: str = "training step"
) -> Path:
    """Draw learning curves; `along` says what their steps are."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with drawing((5.6 * columns, 2.9 * rows + 1.0), path) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
        for axes, panel in zip(grid, panels, strict=False):
            _draw_panel(axes, panel)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes in grid[max(0, len(panels) - columns) : len(panels)]:
            axes.set_xlabel(along)
            axes.tick_params(labelbottom=True)
        head(figure, title, caption)
    return path


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for color, (name, (steps, values)) in zip(
        colors(len(panel.curves)), panel.curves.items(), strict=True
    ):
        bold = panel.main in (None, name)
        mark = "o" if len(steps) <= 30 else ""
        axes.plot(
            steps,
            values,
            color=INK if panel.main == name else color,
            lw=2 if bold else 1.1,
            alpha=1 if bold else 0.75,
            marker=mark,
            ms=3,
            label=f"{name} ({values[-1]:.3g})",
        )
    if panel.log:
        axes.set_yscale("log")
    if panel.shared:
        axes.set_ylim(0, 1)
    axes.set_title(panel.title)
    axes.grid(axis="y", color="#e6e6e6", lw=0.8)
    axes.legend(fontsize=8, ncols=1 if len(panel.curves) < 5 else 2)
