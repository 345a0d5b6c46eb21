"""Write the results of `benchmark` as tables and plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stremn.benchmarks.constancy import Flatness
from stremn.study.figures import SECOND, colors, drawing, head

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def markdown(results: dict[str, Any]) -> str:
    """Return the tables of a run."""
    machine = results["machine"]
    rates = ", ".join(f"{name} {x / 1e12:.2f} TFLOP/s" for name, x in machine["flops"].items())
    parts = [
        "# Speed\n",
        f"{machine['processor']}; {machine['threads']} threads; torch {machine['torch']}; "
        f"{machine['date']}. Measured in the same run: {rates}; "
        f"copy {machine['bandwidth'] / 1e9:.1f} GB/s. Precision {results['precision']}.\n",
    ]
    for name, stages in results.get("stages", {}).items():
        parts.append(f"## Stages of a step: {name}, one object, six full slots\n")
        parts.append(_table(STAGE_HEADER, [_stage_row(stage) for stage in stages]))
    for name, rows in results.get("sweeps", {}).items():
        parts.append(f"## Whole steps: {name}\n")
        parts.append(_table(SWEEP_HEADER, [_sweep_row(row) for row in rows]))
    if "growth" in results:
        parts.append("## Against the frame index (240p)\n")
        parts.append(_growth_table(results["growth"]))
    for name, rows in results.get("sam_steps", {}).items():
        parts.append(f"## Whole steps: {name}\n")
        parts.append(_table(SAM_STEP_HEADER, [_sam_step_row(row) for row in rows]))
    for name, rows in results.get("sam_growth", {}).items():
        parts.append(f"## {name}: this package's session, then transformers' own\n")
        parts.append(_table(SAM_GROWTH_HEADER, [_sam_growth_row(row) for row in rows]))
    if "pipeline" in results:
        parts.append("## Whole pipeline\n")
        parts += [
            f"Reading {_looks_at(row)}: model alone {row['model_fps']:.1f} frames/s; from video "
            f"file to masks and overlay {row['pipeline_fps']:.1f} frames/s: {row['share']:.0%}.\n"
            for row in results["pipeline"]
        ]
    if "flat" in results:
        parts.append(_flat_text(Flatness(**results["flat"])))
    if "compile" in results:
        parts.append("## torch.compile, query encoder\n")
        row = results["compile"]
        parts.append(_table(list(row), [[_number(x) for x in row.values()]]))
    return "\n".join(parts)


STAGE_HEADER = ["stage", "ms", "best", "GFLOP", "MB", "floor ms", "x floor", "note"]
SWEEP_HEADER = ["size", "objects", "K", "precision", "reads", "ms", "best", "frames/s", "memory MB"]


def _stage_row(stage: dict[str, Any]) -> list[str]:
    cost = stage["cost"]
    return [
        stage["name"],
        f"{stage['median']:.2f}",
        f"{stage['best']:.2f}",
        f"{cost['flops'] / 1e9:.2f}",
        f"{cost['bytes'] / 1e6:.1f}",
        f"{stage['floor']:.2f}",
        "-" if stage["ratio"] is None else f"{stage['ratio']:.1f}",
        stage["note"],
    ]


def _sweep_row(row: dict[str, Any]) -> list[str]:
    return [
        row["size"],
        str(row["objects"]),
        str(row["memory_slots"]),
        row["precision"],
        _looks_at(row),
        f"{row['ms']:.1f}",
        f"{row['best_ms']:.1f}",
        f"{1e3 / row['ms']:.1f}",
        f"{row['memory_bytes'] / 1e6:.1f}",
    ]


SAM_STEP_HEADER = ["objects", "K", "precision", "ms", "best", "frames/s", "memory MB"]
SAM_GROWTH_HEADER = ["session", "frame", "ms", "session MB", "process MB"]


def _sam_step_row(row: dict[str, Any]) -> list[str]:
    return [
        str(row["objects"]),
        str(row["memory_slots"]),
        row["precision"],
        f"{row['ms']:.1f}",
        f"{row['best_ms']:.1f}",
        f"{1e3 / row['ms']:.2f}",
        f"{row['memory_bytes'] / 1e6:.1f}",
    ]


def _sam_growth_row(row: dict[str, Any]) -> list[str]:
    return [
        row["session"],
        str(row["frame"]),
        f"{row['ms']:.1f}",
        f"{row['session_bytes'] / 1e6:.1f}",
        f"{row['process_bytes'] / 1e6:.1f}",
    ]


def _looks_at(row: dict[str, Any]) -> str:
    return "whole frames" if row["reach"] is None else f"within reach {row['reach']:g}"


def _growth_table(growth: dict[str, list[dict[str, float]]]) -> str:
    length = min(len(rows) for rows in growth.values())
    marks = sorted({0, length // 4, length // 2, 3 * length // 4, length - 1})
    header = ["frame"]
    for name in growth:
        header += [f"{name} ms", f"{name} MB", f"{name} GMAC (App. A)"]
    rows = []
    for i in marks:
        row = [str(next(iter(growth.values()))[i]["frame"])]
        for points in growth.values():
            near = sorted(p["ms"] for p in points[max(0, i - 4) : i + 5])
            row += [
                f"{near[len(near) // 2]:.1f}",
                f"{points[i]['memory_bytes'] / 1e6:.1f}",
                f"{points[i]['multiplications'] / 1e9:.2f}",
            ]
        rows.append(row)
    return _table(header, rows)


def _flat_text(flat: Flatness) -> str:
    hours = flat.frames / 25 / 3600
    first, last = flat.first_resident / 1e6, flat.last_resident / 1e6
    known = f"{first:.1f} and {last:.1f} MB ({flat.growth:+.2%})"
    resident = known if first else "not known on this system"
    return (
        f"## A long stream\n\n{flat.frames} frames of {flat.side} x {flat.side} pixels "
        f"({hours:.2f} hours at 25 frames/s): step time, median of the first and the last tenth, "
        f"{flat.first_ms:.2f} and {flat.last_ms:.2f} ms ({flat.slowdown:+.1%}); resident memory "
        f"{resident}; bytes of the memory state: {', '.join(map(str, flat.memory_bytes))}.\n"
    )


def _number(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


PLOTTED = ("growth", "flat")
"""Parts of a run that are drawn."""


def draw(results: dict[str, Any], out: Path) -> None:
    """Draw time and memory against the frame index, and the long stream, into `out`.

    Raises:
        MissingExtraError: matplotlib is missing.
    """
    if "growth" in results:
        _draw_growth(results["growth"], out / "growth.png")
    if "flat" in results:
        _draw_flat(Flatness(**results["flat"]), out / "flat.png")


def _draw_growth(growth: dict[str, list[dict[str, float]]], path: Path) -> None:
    with drawing((13, 4.0), path) as figure:
        panels = figure.subplots(1, 3)
        for axes, key, label, unit in (
            (panels[0], "ms", "step, ms", 1.0),
            (panels[1], "memory_bytes", "memory, MB", 1e6),
            (panels[2], "multiplications", "multiplications (App. A), billions", 1e9),
        ):
            for color, (name, rows) in zip(colors(len(growth)), growth.items(), strict=True):
                values = [row[key] / unit for row in rows]
                axes.plot([row["frame"] for row in rows], values, color=color, label=name)
            axes.set(xlabel="frame of the video", ylabel=label)
            _from_zero(axes)
        panels[0].legend(loc="lower left", title="memory")
        head(
            figure,
            "What a step costs against the length of the video",
            "One object, 240p. learned: six slots, as in the paper; growing: one more template in "
            "five frames, as in STM.",
        )


def _draw_flat(flat: Flatness, path: Path) -> None:
    with drawing((9, 3.8), path) as figure:
        panels = figure.subplots(1, 2)
        for axes, values, label in (
            (panels[0], flat.ms, "step, ms"),
            (panels[1], [x / 1e6 for x in flat.resident], "resident memory of the process, MB"),
        ):
            axes.plot(np.linspace(0, flat.frames, len(values)), values, color=SECOND)
            axes.set(xlabel="frame of the video", ylabel=label)
            _from_zero(axes)
        head(
            figure,
            f"A stream of {flat.frames:,} frames",
            f"Frames of {flat.side} x {flat.side} pixels, one object. Step times are medians of a "
            "hundredth of the stream.",
        )


def _from_zero(axes: Axes) -> None:
    """Show zero, and keep a line that is constant off the upper edge."""
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
