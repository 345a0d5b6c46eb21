"""Section 4.3: pictures of what the memory held, from what `stremn segment` left on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from stremn.data.readers.folders import distinct
from stremn.media.frames import Picture
from stremn.media.video import open_frames
from stremn.study.figures import INK, Tile, colors, draw_tiles, drawing, head
from stremn.study.memory_log import AgeHistogram, SlotHistory, age_histogram, read_histories
from stremn.study.tiles import evenly, small
from stremn.study.time_line import draw_time_line

FrameOf = Callable[[int], Picture | None]
"""Returns a frame of a video by its index, None if there is no such frame."""


def analyze_memory(sources: Sequence[Path], out: Path) -> list[Path]:
    """Draw what the memory did in runs of `stremn segment`.

    The time line of every object and the histogram of ages need `memory.json` alone; the retained
    frames and the strip are cut from the `overlay.mp4` beside it, if there is one.

    Args:
        sources: output folders, or `memory.json` files; with several the ages are compared.
        out: folder for the pictures.

    Raises:
        StremnError: no record of a memory, or no template old enough to count.
    """
    runs = [read_histories(source) for source in sources]
    if len({_name(histories[0]) for histories in runs}) < len(runs):  # two rules, one video
        names = distinct([_folder(source) for source in sources])
        runs = [
            [replace(h, video=name.replace("/", "-")) for h in histories]
            for name, histories in zip(names, runs, strict=True)
        ]
    drawn = []
    for source, histories in zip(sources, runs, strict=True):
        video = _folder(source) / "overlay.mp4"
        drawn += [draw_history(history, out) for history in histories]
        if video.is_file():
            drawn += _pictures_of_video(histories, video, out)
    labels = _labels([histories[0] for histories in runs])
    counted = histograms(list(zip(labels, runs, strict=True)))
    if counted:
        drawn.append(draw_ages(counted, out / "ages.png", "How old are the kept frames?"))
    return drawn


def _folder(source: Path) -> Path:
    return source if source.is_dir() else source.parent


def _labels(histories: Sequence[SlotHistory]) -> list[str]:
    """Name runs by their number of slots, and by their video where that is not enough."""
    labels = [f"{h.slots} slots" for h in histories]
    if len(set(labels)) == len(labels):
        return labels
    return [f"{h.video}, {h.slots} slots" for h in histories]


def histograms(runs: Sequence[tuple[str, Sequence[SlotHistory]]]) -> list[AgeHistogram]:
    """Count the ages of each run that has any; two slots never do."""
    able = [(label, histories) for label, histories in runs if any(h.slots > 2 for h in histories)]
    return [age_histogram(label, histories) for label, histories in able]


def draw_history(history: SlotHistory, out: Path) -> Path:
    """Draw the time line of what the slots of one object held."""
    return draw_time_line(history, out / f"timeline-{_name(history)}.png")


def _name(history: SlotHistory) -> str:
    return f"{history.video}-object-{history.object_id}-{history.slots}-slots"


def _pictures_of_video(histories: Sequence[SlotHistory], video: Path, out: Path) -> list[Path]:
    """Draw retained frames and a strip from an overlay video."""
    frames = histories[0].frames
    shown = evenly(frames.tolist(), 10)
    wanted = {*shown, *(f for h in histories for f in _with_neighbors(h))}
    with open_frames(video) as source:
        found = {f.index: small(f.image) for f in source if f.index in wanted}
    tiles = [Tile(found.get(i), f"frame {i}") for i in shown]
    strip = draw_tiles(
        [tiles[:5], tiles[5:]],
        out / f"strip-{histories[0].video}.png",
        f"{histories[0].video}: what was segmented",
        "Frames evenly spaced over the video; the colored areas are the objects as found.",
    )
    return [strip, *(draw_retained(h, found.get, out) for h in histories)]


# Ages, Fig 5 -------------------------------------------------------------------------------------


def draw_ages(histograms: Sequence[AgeHistogram], path: Path, title: str) -> Path:
    """Draw Fig 5: the share of templates by their age, a line for each number of slots.

    Ages are gathered in bins that grow with the longest video, so that each bin holds enough. The
    share by chance hardly depends on the number of slots: one line shows the mean.
    """
    longest = max(len(h.shares) for h in histograms)
    width = max(1, round(longest / 40))
    with drawing((9, 4.6), path) as figure:
        axes = figure.subplots()
        for color, histogram in zip(colors(len(histograms)), histograms, strict=True):
            shares, edges = binned(histogram.shares, width, longest)
            label = f"{histogram.label} ({histogram.templates:,} templates)"
            axes.stairs(100 * shares, edges, color=color, lw=2, label=label)
        chances = [binned(h.chance, width, longest)[0] for h in histograms]
        mean = np.average(chances, axis=0, weights=[h.templates for h in histograms])
        edges = 2.0 + width * np.arange(len(mean) + 1)
        axes.stairs(100 * mean, edges, color=INK, lw=1.2, ls=(0, (2, 2)), label="kept at random")
        span = "" if width == 1 else f" (bins of {width} frames)"
        axes.set_xlabel(f"age of a template: frames before the query frame{span}")
        axes.set_ylabel("share of templates, percent")
        axes.set_xlim(2, longest)
        axes.set_ylim(bottom=0)
        axes.legend()
        head(
            figure,
            title,
            "How far back the memory looks. For every frame of every video, the age of each "
            "template it could read; the given first frame and the previous frame are not "
            "counted, as the memory always holds them. Dashed: the same for as many past frames "
            "drawn at random. Where a line is above the dashed one, the rule prefers that age.",
        )
    return path


def binned(
    shares: Float[np.ndarray, " t"], width: int, longest: int
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " edges"]]:
    """Sum shares over bins of `width` ages, from age 2; return them with the bins' edges."""
    counts = -(-max(longest - 2, 1) // width)
    padded = np.zeros(counts * width)
    padded[: len(shares) - 2] = shares[2:]
    return padded.reshape(counts, width).sum(1), 2.0 + width * np.arange(counts + 1)


# Retained frames, Fig 6-7 ----------------------------------------------------------------------

NEIGHBORS = 5
"""Pictures in a row of the retained frames; the kept one is in the middle."""


def _stride(history: SlotHistory) -> int:
    """Return frames between neighbors: enough to see a change, the more the longer the video."""
    return int(np.clip(len(history.frames) // 25, 1, 10))


def _around(frame: int, stride: int) -> list[int]:
    reach = NEIGHBORS // 2
    return [frame + stride * n for n in range(-reach, reach + 1)]


def _with_neighbors(history: SlotHistory) -> list[int]:
    return [i for frame in history.retained() for i in _around(frame, _stride(history))]


def draw_retained(history: SlotHistory, frame_of: FrameOf, out: Path) -> Path:
    """Draw a row for each frame that is held at the end, between its neighbors in time."""
    kept = history.retained()
    rows = [
        [_neighbor(frame_of, index, frame) for index in _around(frame, _stride(history))]
        for frame in kept
    ]
    last = int(history.frames[-1])
    stride = _stride(history)
    apart = "consecutive frames" if stride == 1 else f"{stride} frames apart"
    return draw_tiles(
        rows,
        out / f"retained-{_name(history)}.png",
        f"{history.video}, object {history.object_id}: what {history.slots} slots hold after "
        f"frame {last}",
        f"A row for each frame that the memory still holds at the end (red), between its "
        f"neighbors in time ({apart}); in color, the objects as segmented. Frame {history.given} "
        f"came with the true mask, frame {max(kept)} is the newest. A useful memory holds moments "
        "at which the object looks different.",
        ["given" if f == history.given else "newest" if f == last else "kept" for f in kept],
    )


def _neighbor(frame_of: FrameOf, index: int, kept: int) -> Tile:
    picture = frame_of(index) if index >= 0 else None
    caption = "" if picture is None else f"frame {index}"
    return Tile(picture, caption, marked=index == kept)
