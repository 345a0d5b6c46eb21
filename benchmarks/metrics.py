"""Time to score 1,000 masks of 854x480 pixels (J and F), read from palette PNGs on disk.

Run: python benchmarks/metrics.py --workers 2 --out benchmarks/results/metrics.json

The masks are drawn here: a blob of a few ellipses that moves, and a prediction with its edge
shifted and a false region, so both contours are long. Files are written first; the time is that of
:func:`stremn.evaluation.segmentation.stored_masks.score_predictions`, checks of every file
included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from stremn.data.readers.layouts import read_folders
from stremn.evaluation.segmentation.metrics import score_frame
from stremn.evaluation.segmentation.stored_masks import score_predictions
from stremn.media.masks import write_mask

HEIGHT, WIDTH = 480, 854


def blob(index: int, shift: int) -> np.ndarray:
    """A label map with one object of about a sixth of the frame."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    rng = np.random.default_rng(7)
    for _ in range(6):
        x, y = (int(v) for v in rng.integers((250, 150), (600, 330)))
        axes = tuple(int(v) for v in rng.integers(30, 110, 2))
        x += shift + int(60 * np.sin(index / 20))
        cv2.ellipse(labels, (x, y), axes, int(rng.integers(0, 180)), 0, 360, 1, -1)
    return labels


def write_data(root: Path, masks: int) -> Path:
    """Ground truth in plain folders and predictions beside it; returns the predictions."""
    frames, labels = root / "JPEGImages" / "blob", root / "Annotations" / "blob"
    predictions = root / "predictions" / "blob"
    for folder in (frames, labels, predictions):
        folder.mkdir(parents=True)
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for index in range(masks + 2):  # the first and the last frame do not count
        cv2.imwrite(str(frames / f"{index:05d}.jpg"), picture)
        write_mask(labels / f"{index:05d}.png", blob(index, 0))
        predicted = blob(index, 4)
        predicted[20:60, 20:90] = 1
        write_mask(predictions / f"{index:05d}.png", predicted)
    return predictions.parent


def seconds(root: Path, predictions: Path, workers: int) -> tuple[float, float]:
    """Wall-clock and processor time of the whole scoring."""
    data = read_folders(root)
    start, busy = time.perf_counter(), time.process_time()
    report = score_predictions(data, predictions, workers=workers)
    taken = time.perf_counter() - start, time.process_time() - busy
    if report.plain is None:
        raise SystemExit("nothing was scored")
    return taken


def milliseconds_a_mask(count: int = 200) -> float:
    """Time of J and F alone, on one core, without files."""
    truth, predicted = blob(0, 0), blob(0, 4)
    start = time.process_time()
    for _ in range(count):
        score_frame(predicted, truth, [1])
    return (time.process_time() - start) / count * 1e3


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        predictions = write_data(root, options.masks)
        one = min(seconds(root, predictions, 1) for _ in range(options.repeat))
        many = min(seconds(root, predictions, options.workers) for _ in range(options.repeat))
    result = {
        "masks": options.masks,
        "size": f"{WIDTH}x{HEIGHT}",
        "seconds_one_worker": round(one[0], 2),
        f"seconds_{options.workers}_workers": round(many[0], 2),
        "processor_seconds_one_worker": round(one[1], 2),
        f"processor_seconds_{options.workers}_workers": round(many[1], 2),
        "ms_a_mask_without_files": round(milliseconds_a_mask(), 2),
        "best_of": options.repeat,
        "load_average": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "opencv": cv2.__version__,
    }
    text = json.dumps(result, indent=1)
    sys.stdout.write(text + "\n")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
