"""Draw the time line of a memory: the frame in each slot, evictions and scores."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

from stremn.memory.state import NEVER
from stremn.study.figures import ACCENT, BACKGROUND, INK, SECOND, drawing, head
from stremn.study.memory_log import SlotHistory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MARKED = 400
"""Frames up to which the start of every template is marked: more marks would cover the colors."""


def draw_time_line(history: SlotHistory, path: Path) -> Path:
    """Draw every slot over the video: which frame it held, when it was replaced, by what score."""
    height = 4.0 + 0.6 * history.slots
    with drawing((11, height), path) as figure:
        panels = figure.subplots(3, 1, sharex=True, height_ratios=(1, 0.8, 0.5))
        _draw_slots(figure, panels[0], history)
        _draw_distances(figure, panels[1], history)
        _draw_scores(panels[2], history)
        kept = ", ".join(map(str, history.retained()))
        head(
            figure,
            f"{history.video}, object {history.object_id}: the memory's {history.slots} slots "
            f"over {len(history.frames)} frames",
            "Top: a row for each slot, colored by the frame it holds (dark: early, bright: late); "
            "a long bar is a frame that was kept, a white line the start of a new template. "
            f"At the end the memory holds frames {kept}. Middle: how close each slot was to being "
            "replaced; the red dot is the evicted slot, the darkest slot was the safest, a "
            "gray one was not open to the rule. Bottom: the rule's score of the evicted slot "
            "(red), the highest unless the rule is a random one, and of the best other (blue)."
            f"{_left_out(history)}",
        )
    return path


def _left_out(history: SlotHistory) -> str:
    """Return a sentence about the frames that are not shown, if there are any."""
    if not history.backward:
        return ""
    return (
        f" The line begins at frame {history.given}, in which the object is given: the frames "
        "before it were segmented backward, with another memory, which is not shown."
    )


def _draw_slots(figure: Figure, axes: Axes, history: SlotHistory) -> None:
    frames = history.frames
    held = np.ma.masked_equal(history.held.T, NEVER)
    image = _slot_map(axes, history, held, "viridis")
    for slot in range(history.slots):
        stays = list(_stays(history, slot))
        if len(frames) <= MARKED:
            starts = [first - 0.5 for first, _, _ in stays if first > frames[0]]
            axes.vlines(starts, slot - 0.4, slot + 0.4, color=BACKGROUND, lw=0.6)
        for first, last, frame in stays:
            if last - first >= 0.035 * (frames[-1] - frames[0]):
                share = (frame - frames[0]) / max(1, frames[-1] - frames[0])
                ink = INK if share > 0.6 else BACKGROUND
                center = (first + last) / 2
                axes.text(center, slot, str(frame), ha="center", va="center", color=ink)
    for line in range(1, history.slots):
        axes.axhline(line - 0.5, color=BACKGROUND, lw=3)
    axes.set_title("Frame in each slot")
    figure.colorbar(image, ax=axes, label="frame held", pad=0.01, aspect=12)


def _slot_map(
    axes: Axes, history: SlotHistory, values: Shaped[np.ndarray, "k t"], colors: str
) -> AxesImage:
    """Draw a number for every slot and frame as a color."""
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
    axes.set_title("Evicted slot, and how far the others were from it")
    figure.colorbar(image, ax=axes, label="distance", pad=0.01, aspect=10)


def _draw_scores(axes: Axes, history: SlotHistory) -> None:
    rows = history.evictions()
    axes.set_title("Score of the evicted slot, and the best other score")
    axes.set_xlabel("frame of the video")
    axes.set_ylabel("score")
    if not len(rows):
        axes.text(0.5, 0.5, "nothing was evicted", transform=axes.transAxes, ha="center")
        return
    scores, gone = history.scores[rows], history.written[rows][:, None]
    if history.slots > 1:
        others = np.nan_to_num(scores, nan=-np.inf)
        np.put_along_axis(others, gone, -np.inf, axis=1)
        best = others.max(1)
        axes.plot(
            history.frames[rows], np.where(np.isinf(best), np.nan, best), color=SECOND, lw=1.2
        )
    given_up = np.take_along_axis(scores, gone, axis=1)[:, 0]
    axes.plot(history.frames[rows], given_up, color=ACCENT, lw=1.6)
