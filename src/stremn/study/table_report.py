"""Tables for people and for programs: intervals, differences from a reference row, Markdown, JSON.

A table gives means with bootstrap intervals over sequences and the paired difference of every row
from a reference row; a difference whose interval holds zero is called a tie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stremn.evaluation.intervals import Interval, mean_interval
from stremn.evaluation.segmentation.records import save_json
from stremn.media.files import make_folder, write_whole
from stremn.study.tables import CURVE_STEP, Measured, Table

# Comparing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """Means of a row with intervals, and its paired difference from the reference row."""

    j: Interval
    f: Interval
    j_and_f: Interval
    difference: Interval | None


def compare(measured: Measured, reference: Measured) -> Compared:
    """Compute intervals over sequences, and the difference of J&F over those that both finished."""
    names = sorted(measured.j)
    objects = np.array([measured.objects[n] for n in names])
    j = np.array([measured.j[n] for n in names])
    f = np.array([measured.f[n] for n in names])
    both = sorted(measured.j.keys() & reference.j.keys())
    difference = None
    if measured.row != reference.row and both:
        change = [_j_and_f(measured, n) - _j_and_f(reference, n) for n in both]
        counts = np.array([measured.objects[n] for n in both])
        difference = mean_interval(np.array(change), counts)
    return Compared(
        mean_interval(j, objects),
        mean_interval(f, objects),
        mean_interval((j + f) / 2, objects),
        difference,
    )


def _j_and_f(measured: Measured, name: str) -> float:
    return (measured.j[name] + measured.f[name]) / 2


def _reference_of(table: Table, suite: str) -> Measured:
    return next(m for m in table.suites[suite] if m.row.label == table.reference)


# Writing --------------------------------------------------------------------------------------


def write_table(table: Table, out: Path, name: str) -> tuple[Path, Path]:
    """Write ``out/<name>.md`` and ``out/<name>.json``; returns both paths."""
    make_folder(out)
    markdown, data = out / f"{name}.md", out / f"{name}.json"
    write_whole(markdown, to_markdown(table).encode())
    save_json(data, to_json(table))
    return markdown, data


def to_json(table: Table) -> dict[str, Any]:
    """Return all numbers of a table, in [0, 1]."""
    return {
        "title": table.title,
        "reference": table.reference,
        "protocol": dict(table.protocol),
        "suites": {
            suite: [_row_json(m, compare(m, _reference_of(table, suite))) for m in rows]
            for suite, rows in table.suites.items()
        },
    }


def _row_json(measured: Measured, compared: Compared) -> dict[str, Any]:
    difference = compared.difference
    return {
        **asdict(measured.row),
        "J": asdict(compared.j),
        "F": asdict(compared.f),
        "J&F": asdict(compared.j_and_f),
        "minus_reference": None
        if difference is None
        else {**asdict(difference), "tie": difference.tie},
        "repetitions": dict(measured.repetitions),
        "std_of_repetitions": _spread(measured),
        "conditions": dict(measured.conditions),
        "curve": list(measured.curve),
        "sequences": {name: {"J": measured.j[name], "F": measured.f[name]} for name in measured.j},
        "failed": list(measured.failed),
    }


def _spread(measured: Measured) -> float | None:
    """Return the standard deviation between repetitions, None with one."""
    values = list(measured.repetitions.values())
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def to_markdown(table: Table) -> str:
    """Format a table in percent as Markdown."""
    parts = [f"# {table.title}\n"]
    for suite, rows in table.suites.items():
        parts.append(_suite_markdown(table, suite, rows))
    return "\n".join(parts)


def _suite_markdown(table: Table, suite: str, rows: Sequence[Measured]) -> str:
    reference = _reference_of(table, suite)
    compared = [compare(m, reference) for m in rows]
    head = ["", "J", "F", "J&F", "95 %", f"J&F minus {table.reference}", "std", "paper"]
    body = [
        [
            m.row.label,
            _percent(c.j.mean),
            _percent(c.f.mean),
            _percent(c.j_and_f.mean),
            _range(c.j_and_f),
            _difference(c.difference),
            "" if (std := _spread(m)) is None else _percent(std),
            "" if m.row.paper is None else f"{m.row.paper:.1f}",
        ]
        for m, c in zip(rows, compared, strict=True)
    ]
    lines = [f"## {suite}\n", _protocol_line(table.protocol[suite], rows), ""]
    lines.append(_grid(head, body))
    conditions = list(rows[0].conditions)
    if conditions:
        cells = [[m.row.label, *(_percent(m.conditions[c]) for c in conditions)] for m in rows]
        lines += ["\nJ after the return:\n", _grid(["", *conditions], cells)]
    if rows[0].curve:
        steps = [f"{n * CURVE_STEP}-{(n + 1) * CURVE_STEP - 1}" for n in range(len(rows[0].curve))]
        cells = [[m.row.label, *(_percent(p) for p in m.curve)] for m in rows]
        lines += ["\nJ of each hundred frames:\n", _grid(["", *steps], cells)]
    failed = sorted({name for m in rows for name in m.failed})
    if failed:
        lines.append(f"\nFailed and left out: {', '.join(failed)}.")
    return "\n".join(lines) + "\n"


def _protocol_line(protocol: Mapping[str, Any], rows: Sequence[Measured]) -> str:
    repetitions = max(len(m.repetitions) for m in rows)
    reach = protocol["reach"]
    session = "" if reach is None else f"far regions not memorized (reach {reach:g}), "
    return (
        f"{protocol['data']} {protocol['split']}, {len(rows[0].j)} sequences, shown: "
        f"{protocol['frames_shown']}, scored: {protocol['frames_scored']}, "
        f"{protocol['size']} px, {session}up to {repetitions} repetitions; "
        "without post-processing. "
        "Intervals are bootstrap percentiles over sequences; a difference whose interval holds "
        "zero is a tie. The paper's numbers are J&F on DAVIS 2017 test-dev: compare differences, "
        "not levels."
    )


def _difference(difference: Interval | None) -> str:
    if difference is None:
        return "reference"
    mean, low, high = (
        f"{100 * v:+.1f}" for v in (difference.mean, difference.low, difference.high)
    )
    if not difference.known:
        return f"{mean} (too few sequences)"
    return f"{mean} ({low} to {high})" + (" tie" if difference.tie else "")


def _range(interval: Interval) -> str:
    if not interval.known:
        return "too few sequences"
    return f"{_percent(interval.low)} to {_percent(interval.high)}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *body))
