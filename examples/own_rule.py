"""A replacement rule of your own: a function that chooses the slot to replace."""

import numpy as np

from stremn import SegmentationSession
from stremn.memory import Choice, MemoryState, Template, highest


def least_object(state: MemoryState, new: Template, evictable) -> Choice:
    """Replace the template with the least of the object; `evictable` is "objects slots"."""
    return highest(-state.evidence[..., 0], evictable)


if __name__ == "__main__":
    session = SegmentationSession.from_pretrained("small", policy=least_object, size=128)
    frames = np.random.default_rng(0).integers(0, 255, (9, 128, 160, 3), dtype=np.uint8)
    mask = np.zeros((128, 160), np.uint8)
    mask[30:90, 40:100] = 1
    for t, frame in enumerate(frames):
        result = session.step(frame, mask if t == 0 else None)
    print(result.memory.objects[0].frames)  # which frames the six slots hold
