"""Runs of the command line that are killed at random moments and resumed, compared byte by byte.

`python tests/kills.py --runs 40` is a long campaign; the tests make a short one.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from stremn.media.masks import write_mask


def make_clip(folder: Path, frames: int) -> list[str]:
    """Write a short clip and its first mask; return the arguments that segment it."""
    (folder / "clip").mkdir()
    for t in range(frames):
        image = np.full((64, 64, 3), 60, np.uint8)
        cv2.circle(image, (20 + t % 24, 30), 10, (230, 60, 40), -1)
        Image.fromarray(image).save(folder / "clip" / f"{t:05d}.png")
    labels = np.zeros((64, 64), np.uint8)
    cv2.circle(labels, (20, 30), 10, 7, -1)
    write_mask(folder / "mask.png", labels)
    return [
        "segment", str(folder / "clip"), "--mask", str(folder / "mask.png"), "--size", "64",
        "--slots", "3", "--device", "cpu", "--precision", "float32", "--coco",
    ]  # fmt: skip


def contents(out: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def start(words: list[str], out: Path) -> subprocess.Popen[bytes]:
    """Start a run, or go on with it."""
    line = [sys.executable, "-m", "stremn.cli", *words, "-o", str(out), "--resume"]
    return subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


def finished(words: list[str], out: Path) -> float:
    """Run to the end and return the seconds that it took."""
    began = time.monotonic()
    process = start(words, out)
    said = process.communicate()[1]
    assert process.returncode == 0, said.decode()
    return time.monotonic() - began


def killed(
    words: list[str], out: Path, delays: list[float], number: signal.Signals = signal.SIGKILL
) -> int:
    """Start a run for each delay, kill it when masks begin to come and the delay is over.

    Returns how many of them were not at their end before.
    """
    kills = 0
    for delay in delays:
        before = len(list(out.glob("masks/*.png")))
        process = start(words, out)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(out.glob("masks/*.png"))) > before or _going_on(out, before):
                break
            time.sleep(0.002)
        time.sleep(delay)
        if process.poll() is None:
            os.kill(process.pid, number)
            kills += 1
        process.communicate()
    return kills


def _going_on(out: Path, before: int) -> bool:
    """Whether a resumed run has taken its record back to the last checkpoint."""
    record = out / "memory.json"
    if not before or not record.exists():
        return False
    return record.read_bytes().count(b'"frame": ') < before


def main() -> None:
    """Run a campaign and print what was killed and what came out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--frames", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    kills = different = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = make_clip(folder, asked.frames)
        finished(words, folder / "whole")
        whole = contents(folder / "whole")
        for run in range(asked.runs):
            out = folder / f"run-{run}"
            kills += killed(words, out, rng.uniform(0, 2.5, int(rng.integers(1, 4))).tolist())
            finished(words, out)
            same = contents(out) == whole
            different += not same
            print(f"run {run}: {kills} kills so far, {'same' if same else 'DIFFERENT'}", flush=True)
    print(f"{asked.runs} runs, {kills} kills, {different} different")


if __name__ == "__main__":
    main()
