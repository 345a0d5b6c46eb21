"""COCO's run-length encoding of a mask, in its compact text form.

Runs are counted down the columns, starting with background. From the fourth run on, the difference
to the run two before is kept. Each number is cut into groups of five bits, lowest first; a sixth
bit says that more follow, the last group's highest bit is the sign, and 48 makes it printable.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from stremn.errors import StremnError

_MORE = 32
_SIGN = 16
_FIRST_LETTER = 48
_LONGEST = 40  # bits of a run


def encode_rle(mask: Bool[np.ndarray, "height width"]) -> str:
    """Return the run-length text of a mask."""
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    runs = np.diff(edges).tolist()
    if flat.size and flat[0]:
        runs.insert(0, 0)
    return "".join(
        _number_text(run - runs[position - 2] if position > 2 else run)
        for position, run in enumerate(runs)
    )


def _number_text(number: int) -> str:
    letters = []
    while True:
        group = number & 31
        number >>= 5
        done = number == (-1 if group & _SIGN else 0)
        letters.append(chr((group if done else group | _MORE) + _FIRST_LETTER))
        if done:
            return "".join(letters)


def decode_rle(text: str, size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    """Return the mask of size (height, width) behind a run-length text.

    Raises:
        StremnError: the runs do not fill the size.
    """
    runs: list[int] = []
    number = shift = 0
    for letter in text:
        group = ord(letter) - _FIRST_LETTER
        if not 0 <= group < 2 * _MORE or shift > _LONGEST:
            raise StremnError(f"{letter!r} is not a valid character in the run lengths of a mask.")
        number |= (group & 31) << shift
        shift += 5
        if not group & _MORE:
            if group & _SIGN:
                number -= 1 << shift
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number = shift = 0
    return mask_of_runs(runs, size)


def mask_of_runs(runs: Sequence[int], size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    """Return the mask of size (height, width) whose runs go down the columns, background first.

    Raises:
        StremnError: the runs do not fill the size.
    """
    height, width = size
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise StremnError(
            f"The run lengths cover {sum(runs)} pixels, expected {width}x{height} = "
            f"{height * width}."
        )
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape((height, width), order="F")
