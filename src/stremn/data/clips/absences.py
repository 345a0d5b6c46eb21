"""Decide when objects of composed clips are out of the picture, and how they leave and return."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float64

from stremn.data.clips.warps import Motion

PACE = (0.06, 0.3)
"""How far a frame takes what comes out from behind a target, by its size: least and most."""


def run_of_frames(
    rng: np.random.Generator, frames: int, length: tuple[int, int]
) -> Bool[np.ndarray, " t"]:
    """Return a run of frames, neither the first nor the last one; empty if the clip is too
    short."""
    chosen = np.zeros(frames, dtype=bool)
    longest = min(length[1], frames - 2)
    if longest < 1:
        return chosen
    count = int(rng.integers(min(length[0], longest), longest + 1))
    start = int(rng.integers(1, frames - count))
    chosen[start : start + count] = True
    return chosen


def beginning(rng: np.random.Generator, frames: int) -> Bool[np.ndarray, " t"]:
    """Return the frames before a late object enters: at least one, at most half of the clip."""
    return np.arange(frames) < rng.integers(1, max(2, frames // 2 + 1))


def coming_out(
    rng: np.random.Generator, position: Float64[np.ndarray, "t 2"], extent: float
) -> Float64[np.ndarray, "t 2"]:
    """Return positions that follow another's for up to a third of the clip and then leave it.

    position, extent: of the one that is followed, in pixels.
    """
    time = np.arange(len(position))
    last = int(rng.integers(0, max(1, len(time) // 3) + 1))
    pace = extent * float(np.exp(rng.uniform(*np.log(PACE))))
    heading = rng.uniform(0, 2 * np.pi)
    way = pace * np.array([np.cos(heading), np.sin(heading)])
    return position[np.minimum(time, last)] + np.maximum(time - last, 0)[:, None] * way


def moved_away(
    rng: np.random.Generator,
    motion: Motion,
    extent: float,
    size: int,
    absent: Bool[np.ndarray, " t"],
) -> Motion:
    """Return the same motion, but out of the picture in the frames `absent`.

    It leaves through the side it is nearest to, half out in the frames next to these.
    """
    if not absent.any():
        return motion
    middle = motion.position[absent].mean(axis=0)
    ways = np.array([[-1.0, 0], [1, 0], [0, -1], [0, 1]])
    rooms = np.array([middle[0], size - middle[0], middle[1], size - middle[1]])
    side = int(np.argmin(rooms))
    far = rooms[side] + 0.8 * extent + float(np.abs(motion.position - middle).max())
    share = absent.astype(np.float64)
    beside = np.zeros_like(share)
    beside[1:] = np.maximum(beside[1:], share[:-1])
    beside[:-1] = np.maximum(beside[:-1], share[1:])
    # Half of the way in the frames beside, but never in frame 0, where the object is given, nor
    # in the last one, where it must have returned.
    beside[[0, -1]] = 0
    share = np.maximum(share, rng.uniform(0.2, 0.7) * beside)
    return replace(motion, position=motion.position + share[:, None] * far * ways[side])
