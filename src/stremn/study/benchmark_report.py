"""What `benchmark` measured, as a page of tables and as plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stremn.errors import MissingExtraError


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
    if "pipeline" in results:
        parts.append("## Whole pipeline\n")
        parts += [
            f"Reading {_looks_at(row)}: model alone {row['model_fps']:.1f} frames/s; from video "
            f"file to masks and overlay {row['pipeline_fps']:.1f} frames/s: {row['share']:.0%}.\n"
            for row in results["pipeline"]
        ]
    if "flat" in results:
        parts.append(_flat_text(results["flat"]))
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
        str(row["slots"]),
        row["precision"],
        _looks_at(row),
        f"{row['ms']:.1f}",
        f"{row['best_ms']:.1f}",
        f"{1e3 / row['ms']:.1f}",
        f"{row['memory_bytes'] / 1e6:.1f}",
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


def _flat_text(flat: dict[str, Any]) -> str:
    slower = flat["last_ms"] / flat["first_ms"] - 1
    larger = flat["last_resident"] / max(1, flat["first_resident"]) - 1
    hours = flat["frames"] / 25 / 3600
    return (
        f"## A long stream\n\n{flat['frames']} frames of {flat['side']} x {flat['side']} pixels "
        f"({hours:.2f} hours at 25 frames/s): step time, median of the first and the last tenth, "
        f"{flat['first_ms']:.2f} and {flat['last_ms']:.2f} ms ({slower:+.1%}); resident memory "
        f"{flat['first_resident'] / 1e6:.1f} and {flat['last_resident'] / 1e6:.1f} MB "
        f"({larger:+.2%}); bytes of the memory state: "
        f"{', '.join(map(str, flat['memory_bytes']))}.\n"
    )


def _number(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def draw(results: dict[str, Any], out: Path) -> None:
    """Draw time and memory against the frame index, and the long stream, into `out`.

    Raises:
        MissingExtraError: matplotlib is missing.
    """
    if not {"growth", "flat"} & set(results):
        return
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise MissingExtraError("matplotlib", "study") from error
    if "growth" in results:
        figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), constrained_layout=True)
        labels = ("ms", "memory_bytes", "multiplications")
        titles = ("Step (ms)", "Memory (MB)", "Appendix A: multiplications (G)")
        for axis, key, title, unit in zip(axes, labels, titles, (1, 1e6, 1e9), strict=True):
            for name, rows in results["growth"].items():
                axis.plot([r["frame"] for r in rows], [r[key] / unit for r in rows], label=name)
            axis.set(title=title, xlabel="frame", ylim=(0, None))
        axes[0].legend()
        figure.savefig(out / "growth.png", dpi=120)
        plt.close(figure)
    if "flat" in results:
        flat = results["flat"]
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), constrained_layout=True)
        for axis, values, title in (
            (axes[0], flat["ms"], "Step (ms)"),
            (axes[1], [x / 1e6 for x in flat["resident"]], "Resident memory (MB)"),
        ):
            place = [i * flat["frames"] / max(1, len(values) - 1) for i in range(len(values))]
            axis.plot(place, values)
            axis.set(title=title, xlabel="frame", ylim=(0, None))
        figure.savefig(out / "flat.png", dpi=120)
        plt.close(figure)
