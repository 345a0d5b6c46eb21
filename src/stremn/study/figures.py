"""Pictures of what the memory did and what was scored, drawn for people who do not read code.

Every function draws one picture into a file and returns its path. matplotlib comes with the extra
`study`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from stremn.errors import MissingExtraError
from stremn.media.files import make_folder, writing
from stremn.media.frames import Picture
from stremn.memory import NEVER
from stremn.study.memory_log import AgeHistogram, SlotHistory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


INK, FAINT, PAPER = "#222222", "#8a8a8a", "#ffffff"
ACCENT, SECOND = "#c8452c", "#2b6ca3"
COLORS = ("#2b6ca3", "#c8452c", "#3f8f4f", "#8656a8", "#b5851d", "#3a9a9a", "#7a7a7a", "#d06a9c")
TIME_COLORS = "viridis"
DPI = 130
MARKED = 400
"""Frames up to which the start of every template is marked: more marks would cover the colors."""

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
}


@contextmanager
def _drawing(size: tuple[float, float], path: Path) -> Iterator[Figure]:
    """Give an empty figure of `size` inches; write it to `path` afterwards."""
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise MissingExtraError("matplotlib", "study") from error
    with matplotlib.rc_context(_STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
        figure = Figure(figsize=size, dpi=DPI, layout=layout)
        FigureCanvasAgg(figure)
        yield figure
        make_folder(path.parent)
        with writing(path):
            figure.savefig(path)


def _head(figure: Figure, title: str, caption: str) -> None:
    """Put a title over the figure and a caption in plain words under it."""
    text = "\n".join(_lines(caption, figure.get_figwidth()))
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    # A caption under all axes is kept clear of them by the layout.
    figure.supxlabel(text, x=0.01, ha="left", fontsize=9, color="#555555")


def _lines(caption: str, width: float) -> list[str]:
    """Wrap a caption to a figure of `width` inches."""
    return textwrap.wrap(caption, int(width * 15))


# The memory -----------------------------------------------------------------------------------


def draw_ages(histograms: Sequence[AgeHistogram], path: Path, title: str) -> Path:
    """Draw Fig 5: the share of templates by their age, a line for each number of slots.

    Ages are gathered in bins that grow with the longest video, so that each bin holds enough. The
    share by chance hardly depends on the number of slots: one line shows the mean.
    """
    longest = max(len(h.shares) for h in histograms)
    width = max(1, round(longest / 40))
    with _drawing((9, 4.6), path) as figure:
        axes = figure.subplots()
        for color, histogram in zip(_colors(len(histograms)), histograms, strict=True):
            shares, edges = _binned(histogram.shares, width, longest)
            label = f"{histogram.label} ({histogram.templates:,} templates)"
            axes.stairs(100 * shares, edges, color=color, lw=2, label=label)
        chances = [_binned(h.chance, width, longest)[0] for h in histograms]
        mean = np.average(chances, axis=0, weights=[h.templates for h in histograms])
        edges = 2.0 + width * np.arange(len(mean) + 1)
        axes.stairs(100 * mean, edges, color=INK, lw=1.2, ls=(0, (2, 2)), label="kept at random")
        span = "" if width == 1 else f" (bins of {width} frames)"
        axes.set_xlabel(f"age of a template: frames before the query frame{span}")
        axes.set_ylabel("share of templates, percent")
        axes.set_xlim(2, longest)
        axes.set_ylim(bottom=0)
        axes.legend()
        _head(
            figure,
            title,
            "How far back the memory looks. For every frame of every video, the age of each "
            "template it could read; the given first frame and the previous frame are not "
            "counted, as the memory always holds them. Dashed: the same for as many past frames "
            "drawn at random. Where a line is above the dashed one, the rule prefers that age.",
        )
    return path


def _binned(
    shares: Float[np.ndarray, " t"], width: int, longest: int
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " edges"]]:
    """Sum shares over bins of `width` ages, from age 2; return them with the bins' edges."""
    counts = -(-max(longest - 2, 1) // width)
    padded = np.zeros(counts * width)
    padded[: len(shares) - 2] = shares[2:]
    return padded.reshape(counts, width).sum(1), 2.0 + width * np.arange(counts + 1)


def _colors(count: int) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(count)]


def draw_time_line(history: SlotHistory, path: Path) -> Path:
    """Draw every slot over the video: which frame it held, when it was replaced, by what score."""
    height = 4.0 + 0.6 * history.slots
    with _drawing((11, height), path) as figure:
        panels = figure.subplots(3, 1, sharex=True, height_ratios=(1, 0.8, 0.5))
        _draw_slots(figure, panels[0], history)
        _draw_distances(figure, panels[1], history)
        _draw_scores(panels[2], history)
        kept = ", ".join(map(str, history.retained()))
        _head(
            figure,
            f"{history.video}, object {history.object_id}: the memory's {history.slots} slots "
            f"over {len(history.frames)} frames",
            "Top: a row for each slot, colored by the frame it holds (dark: early, bright: late); "
            "a long bar is a frame that was kept, a white line the start of a new template. "
            f"At the end the memory holds frames {kept}. Middle: how close each slot was to being "
            "replaced; the red dot is the slot that gave way, the darkest slot was the safest, a "
            "gray one was not open to the rule. Bottom: the rule's score of the slot that gave way "
            "(red), which is always the highest, and of the runner-up (blue).",
        )
    return path


def _draw_slots(figure: Figure, axes: Axes, history: SlotHistory) -> None:
    frames = history.frames
    held = np.ma.masked_equal(history.held.T, NEVER)
    image = _slot_map(axes, history, held, TIME_COLORS)
    for slot in range(history.slots):
        stays = list(_stays(history, slot))
        if len(frames) <= MARKED:
            starts = [first - 0.5 for first, _, _ in stays if first > frames[0]]
            axes.vlines(starts, slot - 0.4, slot + 0.4, color=PAPER, lw=0.6)
        for first, last, frame in stays:
            if last - first >= 0.035 * (frames[-1] - frames[0]):
                share = (frame - frames[0]) / max(1, frames[-1] - frames[0])
                ink = INK if share > 0.6 else PAPER
                center = (first + last) / 2
                axes.text(center, slot, str(frame), ha="center", va="center", color=ink)
    for line in range(1, history.slots):
        axes.axhline(line - 0.5, color=PAPER, lw=3)
    axes.set_title("Frame in each slot")
    figure.colorbar(image, ax=axes, label="frame held", pad=0.01, aspect=12)


def _slot_map(axes: Axes, history: SlotHistory, values: np.ndarray, colors: str) -> AxesImage:
    """Draw a number "k t" for every slot and frame as a color."""
    frames = history.frames
    image = axes.imshow(
        values,
        aspect="auto",
        cmap=colors,
        extent=(frames[0] - 0.5, frames[-1] + 0.5, history.slots - 0.5, -0.5),
        interpolation="nearest",
    )
    axes.set_yticks(range(history.slots))
    axes.set_ylabel("slot")
    axes.tick_params(length=0)
    return image


def _stays(history: SlotHistory, slot: int) -> Iterator[tuple[int, int, int]]:
    """Yield (first frame, last frame, frame held) of each template that lived in a slot."""
    held = history.held[:, slot]
    borders = [0, *(np.flatnonzero(np.diff(held)) + 1).tolist(), len(held)]
    for begin, end in pairwise(borders):
        if held[begin] != NEVER:
            yield int(history.frames[begin]), int(history.frames[end - 1]), int(held[begin])


def _draw_distances(figure: Figure, axes: Axes, history: SlotHistory) -> None:
    rows = history.evictions()
    distance = np.full(history.scores.T.shape, np.nan)
    for row in rows:
        distance[:, row] = np.abs(history.scores[row] - history.scores[row, history.written[row]])
    axes.set_facecolor("#eeeeee")
    image = _slot_map(axes, history, np.ma.masked_invalid(distance), "Blues")
    image.set_clim(0, max(1e-6, float(np.nanmax(distance, initial=0))))
    size = float(np.clip(900 / max(1, len(history.frames)), 2, 18))
    axes.scatter(history.frames[rows], history.written[rows], s=size, color=ACCENT, lw=0)
    axes.set_title("Which slot gave way, and how far the others were from it")
    figure.colorbar(image, ax=axes, label="distance", pad=0.01, aspect=10)


def _draw_scores(axes: Axes, history: SlotHistory) -> None:
    rows = history.evictions()
    axes.set_title("Score of the slot that gave way, and of the runner-up")
    axes.set_xlabel("frame of the video")
    axes.set_ylabel("score")
    if not len(rows):
        axes.text(0.5, 0.5, "no template had to give way", transform=axes.transAxes, ha="center")
        return
    ranked = np.sort(np.nan_to_num(history.scores[rows], nan=-np.inf), axis=1)
    if history.slots > 1:
        second = np.where(np.isinf(ranked[:, -2]), np.nan, ranked[:, -2])
        axes.plot(history.frames[rows], second, color=SECOND, lw=1.2)
    axes.plot(history.frames[rows], ranked[:, -1], color=ACCENT, lw=1.6)


@dataclass(frozen=True)
class Tile:
    """A frame in a grid of pictures; `marked` ones get a frame, `picture` None leaves a gap."""

    picture: Picture | None
    caption: str
    marked: bool = False


def draw_tiles(
    rows: Sequence[Sequence[Tile]],
    path: Path,
    title: str,
    caption: str,
    labels: Sequence[str] = (),
) -> Path:
    """Draw rows of pictures with a caption under each, and a label left of each row.

    Args:
        rows: pictures, row by row; all of about one shape.
        path: file to write.
        title: heading.
        caption: explanation in plain words.
        labels: a label for each row; none if empty.
    """
    columns = max(len(row) for row in rows)
    shape = next(t.picture.shape for row in rows for t in row if t.picture is not None)
    wide = min(3.2, max(1.5, 13.0 / columns))
    width = columns * wide + (0.45 if labels else 0.05)
    tall = (wide - 0.16) * shape[0] / shape[1] + 0.4
    head = 0.55 + 0.16 * len(_lines(caption, width))
    with _drawing((width, len(rows) * tall + head), path) as figure:
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for place, row in enumerate(rows):
            for column in range(columns):
                axes = grid[place][column]
                _blank(axes)
                if column < len(row):
                    _draw_tile(axes, row[column])
            if labels:
                grid[place][0].set_ylabel(labels[place], fontsize=10)
        _head(figure, title, caption)
    return path


def _blank(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_tile(axes: Axes, tile: Tile) -> None:
    if tile.picture is None:
        return
    axes.imshow(tile.picture, interpolation="antialiased")
    weight = "bold" if tile.marked else "normal"
    axes.set_xlabel(tile.caption, fontsize=9, labelpad=3, fontweight=weight)
    if tile.marked:
        for spine in axes.spines.values():
            spine.set(visible=True, color=ACCENT, linewidth=2.5)


# Scores ---------------------------------------------------------------------------------------


def draw_bars(
    scores: Mapping[str, tuple[float, float]], path: Path, title: str, caption: str
) -> Path:
    """Draw mean J and F of each sequence, the best at the top; scores in [0, 1]."""
    names = sorted(scores, key=lambda name: sum(scores[name]))
    places = np.arange(len(names))
    with _drawing((8.5, 1.9 + 0.42 * len(names)), path) as figure:
        axes = figure.subplots()
        j, f = (np.array([100 * scores[name][i] for name in names]) for i in (0, 1))
        for values, offset, color, label in (
            (j, 0.19, SECOND, "J, overlap of the area"),
            (f, -0.19, "#9dbfd9", "F, match of the outline"),
        ):
            axes.barh(places + offset, values, 0.38, color=color, label=label)
            for place, value in zip(places, values, strict=True):
                axes.text(value + 0.8, place + offset, f"{value:.1f}", va="center", fontsize=8)
        axes.set_yticks(places, names)
        axes.set_xlim(0, 105)
        axes.set_xlabel("percent (100 is perfect)")
        axes.tick_params(axis="y", length=0)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
        _head(figure, title, caption)
    return path


def draw_score_lines(
    lines: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    path: Path,
    title: str,
    caption: str,
) -> Path:
    """Draw J over the frames of each sequence in a panel of its own; J in [0, 1]."""
    columns = min(4, len(lines))
    rows = -(-len(lines) // columns)
    with _drawing((2.9 * columns + 0.6, 1.9 * rows + 1.2), path) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for axes, (name, (frames, values)) in zip(grid, lines.items(), strict=False):
            percent = 100 * np.asarray(values)
            axes.fill_between(frames, percent, color=SECOND, alpha=0.15, lw=0)
            axes.plot(frames, percent, color=SECOND, lw=1.5)
            axes.set_title(f"{name}  {percent.mean():.1f}", fontsize=10)
            axes.set_ylim(0, 100)
            axes.margins(x=0)
        for axes in grid[len(lines) :]:
            axes.set_visible(False)
        for axes in grid[::columns]:
            axes.set_ylabel("J, percent")
        for axes in grid[max(0, len(lines) - columns) : len(lines)]:
            axes.set_xlabel("frame")
        _head(figure, title, caption)
    return path


# Training -------------------------------------------------------------------------------------

Curve = tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]
"""Steps and values."""


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


def draw_training(
    panels: Sequence[Panel], path: Path, title: str, caption: str, along: str = "training step"
) -> Path:
    """Draw learning curves; `along` says what their steps are."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with _drawing((5.6 * columns, 2.9 * rows + 1.0), path) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
        for axes, panel in zip(grid, panels, strict=False):
            _draw_panel(axes, panel)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes in grid[max(0, len(panels) - columns) : len(panels)]:
            axes.set_xlabel(along)
            axes.tick_params(labelbottom=True)
        _head(figure, title, caption)
    return path


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for color, (name, (steps, values)) in zip(
        _colors(len(panel.curves)), panel.curves.items(), strict=True
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
