"""Section 4.3: pictures of what the memory held, from what `stremn segment` left on disk."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from stremn.data.readers.folders import distinct
from stremn.media.frames import Picture
from stremn.media.video import open_frames
from stremn.study.figures import INK, Tile, colors, draw_tiles, drawing, head
from stremn.study.memory_log import (
    AgeHistogram,
    MemoryLog,
    SlotHistory,
    age_histogram,
    read_memory,
)
from stremn.study.overlay_frames import overlay_frames
from stremn.study.tiles import evenly, small
from stremn.study.time_line import draw_time_line

FrameOf = Callable[[int], Picture | None]
"""Returns a frame of a video by its index, None if there is no such frame."""


def analyze_memory(sources: Sequence[Path], out: Path) -> list[Path]:
    """Draw what the memory did in runs of `stremn segment`.

    The time line of every object and the histogram of ages need `memory.json` alone; the retained
    frames and the strip are cut from the `overlay.mp4` beside it, if there is one.

    Of a run both ways the memory of the forward pass is drawn, which begins with each object's
    given frame. The strip shows all frames.

    Args:
        sources: output folders, or `memory.json` files; with several the ages are compared.
        out: folder for the pictures.

    Raises:
        StremnError: no record of a memory, no template old enough to count, or an overlay of which
            it is not known which frames it shows.
    """
    runs = [read_memory(source) for source in sources]
    if len({_name(run.histories[0]) for run in runs}) < len(runs):  # two rules, one video
        names = distinct([_folder(source) for source in sources])
        runs = [
            _renamed(run, name.replace("/", "-")) for run, name in zip(runs, names, strict=True)
        ]
    drawn = []
    for source, run in zip(sources, runs, strict=True):
        video = _folder(source) / "overlay.mp4"
        drawn += [draw_history(history, out) for history in run.histories]
        if video.is_file():
            drawn += _pictures_of_video(run, video, out)
    labels = _labels([run.histories[0] for run in runs])
    counted = histograms([(label, r.histories) for label, r in zip(labels, runs, strict=True)])
    if counted:
        drawn.append(draw_ages(counted, out / "ages.png", "How old are the kept frames?"))
    return drawn


def _folder(source: Path) -> Path:
    return source if source.is_dir() else source.parent


def _renamed(run: MemoryLog, video: str) -> MemoryLog:
    return replace(run, histories=[replace(h, video=video) for h in run.histories])


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


def _pictures_of_video(run: MemoryLog, video: Path, out: Path) -> list[Path]:
    """Draw retained frames and a strip from the overlay of a run."""
    frames = overlay_frames(video, run).tolist()
    shown = evenly(frames, 10)
    wanted = {*shown, *(f for h in run.histories for row in _rows(h, frames) for f in row)}
    with open_frames(video) as source:
        pictures = zip(frames, source, strict=False)
        found = {frame: small(p.image) for frame, p in pictures if frame in wanted}
    tiles = [Tile(found.get(frame), f"frame {frame}") for frame in shown]
    name = run.histories[0].video
    strip = draw_tiles(
        [tiles[:5], tiles[5:]],
        out / f"strip-{name}.png",
        f"{name}: what was segmented",
        "Frames evenly spaced over the video; the colored areas are the objects as found.",
    )
    return [strip, *(draw_retained(h, found.get, out, frames) for h in run.histories)]


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
            "How far back the memory looks. For every frame after the given one, the age of each "
            "template it could read; the given frame and the newest memorized frame are not "
            "counted, as the memory always holds them. Dashed: the same for as many of the "
            "memorized frames, drawn at random. Where a line is above the dashed one, the rule "
            "prefers that age.",
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


def _rows(history: SlotHistory, frames: Sequence[int]) -> list[list[int | None]]:
    """Return for each retained frame its neighbors among `frames`; None beyond their ends.

    In the middle is the frame itself, or the one before it if it is not among them.
    """
    places = [max(0, bisect_right(frames, kept) - 1) for kept in history.retained()]
    stride, reach = _stride(frames), NEIGHBORS // 2
    apart = [stride * n for n in range(-reach, reach + 1)]
    return [[_at(frames, place + n) for n in apart] for place in places]


def _stride(frames: Sequence[int]) -> int:
    """Return how many places neighbors are apart: the more the longer the video."""
    return int(np.clip(len(frames) // 25, 1, 10))


def _at(frames: Sequence[int], place: int) -> int | None:
    return frames[place] if 0 <= place < len(frames) else None


def draw_retained(
    history: SlotHistory, frame_of: FrameOf, out: Path, frames: Sequence[int] | None = None
) -> Path:
    """Draw a row for each frame that is held at the end, between its neighbors in time.

    Args:
        history: of the object.
        frame_of: returns the picture of a frame.
        out: folder for the drawing.
        frames: indices of the frames that have a picture, in order; None: all up to the last one.

    Raises:
        StremnError: no frame has a picture.
    """
    last = int(history.frames[-1])
    frames = range(last + 1) if frames is None else frames
    kept = history.retained()
    rows = [
        _row(frame_of, frame, neighbors)
        for frame, neighbors in zip(kept, _rows(history, frames), strict=True)
    ]
    return draw_tiles(
        rows,
        out / f"retained-{_name(history)}.png",
        f"{history.video}, object {history.object_id}: what {history.slots} slots hold after "
        f"frame {last}",
        f"A row for each frame that the memory still holds at the end (red), between its "
        f"neighbors in time ({_apart(frames)}); in color, the objects as segmented. Frame "
        f"{history.given} came with the true mask, frame {max(kept)} is the newest. A useful "
        "memory holds moments at which the object looks different.",
        ["given" if f == history.given else "newest" if f == max(kept) else "kept" for f in kept],
    )


def _apart(frames: Sequence[int]) -> str:
    """Describe how far apart the pictures of a row are."""
    stride = _stride(frames)
    if frames[-1] - frames[0] >= len(frames):
        apart = "one after the other" if stride == 1 else f"{stride} apart"
        return (
            f"pictures of the overlay, {apart}; it leaves frames out, and the last picture before "
            "such a frame stands for it"
        )
    return "consecutive frames" if stride == 1 else f"{stride} frames apart"


def _row(frame_of: FrameOf, kept: int, neighbors: Sequence[int | None]) -> list[Tile]:
    """Return the tiles of a row; the one in the middle shows the kept frame, or stands for it."""
    return [
        _tile(frame_of, index, kept if place == len(neighbors) // 2 else None)
        for place, index in enumerate(neighbors)
    ]


def _tile(frame_of: FrameOf, index: int | None, kept: int | None) -> Tile:
    """Return the tile of a frame; `kept` is the frame it stands for, None that of a neighbor."""
    picture = None if index is None else frame_of(index)
    stands_for = "" if kept in (None, index) else f" (for {kept})"
    caption = "" if picture is None else f"frame {index}{stands_for}"
    return Tile(picture, caption, marked=kept is not None)
