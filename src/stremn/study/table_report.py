"""Tables for people and for programs: intervals, differences from a reference row, Markdown, JSON.

A table gives means with bootstrap intervals over sequences and the paired difference of every row
from a reference row; a difference whose interval holds zero is called a tie.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stremn.evaluation.intervals import Interval, mean_interval
from stremn.evaluation.segmentation.records import save_json
from stremn.media.files import make_folder, write_whole
from stremn.study.tables import CURVE_STEP, Clip, Measured, Table

_ABSENT = "-"
"""Cell of a table without a value."""

# Comparing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """Means of a row with intervals, and its paired difference from the reference row."""

    j: Interval
    f: Interval
    j_and_f: Interval
    difference: Interval | None


@dataclass(frozen=True)
class _Sources:
    """J and F of each source sequence: means over the objects of its clips."""

    j: dict[str, float]
    f: dict[str, float]
    objects: dict[str, int]

    @classmethod
    def of(cls, measured: Measured, names: Iterable[str]) -> _Sources:
        """Collect the named clips."""
        clips: dict[str, list[Clip]] = {}
        for name in sorted(names):
            clips.setdefault(measured.clips[name].source, []).append(measured.clips[name])
        counts = {source: [c.objects for c in of] for source, of in clips.items()}
        j, f = (
            {
                source: float(np.average([getattr(c, kind) for c in of], weights=counts[source]))
                for source, of in clips.items()
            }
            for kind in ("j", "f")
        )
        return cls(j, f, {source: sum(of) for source, of in counts.items()})

    def interval(self, values: Sequence[float]) -> Interval:
        """Return the mean of values of the sources, with its interval."""
        return mean_interval(np.array(values), np.array(list(self.objects.values())))

    @property
    def j_and_f(self) -> list[float]:
        """J&F of each source."""
        return [(self.j[source] + self.f[source]) / 2 for source in self.j]


def compare(measured: Measured, reference: Measured) -> Compared | None:
    """Compute intervals over source sequences, and the difference of J&F from the reference.

    The difference is over the clips that both finished: None if there are none, and for the
    reference itself. A row without a finished clip has no intervals: None.
    """
    if not measured.clips:
        return None
    own = _Sources.of(measured, measured.clips)
    both = measured.clips.keys() & reference.clips.keys()
    difference = None
    if measured.row != reference.row and both:
        ours, theirs = _Sources.of(measured, both), _Sources.of(reference, both)
        change = [a - b for a, b in zip(ours.j_and_f, theirs.j_and_f, strict=True)]
        difference = ours.interval(change)
    return Compared(
        own.interval(list(own.j.values())),
        own.interval(list(own.f.values())),
        own.interval(own.j_and_f),
        difference,
    )


def _reference_of(table: Table, suite: str) -> Measured:
    return next(m for m in table.suites[suite] if m.row.label == table.reference)


# Writing --------------------------------------------------------------------------------------


def write_table(table: Table, out: Path, name: str) -> tuple[Path, Path]:
    """Write ``out/<name>.md`` and ``out/<name>.json``; returns both paths."""
    make_folder(out)
    markdown, data = out / f"{name}.md", out / f"{name}.json"
    save_json(data, to_json(table))
    write_whole(markdown, to_markdown(table).encode())
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


def _row_json(measured: Measured, compared: Compared | None) -> dict[str, Any]:
    difference = None if compared is None else compared.difference
    sources = _Sources.of(measured, measured.clips)
    return {
        **asdict(measured.row),
        "J": None if compared is None else asdict(compared.j),
        "F": None if compared is None else asdict(compared.f),
        "J&F": None if compared is None else asdict(compared.j_and_f),
        "minus_reference": None
        if difference is None
        else {**asdict(difference), "tie": difference.tie},
        "repetitions": dict(measured.repetitions),
        "std_of_repetitions": _spread(measured),
        "conditions": measured.conditions,
        "curve": list(measured.curve),
        "sequences": {name: {"J": sources.j[name], "F": sources.f[name]} for name in sources.j},
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
    head = ["", "J", "F", "J&F", "95 %", f"J&F minus {table.reference}", "std", "paper"]
    body = [[m.row.label, *_cells(m, reference)] for m in rows]
    lines = [f"## {suite}\n", _protocol_line(table.protocol[suite], rows), ""]
    lines.append(_grid(head, body))
    conditions = list(dict.fromkeys(name for m in rows for name in m.conditions))
    if conditions:
        cells = [[m.row.label, *(_percent(m.conditions.get(c)) for c in conditions)] for m in rows]
        lines += ["\nJ after the return:\n", _grid(["", *conditions], cells)]
    length = max(len(m.curve) for m in rows)
    if length:
        steps = [f"{n * CURVE_STEP}-{(n + 1) * CURVE_STEP - 1}" for n in range(length)]
        padded = [[*m.curve, *[None] * (length - len(m.curve))] for m in rows]
        cells = [
            [m.row.label, *(_percent(p) for p in curve)]
            for m, curve in zip(rows, padded, strict=True)
        ]
        lines += ["\nJ of each hundred frames:\n", _grid(["", *steps], cells)]
    failed = sorted({name for m in rows for name in m.failed})
    if failed:
        lines.append(f"\nFailed and left out: {', '.join(failed)}.")
    return "\n".join(lines) + "\n"


def _cells(measured: Measured, reference: Measured) -> list[str]:
    """Format a row's scores; one without a finished sequence has failed."""
    compared = compare(measured, reference)
    paper = "" if measured.row.paper is None else f"{measured.row.paper:.1f}"
    if compared is None:
        return ["failed", *[_ABSENT] * 5, paper]
    is_reference = measured.row == reference.row
    return [
        _percent(compared.j.mean),
        _percent(compared.f.mean),
        _percent(compared.j_and_f.mean),
        _range(compared.j_and_f),
        "reference" if is_reference else _difference(compared.difference),
        "" if (std := _spread(measured)) is None else _percent(std),
        paper,
    ]


def _protocol_line(protocol: Mapping[str, Any], rows: Sequence[Measured]) -> str:
    repetitions = max(len(m.repetitions) for m in rows)
    sequences = len({clip.source for m in rows for clip in m.clips.values()})
    told = {name: _session(session) for name, session in protocol["sessions"].items()}
    same = len(set(told.values())) == 1
    sessions = (
        next(iter(told.values())) if same else "; ".join(f"{n}: {t}" for n, t in told.items())
    )
    return (
        f"{protocol['data']} {protocol['split']}, {sequences} sequences, shown: "
        f"{protocol['frames_shown']}, scored: {protocol['frames_scored']}, "
        f"{sessions}, up to {repetitions} repetitions; "
        "without post-processing. "
        "Intervals are bootstrap percentiles over sequences; a difference whose interval holds "
        "zero is a tie. The paper's numbers are J&F on DAVIS 2017 test-dev: compare differences, "
        "not levels."
    )


def _session(session: Mapping[str, Any]) -> str:
    """Describe the settings that all rows of a table share."""
    reach, every = session["reach"], session["every"]
    memorized = "every frame" if every == 1 else f"one frame in {every}"
    within = "" if reach is None else f", far regions not memorized (reach {reach:g})"
    return f"{session['size']} px, {session['precision']}, {memorized} memorized{within}"


def _difference(difference: Interval | None) -> str:
    if difference is None:
        return _ABSENT
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


def _percent(value: float | None) -> str:
    return _ABSENT if value is None else f"{100 * value:.1f}"


def _grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *body))
