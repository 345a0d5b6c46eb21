"""Section 4.3: pictures of what the memory held, from what `stremn segment` left on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from stremn.media.frames import Picture
from stremn.media.video import open_frames
from stremn.study.figures import Tile, draw_ages, draw_tiles, draw_time_line
from stremn.study.memory_log import AgeHistogram, SlotHistory, age_histogram, read_histories
from stremn.study.tiles import evenly, small

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
    drawn = []
    for source, histories in zip(sources, runs, strict=True):
        video = (source if source.is_dir() else source.parent) / "overlay.mp4"
        drawn += [draw_history(history, out) for history in histories]
        if video.is_file():
            drawn += _pictures_of_video(histories, video, out)
    labels = _labels([histories[0] for histories in runs])
    counted = histograms(list(zip(labels, runs, strict=True)))
    if counted:
        drawn.append(draw_ages(counted, out / "ages.png", "How old are the kept frames?"))
    return drawn


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


# Retained frames, Fig 6-7 ----------------------------------------------------------------------

NEIGHBORS = 5
"""Pictures in a row of the retained frames; the kept one is in the middle."""


def _stride(history: SlotHistory) -> int:
    """Frames between neighbors: enough to see a change, the more the longer the video."""
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
