"""Learning curves of trainings, from the logs that they wrote."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stremn.errors import StremnError
from stremn.study.figures import Curve, Panel, draw_training

Table = dict[str, tuple[np.ndarray, np.ndarray]]
"""Column -> steps and values."""


def analyze_training(runs: Sequence[Path], out: Path) -> list[Path]:
    """Draw the learning curves of trainings from the `log.csv` and `validation.csv` they wrote.

    Several runs are taken for the stages of one training, in order: J against hours is drawn too.

    Raises:
        StremnError: a folder without `log.csv`, or a log without a row.
    """
    made = [_draw_run(run, out / f"training-{run.resolve().name}.png") for run in runs]
    hours = _by_hours(runs) if len(runs) > 1 else []
    return [*made, _draw_hours(hours, out / "training-hours.png")] if hours else made


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


def _by_hours(runs: Sequence[Path]) -> list[Panel]:
    """J of a clip's last frame and of validation, over hours since the first stage began.

    Hours are those of training steps; validation and pauses are not in them. Nothing is returned
    for logs without times.
    """
    begun = 0.0
    panels: dict[str, dict[str, Curve]] = {"J_last": {}, "J": {}}
    for run in runs:
        log = read_log(run / "log.csv")
        if "seconds_per_step" not in log:
            return []
        steps, seconds = log["seconds_per_step"]
        hours = begun + np.cumsum(np.diff(steps, prepend=0) * seconds) / 3600
        validation = read_log(run / "validation.csv") if (run / "validation.csv").is_file() else {}
        for name, table in (("J_last", log), ("J", validation)):
            if name in table:
                at, values = table[name]
                curve = np.interp(at, np.append(0, steps), np.append(begun, hours)), values
                panels[name][run.resolve().name] = curve
        begun = hours[-1]
    titles = {"J_last": "J in the last frame of training clips", "J": "Validation: mean J"}
    return [Panel(titles[name], lines, shared=True) for name, lines in panels.items() if lines]


def _draw_hours(panels: Sequence[Panel], path: Path) -> Path:
    return draw_training(
        panels,
        path,
        "J against hours of training",
        "Numbers in brackets are the last values. Hours are those of training steps, one stage "
        "after the other; stages differ in clips and, if their recipes do, in what they validate "
        "on.",
        along="hours",
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
_STAKES = {
    "eviction_stake": "J between best and worst choice",
    "evictions_that_matter": "share with more than a point",
}


def _panels(log: Table, validation: Table) -> list[Panel]:
    """Arrange columns into panels; those that no panel knows get one each."""
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
