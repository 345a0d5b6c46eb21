"""Objects that composed clips move: cut out of a video or a still, alone or carrying another."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from stremn.data.clips.cut_outs import MARGIN, CutOut
from stremn.data.shapes import Mask, around, bounding_box, feathered, large_ids, touches_border
from stremn.media.frames import Picture


@dataclass(frozen=True)
class ForegroundObject:
    """An object to be moved over a background: one picture and opacity, or one per frame."""

    pictures: Sequence[Picture]
    alphas: Sequence[Mask]
    filmed: bool
    origin: int | None = None
    """Number of the set of stills it was cut from."""
    carried: Mask | None = None
    """1 where the picture shows something that the object carries, 0 elsewhere."""


def carrying(
    rng: np.random.Generator, foreground: ForegroundObject, cut: CutOut
) -> ForegroundObject:
    """Put another object on a still's object, moving with it.

    What is carried lies over the edge or the inside of the carrier and is a fourth to a half as
    large: a bag, a child, a box. The canvas grows where it sticks out.
    """
    picture, alpha = foreground.pictures[0], foreground.alphas[0]
    inside = np.argwhere(alpha > 127)
    if foreground.filmed or len(inside) == 0:
        return foreground
    scale = float(rng.uniform(0.25, 0.5)) * max(alpha.shape) / max(cut.alpha.shape)
    size = [max(1, round(side * scale)) for side in cut.alpha.shape[::-1]]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    image, opacity = (cv2.resize(x, size, interpolation=how) for x in (cut.image, cut.alpha))
    rows, columns = opacity.shape
    edge = max(rows, columns)
    borders = (edge, edge, edge, edge)
    wide = cv2.copyMakeBorder(picture, *borders, cv2.BORDER_REPLICATE)
    cover = cv2.copyMakeBorder(alpha, *borders, cv2.BORDER_CONSTANT, value=0)
    middle = inside[rng.integers(len(inside))]
    top, start = int(middle[0]) + edge - rows // 2, int(middle[1]) + edge - columns // 2
    here = np.s_[top : top + rows, start : start + columns]
    share = opacity.astype(np.float32) / np.float32(255)
    wide[here] = cv2.blendLinear(
        image, np.ascontiguousarray(wide[here]), share, np.float32(1) - share
    )
    cover[here] = np.maximum(cover[here], opacity)
    mask = np.zeros_like(cover)
    mask[here] = opacity > 127
    return replace(foreground, pictures=[wide], alphas=[cover], carried=mask)


def filmed(
    items: Sequence[tuple[Picture, Mask | None]], rng: np.random.Generator
) -> ForegroundObject | None:
    """Cut an object out of a stretch of video; None unless it is whole in every frame."""
    first = items[0][1]
    if first is None:
        return None
    numbers = large_ids(first)
    if not numbers:
        return None
    number = rng.choice(numbers)
    masks = []
    for _, ids in items:
        if ids is None:
            return None
        mask = (ids == number).astype(np.uint8)
        if np.count_nonzero(mask) < 0.004 * mask.size or touches_border(mask, 0.05):
            return None
        masks.append(mask)
    box = bounding_box(np.maximum.reduce(masks))
    if box is None:
        return None
    here = around(box, MARGIN)
    return ForegroundObject(
        [np.ascontiguousarray(picture[here]) for picture, _ in items],
        [feathered(np.ascontiguousarray(mask[here])) for mask in masks],
        True,
    )
