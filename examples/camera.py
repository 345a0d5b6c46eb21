"""Follow an object from a camera or a stream: camera.py 0 120,80,200,150"""

import sys
from collections.abc import Iterator

import numpy as np

from stremn import SegmentationSession, mask_from
from stremn.media.video import open_frames


def follow(
    source: str, box: tuple[int, int, int, int], session: SegmentationSession
) -> Iterator[np.ndarray]:
    """Yield the label map of each frame; `box` (x, y, width, height) is in the first frame."""
    with open_frames(source) as frames:
        for frame in frames:
            mask = mask_from(frame.image, box=box).astype(np.uint8) if frame.index == 0 else None
            yield session.step(frame.image, mask).labels


if __name__ == "__main__":
    x, y, width, height = map(int, sys.argv[2].split(","))
    small = SegmentationSession.from_pretrained("small", size=240)
    for labels in follow(sys.argv[1], (x, y, width, height), small):
        rows, columns = np.nonzero(labels == 1)
        print(f"at {columns.mean():.0f}, {rows.mean():.0f}" if rows.size else "not in the frame")
