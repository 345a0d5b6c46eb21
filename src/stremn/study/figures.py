"""Common style of all figures, and grids of pictures.

A function `draw_...` draws one figure into a file and returns its path. matplotlib comes with the
extra `study`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stremn.core.atomic_files import replacing
from stremn.errors import MissingExtraError, StremnError
from stremn.media.files import make_folder
from stremn.media.frames import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, BACKGROUND = "#222222", "#8a8a8a", "#ffffff"
ACCENT, SECOND = "#c8452c", "#2b6ca3"
COLORS = ("#2b6ca3", "#c8452c", "#3f8f4f", "#8656a8", "#b5851d", "#3a9a9a", "#7a7a7a", "#d06a9c")
DPI = 130

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
    "figure.facecolor": BACKGROUND,
}


@contextmanager
def drawing(size: tuple[float, float], path: Path) -> Iterator[Figure]:
    """Yield an empty figure of `size` inches, and write it to `path` afterwards."""
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
        with replacing(path) as temporary:
            figure.savefig(temporary)


def head(figure: Figure, title: str, caption: str) -> None:
    """Put a title over the figure and a caption in plain words under it."""
    text = "\n".join(_lines(caption, figure.get_figwidth()))
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    # A caption under all axes is kept clear of them by the layout.
    figure.supxlabel(text, x=0.01, ha="left", fontsize=9, color="#555555")


def _lines(caption: str, width: float) -> list[str]:
    """Wrap a caption to a figure of `width` inches."""
    return textwrap.wrap(caption, int(width * 14))


def colors(count: int) -> list[str]:
    """Return a color for each of `count` lines; they repeat after eight."""
    return [COLORS[i % len(COLORS)] for i in range(count)]


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

    Raises:
        StremnError: no tile has a picture.
    """
    columns = max((len(row) for row in rows), default=0)
    shapes = (t.picture.shape for row in rows for t in row if t.picture is not None)
    shape = next(shapes, None)
    if shape is None:
        raise StremnError(
            f"There is nothing to draw in {path}: expected at least one frame with a picture, got "
            "none. Check that the pictures are of the video that was segmented."
        )
    wide = min(3.2, max(1.5, 13.0 / columns))
    width = columns * wide + (0.45 if labels else 0.05)
    tall = (wide - 0.16) * shape[0] / shape[1] + 0.4
    above = 0.55 + 0.16 * len(_lines(caption, width))
    with drawing((width, len(rows) * tall + above), path) as figure:
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for place, row in enumerate(rows):
            for column in range(columns):
                axes = grid[place][column]
                _blank(axes)
                if column < len(row):
                    _draw_tile(axes, row[column])
            if labels:
                grid[place][0].set_ylabel(labels[place], fontsize=10)
        head(figure, title, caption)
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
