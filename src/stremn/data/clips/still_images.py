"""Clips made of still images with masks (Sec 4.1.1: pre-training on still images).

A picture is moved by random smooth motion. Alone it can be solved by finding what is salient,
which teaches a memory nothing; so in many clips the object is pasted on another photo, has a
distractor, or is only half of what stands out.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from stremn.data.clips.clip import Clip, first_usable, introduce
from stremn.data.clips.colors import flickering
from stremn.data.clips.cut_outs import StillDraw
from stremn.data.clips.layers import channels_first, render
from stremn.data.clips.still_layers import StillClipParameters, backdrop, moving, passing
from stremn.data.readers.stills import StillImages
from stremn.media.mask_codes import VOID


class StillImageClips:
    """A clip source: stills moved by random smooth affine and perspective motion.

    sets: of still images. weights: how often each is drawn from; None: by their sizes.
    """

    def __init__(
        self,
        sets: Sequence[StillImages],
        weights: Sequence[float] | None = None,
        parameters: StillClipParameters | None = None,
    ) -> None:
        self.draw = StillDraw(sets, weights)
        self.parameters = StillClipParameters() if parameters is None else parameters

    def sample(self, rng: np.random.Generator, frames: int, size: int, progress: float) -> Clip:
        """Draw a clip; `progress` has no effect. Raises StremnError if no picture will do."""
        return first_usable(
            lambda: self._attempt(rng, frames, size),
            "; the masks may be empty or too small "
            f"(an object needs {self.parameters.visible:.1%} of the clip). "
            "check_stills lists what is wrong with a folder.",
        )

    def _attempt(self, rng: np.random.Generator, frames: int, size: int) -> Clip | None:
        p = self.parameters
        first = self.draw.still(rng)
        paste = rng.random() < p.paste
        distractor = rng.random() < p.distractor
        half = rng.random() < p.half
        if paste:
            cut = self.draw.cut_out(rng, first)
            if cut is None:
                return None
            back = self.draw.still(rng)
            layers = [
                backdrop(rng, back.image, None, frames, size, p),
                moving(rng, cut.marked(rng, 1, half), frames, size, p),
            ]
            count = 1
        else:
            ids, count = self.draw.targets(rng, first, p.objects - int(distractor), half)
            if count == 0:
                return None
            layers = [backdrop(rng, first.image, ids, frames, size, p)]
        if distractor:
            other = self.draw.cut_out(rng, self.draw.still(rng))
            if other is not None:
                count += 1
                layers.append(moving(rng, other.marked(rng, count, False), frames, size, p))
                if paste and rng.random() < 0.5:
                    layers[-2], layers[-1] = layers[-1], layers[-2]
        if rng.random() < p.occluder:
            layers.append(passing(rng, self.draw, frames, size, p))
        pictures, labels = render(layers, frames, size)
        if distractor and count > 1:
            labels = _chosen(rng, labels, count, p.objects)
        found = introduce(labels, count, round(p.visible * size * size), late=False)
        if found is None:
            return None
        pictures = flickering(rng, pictures, p.flicker)
        return Clip(channels_first(pictures), found[0], found[1])


def _chosen(
    rng: np.random.Generator, labels: UInt8[np.ndarray, "t h w"], count: int, most: int
) -> UInt8[np.ndarray, "t h w"]:
    """Keep one of several objects (the rest becomes background) or all, with equal chance.

    Always one where all are more than `most`.
    """
    if rng.random() < 0.5 and count <= most:
        return labels
    keep = int(rng.integers(1, count + 1))
    table = np.zeros(256, dtype=np.uint8)
    table[keep], table[VOID] = keep, VOID
    return table[labels]
