"""The report of frame predictors on a data set: tables, curves, pictures and all numbers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch

from stremn.core.atomic_files import output_folder, replacing
from stremn.core.checkpoints import write_tensors
from stremn.core.hardware import pick_device
from stremn.data.readers.folders import distinct
from stremn.data.readers.frame_clips import Split
from stremn.data.readers.prediction_sets import ClipsSection, open_clips
from stremn.errors import StremnError
from stremn.evaluation.intervals import Interval
from stremn.evaluation.plotting import require_matplotlib
from stremn.evaluation.prediction.evaluation import (
    PredictionScores,
    as_predict,
    check_counts,
    over_origins,
    score,
)
from stremn.evaluation.prediction.metrics import METRICS, Metric, lpips_metrics
from stremn.evaluation.unfinished import telling_what_is_kept
from stremn.media.files import make_folder, write_whole
from stremn.moved import earlier_arguments
from stremn.prediction.baselines import TRIVIAL, Predict
from stremn.prediction.weights import SHIPPED, load_memory_predictor, load_predictor


@earlier_arguments(rules="policies")
def evaluate_prediction(
    data: ClipsSection,
    predictors: Sequence[str],
    *,
    observed: int = 10,
    future: int = 10,
    split: Split = "test",
    policies: Sequence[str] = (),
    clips: int = 1000,
    lpips: bool = False,
    against: str | None = None,
    device: str = "auto",
    out: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> str:
    """Score predictors on a data set: body of `stremn evaluate prediction`; returns the table.

    The trivial baselines are always scored. Weights with a space-time memory are scored once more
    under each of `policies`, with as many memory slots.

    Args:
        data: which clips, and where.
        predictors: files of weights, or names of shipped ones.
        observed: frames given.
        future: frames predicted and scored.
        split: which part of the data.
        policies: names of replacement rules, or "growing", to score the same weights under.
        clips: maximum number of clips, evenly spaced over all.
        lpips: add LPIPS (see `lpips_metrics`).
        against: name of a row; adds every other row's paired difference to it, frame by frame.
        device: where predictors compute; metrics are computed on the CPU.
        out: folder for the files of `write_report`, rewritten after every predictor; at the end
            also for the paired differences, in `table.md`, and curves as pictures.
        progress: called with (predictor, clips done, clips in all).

    Raises:
        StremnError: nothing can be scored so: numbers below 1, unknown weights, policies or data.
        MissingExtraError: `out` is given, and matplotlib is not installed.
    """
    check_counts(observed=observed, future=future, clips=clips)
    if against is not None and against not in TRIVIAL:
        raise StremnError(f"Compare with one of {', '.join(TRIVIAL)}; got {against!r}.")
    if out is not None:
        require_matplotlib()
    where = pick_device(device)
    source = open_clips(data, split, observed=observed, future=future, length=clips)
    metrics = [*METRICS.values(), *(lpips_metrics().values() if lpips else ())]
    # All weights are loaded before anything takes long.
    to_score = list(_rows(predictors, policies, where))
    facts = {
        "data": data.model_dump(mode="json"),
        "split": split,
        "observed": observed,
        "future": future,
        "clips": min(clips, len(source)),
        "clips_in_all": len(source),
        "predictors": list(predictors),
        "policies": list(policies),
    }
    rows: list[PredictionScores] = []
    with (
        output_folder(out) if out is not None else nullcontext(),
        telling_what_is_kept(lambda: _kept(rows, out)),
    ):
        for name, parameters, predict in to_score:
            told = None if progress is None else partial(progress, name)
            row = score(
                name,
                predict,
                source,
                observed,
                future,
                metrics,
                parameters=parameters,
                batch=1 if data.own_size else 32,  # clips of their own size differ
                limit=clips,
                progress=told,
            )
            if out is not None:
                write_report([*rows, row], out, metrics, facts=facts)
            rows.append(row)
        text = table(rows, metrics)
        if against is not None:
            text += f"\n\n{paired_table(rows, against, metrics)}"
        if out is not None:
            write_whole(out / "table.md", f"{text}\n".encode())
            for name in ("mse", "ssim"):
                plot_curves(rows, METRICS[name], out / f"{name}.png", observed=observed)
    return text


def _kept(rows: Sequence[PredictionScores], out: Path | None) -> str:
    if out is None or not rows:
        return ""
    return f"The scores of {', '.join(row.name for row in rows)} are in {out}."


def _rows(
    predictors: Sequence[str], policies: Sequence[str], device: torch.device
) -> Iterator[tuple[str, int, Predict]]:
    """Name, parameters and function of every row of the table."""
    for name, predict in TRIVIAL.items():
        yield name, 0, predict
    predictors = list(dict.fromkeys(predictors))
    names = distinct([Path(source).with_suffix("") for source in predictors], at_least=2)
    for source, short in zip(predictors, names, strict=True):
        name = source if source in SHIPPED else short
        model = load_predictor(source).to(device)
        parameters = sum(p.numel() for p in model.parameters())
        yield f"{name} ({model.config.kind})", parameters, as_predict(model, device)
        if model.config.kind != "stremn":
            continue
        network = load_memory_predictor(source).to(device)
        for policy in policies:
            yield f"{name}, rule {policy}", parameters, as_predict(network.under(policy), device)


# ----------------------------------------------------------------------------------------- tables


def paired_table(rows: Sequence[PredictionScores], against: str, metrics: Sequence[Metric]) -> str:
    """Make one Markdown table per metric: each predictor minus `against`, frame by frame, paired.

    Raises:
        StremnError: no row has that name.
    """
    other = next((row for row in rows if row.name == against), None)
    if other is None:
        names = ", ".join(row.name for row in rows)
        raise StremnError(f"There is no predictor {against!r} to compare with; there are: {names}.")
    parts = []
    for metric in metrics:
        frames = other.values[metric.name].shape[1]
        head = [f"| {metric.name}, minus {against} | " + " | ".join(map(str, range(1, frames + 1)))]
        lines = [head[0] + " |", "|---|" + "---:|" * frames]
        for row in rows:
            if row is not other:
                gaps = (row.values[metric.name] - other.values[metric.name]).T
                cells = [_cell(over_origins(gap, row.origins)) for gap in gaps]
                lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def table(
    rows: Sequence[PredictionScores], metrics: Sequence[Metric] = tuple(METRICS.values())
) -> str:
    """Format a Markdown table: mean and 95 % interval over clips, conventions below it."""
    names = [metric.name for metric in metrics]
    arrows = {
        m.name: "higher is better" if m.higher_is_better else "lower is better" for m in metrics
    }
    lines = [
        "| predictor | parameters | " + " | ".join(names) + " |",
        "|---|---:|" + "---:|" * len(names),
    ]
    for row in rows:
        cells = [_cell(row.interval(name)) for name in names]
        lines.append(f"| {row.name} | {row.parameters:,} | " + " | ".join(cells) + " |")
    clips, frames = rows[0].values[names[0]].shape
    total, origins = rows[0].total, len(set(rows[0].origins))
    of_all = "" if clips == total else f" of {total}, evenly spaced,"
    samples = "clips" if origins == clips else f"the {origins} people or videos they come from"
    lines.append("")
    known = rows[0].interval(names[0]).known
    brackets = "in brackets" if known else "too few for"
    lines.append(
        f"Mean over {clips} clips{of_all} and {frames} predicted frames; {brackets} the 95 % "
        f"bootstrap interval over {samples}."
    )
    lines.extend(f"- {m.name}: {m.convention}; {arrows[m.name]}" for m in metrics)
    return "\n".join(lines)


def _cell(interval: Interval) -> str:
    if not interval.known:
        return f"{interval.mean:.4g}"
    return f"{interval.mean:.4g} [{interval.low:.4g}, {interval.high:.4g}]"


def write_report(
    rows: Sequence[PredictionScores],
    out: Path,
    metrics: Sequence[Metric] = tuple(METRICS.values()),
    *,
    facts: Mapping[str, object] | None = None,
) -> None:
    """Write a report into the folder `out`.

    `table.md`, `curves.csv` (one row per frame), `clips.safetensors` (every number), `facts.json`.
    """
    make_folder(out)
    write_whole(out / "table.md", f"{table(rows, metrics)}\n".encode())
    curves = io.StringIO(newline="")
    writer = csv.writer(curves)
    writer.writerow(["predictor", "metric", "frame", "mean"])
    for row in rows:
        for metric in metrics:
            for frame, value in enumerate(row.curve(metric.name), start=1):
                writer.writerow([row.name, metric.name, frame, f"{value:.6g}"])
    write_whole(out / "curves.csv", curves.getvalue().encode())
    numbers = {
        f"{row.name}/{metric.name}": torch.from_numpy(row.values[metric.name].astype(np.float32))
        for row in rows
        for metric in metrics
    }
    write_tensors(out / "clips.safetensors", numbers, {})
    text = json.dumps(dict(facts or {}), indent=1) + "\n"
    write_whole(out / "facts.json", text.encode())


def plot_curves(
    rows: Sequence[PredictionScores], metric: Metric, path: Path, *, observed: int, title: str = ""
) -> None:
    """Draw a metric against the predicted frame, one line per predictor.

    Around it lies the 95 % band of the intervals in tables, where there are clips enough for it.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        values = row.values[metric.name]
        intervals = [over_origins(column, row.origins) for column in values.T]
        x = np.arange(observed + 1, observed + 1 + values.shape[1])
        line = axes.plot(x, row.curve(metric.name), marker=".", label=row.name)[0]
        if not all(i.known for i in intervals):
            continue
        axes.fill_between(
            x,
            [i.low for i in intervals],
            [i.high for i in intervals],
            color=line.get_color(),
            alpha=0.15,
            linewidth=0,
        )
    axes.set(xlabel="frame", ylabel=f"{metric.name} ({metric.convention})", title=title)
    axes.yaxis.label.set_fontsize(8)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    make_folder(path.parent)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
