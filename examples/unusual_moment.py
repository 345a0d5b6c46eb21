"""Find unexpected moments of a video: unusual_moment.py clip.mp4

Every frame is predicted first. Its error is compared with the median error of earlier frames.
"""

import sys
from collections import deque
from statistics import median

from stremn.media.video import open_frames
from stremn.prediction.sessions import PredictionSession
from stremn.prediction.weights import load_memory_predictor


def unusual(source: str, session: PredictionSession, count: int = 3) -> list[tuple[float, int]]:
    """Return the `count` most unusual frames: (times the usual error, frame index)."""
    recent: deque[float] = deque(maxlen=50)
    found: list[tuple[float, int]] = []
    with open_frames(source) as frames:
        for frame in frames:
            session.observe(frame.image)
            if session.surprise is None:
                continue
            if len(recent) >= 5:
                found.append((session.surprise / max(median(recent), 1e-3), frame.index))
                found = sorted(found, reverse=True)[:count]
            recent.append(session.surprise)
    return found


if __name__ == "__main__":
    predictor = load_memory_predictor("natural")
    for times, index in unusual(sys.argv[1], PredictionSession(predictor, size=128, score=True)):
        print(f"frame {index}: {times:.1f} times the usual error")
