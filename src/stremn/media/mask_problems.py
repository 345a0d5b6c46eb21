"""Find problems in the codes of a mask."""

import numpy as np

from stremn.media.mask_codes import (
    MANY_COLORS,
    MaskCodes,
    Problem,
    dominant_codes,
    soft_codes,
    split_codes,
)
from stremn.media.palettes import grey_palette

_PICTURE_SHARE = 0.3  # of pixels that are in no 3x3 block of one value
_ASPECT_TOLERANCE = 0.02
_DARK = 32


def find_problems(raw: MaskCodes, size: tuple[int, int] | None) -> list[Problem]:
    """Return all problems of a mask; `size` is the (height, width) of its frame, if known."""
    problems = [*_size_problems(raw, size), *_edge_problems(raw), *raw.notes]
    values = np.unique(raw.codes)
    if not values.any():
        problems.append(Problem("empty", "it holds no object (every pixel is background)", True))
    elif values[0] != 0:
        text = "it holds no background (no pixel is 0 or black), so objects fill the frame"
        problems.append(Problem("full", text))
    elif _is_inside_out(raw):
        text = "its object lies all along the border: are object and background swapped?"
        problems.append(Problem("inverted", text))
    if raw.kind != "colors" and values[-1] > 255:
        problems.append(
            Problem("wide-ids", f"ids up to {values[-1]}: masks are written as 16-bit PNG")
        )
    if raw.kind == "grey" and not any(problem.blocking for problem in problems):
        problems += _grey_problems([int(value) for value in values if value])
    return problems


def _is_inside_out(raw: MaskCodes) -> bool:
    """Return whether one object surrounds everything, as in an inverted black and white mask."""
    rim = np.concatenate([raw.codes[0], raw.codes[-1], raw.codes[:, 0], raw.codes[:, -1]])
    return bool(rim.all() and (rim == rim[0]).all() and float((raw.codes > 0).mean()) > 0.5)


def _size_problems(raw: MaskCodes, size: tuple[int, int] | None) -> list[Problem]:
    height, width = raw.codes.shape
    if size is None or (height, width) == tuple(size):
        return []
    text = f"it is {width}x{height} but the frame is {size[1]}x{size[0]} (width x height)"
    if (width, height) == tuple(size):
        return [Problem("size", f"{text}: it seems to be turned by 90 degrees", True)]
    alike = abs(width / height * size[0] / size[1] - 1) <= _ASPECT_TOLERANCE
    if not alike:
        text += ", of another shape, so it was made for other frames or cropped"
    return [Problem("size", text, blocking=True, repairable=alike)]


def _edge_problems(raw: MaskCodes) -> list[Problem]:
    solid, edge = split_codes(raw)
    if float(np.isin(raw.codes, edge).mean()) > _PICTURE_SHARE and len(edge) > MANY_COLORS:
        text = "it looks like a picture, not like a mask (hardly any region has one value)"
        return [Problem("picture", text, blocking=True)]
    soft = soft_codes(raw, solid, edge)
    problems = []
    if raw.lossy:
        text = "it is a lossy file (JPEG or WebP), which blurs ids; save masks as PNG"
        problems.append(Problem("lossy", text, repairable=True))
    if soft:
        objects = len([code for code in dominant_codes(raw, solid) if code])
        text = (
            f"it would be read as {len([c for c in solid + edge if c])} objects, but "
            f"{len(soft)} of them are only soft (anti-aliased or compressed) edges around "
            f"{objects}"
        )
        problems.append(Problem("soft", text, blocking=True, repairable=objects > 0))
    return problems


def _grey_problems(ids: list[int]) -> list[Problem]:
    if is_lost_palette(ids):
        text = (
            f"the grey values {_list(ids)} are the standard palette's colors turned grey, so ids "
            f"{_list([grey_palette()[i] for i in ids])} were probably meant"
        )
        return [Problem("grey-palette", text, repairable=True)]
    if max(ids, default=0) < _DARK:
        text = f"ids {_list(ids)} look black in an image viewer; that is fine"
        return [Problem("dark", text)]
    return []


def is_lost_palette(ids: list[int]) -> bool:
    """Return whether grey values are those of the standard palette's first colors."""
    known = grey_palette()
    return bool(ids) and min(ids) > 9 and all(i in known for i in ids)


def _list(ids: list[int]) -> str:
    return ", ".join(str(i) for i in ids[:8]) + (", ..." if len(ids) > 8 else "")
