"""Composite moving objects on a canvas: their size, their path, their occluders."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64

from stremn.data.clips.absences import coming_out, moved_away
from stremn.data.clips.colors import color_matrix
from stremn.data.clips.cut_outs import CutOut
from stremn.data.clips.foreground import ForegroundObject
from stremn.data.clips.layers import Layer
from stremn.data.clips.still_layers import StillClipParameters, random_motion, reduced, sliding
from stremn.data.clips.warps import bends, motion_matrices
from stremn.data.shapes import Mask

HIDDEN_SHARE = 0.8
"""Largest size of what is behind a target at first, as a share of the target's."""


@dataclass(frozen=True)
class Placed:
    """A foreground object on the canvas: its layer, its middle and its size, in pixels."""

    layer: Layer
    position: Float64[np.ndarray, "t 2"]
    extent: float


@dataclass(frozen=True)
class Canvas:
    """`frames` frames of `size` x `size` pixels, and how what is placed moves.

    motion: ranges of motion and color. share: square root of an object's area / the canvas's,
    smallest and largest. wobble: chance that a cut-out of a still bends as it moves.
    """

    rng: np.random.Generator
    frames: int
    size: int
    motion: StillClipParameters
    share: tuple[float, float]
    wobble: float

    def composite(
        self,
        foreground: ForegroundObject,
        number: int,
        absent: Bool[np.ndarray, " t"],
        behind: Placed | None = None,
    ) -> Placed:
        """Give a foreground object a path over the canvas that leaves it in the frames `absent`.

        `number` is its label, 0 for background; what it carries has the next one. One that starts
        `behind` another is no larger, and comes out.
        """
        rng, frames, size = self.rng, self.frames, self.size
        height, width = foreground.alphas[0].shape
        area = max(1, int(np.count_nonzero(foreground.alphas[0] > 127)))
        share = float(np.exp(rng.uniform(*np.log(self.share))))
        scale = min(share * size / area**0.5, 0.9 * size / max(height, width), 2.0)
        if behind is not None:
            scale = min(scale, HIDDEN_SHARE * behind.extent / max(height, width))
        parts = [
            reduced(picture, alpha, foreground.carried, scale)
            for picture, alpha in zip(foreground.pictures, foreground.alphas, strict=True)
        ]
        _, alpha, carried, left = parts[0]
        rows, columns = alpha.shape
        start = rng.uniform(0.2, 0.8, 2) * size
        extent = max(rows, columns)
        motion = random_motion(rng, frames, (start[0], start[1]), left, extent, size, self.motion)
        motion = moved_away(rng, motion, extent * left, size, absent)
        if behind is not None:
            motion = replace(motion, position=coming_out(rng, behind.position, behind.extent))
        box = (0.0, 0.0, float(columns), float(rows))
        wobble = not foreground.filmed and rng.random() < self.wobble
        layer = Layer(
            pictures=[part[0] for part in parts],
            alphas=[part[1] for part in parts],
            ids=_labels(alpha, carried, number),
            color=color_matrix(rng, self.motion.color),
            matrices=motion_matrices((columns / 2, rows / 2), motion, bool(rng.random() < 0.5)),
            bends=bends(rng, frames, box, rng.uniform(0.02, 0.10)) if wobble else None,
            drawn=np.ones(frames, dtype=bool),
        )
        return Placed(layer, motion.position, extent * left)

    def cover(self, placed: Placed, cut: CutOut, covered: Bool[np.ndarray, " t"]) -> Layer | None:
        """Let a cut-out slide over a foreground object, stay in the frames `covered`, and go on.

        None if there is no such frame.
        """
        rng, frames, when = self.rng, self.frames, np.flatnonzero(covered)
        scale = placed.extent * rng.uniform(1.0, 1.6) / max(cut.alpha.shape)
        image, alpha, _, left = reduced(cut.image, cut.alpha, None, scale)
        heading = rng.uniform(0, 2 * np.pi)
        if when.size == 0:
            return None
        time = np.arange(frames)
        distance = np.maximum(when[0] - time, 0) * -1.0 + np.maximum(time - when[-1], 0)
        step = placed.extent * rng.uniform(0.6, 1.5)
        offset = (distance * step)[:, None] * np.array([np.cos(heading), np.sin(heading)])
        angle = np.full(frames, rng.uniform(-0.5, 0.5))
        drawn = np.abs(distance) <= 3
        position = placed.position + offset
        return sliding(rng, image, alpha, position, left, angle, drawn, self.motion)


def _labels(alpha: Mask, carried: Mask | None, number: int) -> list[Mask] | None:
    """Return the id map of an object, and of what it carries; None for background."""
    if not number:
        return None
    ids = np.full_like(alpha, number)
    return [ids if carried is None else ids + carried]
