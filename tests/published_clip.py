"""A clip of two moving squares, and what STM's and STCN's official code makes of it.

`official.npz` was made once, with weights drawn by `drawn_checkpoint` (see its README).
"""

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "published"
HEIGHT, WIDTH, FRAMES = 70, 106, 13
STEP = 5
"""Every fifth pixel of every fifth row is compared."""


def clip() -> tuple[np.ndarray, np.ndarray]:
    """Frames "t height width 3" and the first frame's label map; no side is a multiple of 16."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 255, (FRAMES, 9, 14, 3), np.uint8)
    frames = coarse.repeat(8, 1).repeat(8, 2)[:, :HEIGHT, :WIDTH] // 2
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for t in range(FRAMES):
        for number, (top, left, color) in enumerate(((8, 6, 250), (38, 70, 120)), start=1):
            x = left + (3 if number == 1 else -3) * t
            frames[t, top : top + 24, x : x + 28] = (color, 255 - color, 60 * number)
            if t == 0:
                labels[top : top + 24, x : x + 28] = number
    return frames, labels
