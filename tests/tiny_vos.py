"""Tiny data sets in official layouts: squares that move over noise."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (40, 56)
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + [7] * (3 * 252)


def square_labels(index, ids, size=SIZE):
    """Label map of frame ``index``: object number n starts in row 4 + 10 n and moves right."""
    labels = np.zeros(size, np.uint8)
    for row, i in enumerate(ids):
        labels[4 + 10 * row : 12 + 10 * row, 4 + index : 14 + index] = i
    return labels


def write_frame(path: Path, seed=0, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(frame).save(path)


def write_labels(path: Path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    if labels.dtype == np.uint8:
        image = Image.fromarray(labels)
        image.putpalette(PALETTE)
    else:
        image = Image.fromarray(labels)
    image.save(path)


def write_sequence(frames: Path, labels: Path, names, ids, annotated=None):
    """Frames with all ``names``; label maps for the names in ``annotated`` (default: all)."""
    for index, name in enumerate(names):
        write_frame(frames / f"{name}.jpg", index)
        if annotated is None or name in annotated:
            write_labels(labels / f"{name}.png", square_labels(index, ids))


def names_of(count, step=1, width=5):
    return [f"{i * step:0{width}d}" for i in range(count)]


def davis(root: Path, sequences, year=2017, split="val", count=6, annotated=None):
    """``sequences``: name -> ids."""
    for name, ids in sequences.items():
        frames = root / "JPEGImages" / "480p" / name
        labels = root / "Annotations" / "480p" / name
        write_sequence(frames, labels, names_of(count), ids, annotated)
    lists = root / "ImageSets" / str(year)
    lists.mkdir(parents=True, exist_ok=True)
    (lists / f"{split}.txt").write_text("\n".join(sequences) + "\n")
    return root


def youtube_vos(root: Path):
    """One valid video with object 1 from the start (a cat) and object 2 from frame 00010 (a yak).

    Six frames at 6 fps; the training split knows cats only; all frames are there too.
    """
    valid = root / "valid"
    sparse = names_of(6, step=5)
    for index, name in enumerate(sparse):
        write_frame(valid / "JPEGImages" / "abc" / f"{name}.jpg", index)
    for index, name in enumerate(names_of(26)):
        write_frame(root / "valid_all_frames" / "JPEGImages" / "abc" / f"{name}.jpg", index)
    annotations = valid / "Annotations" / "abc"
    write_labels(annotations / "00000.png", square_labels(0, [1]))
    write_labels(annotations / "00010.png", square_labels(2, [1, 2]))
    objects = {
        "1": {"category": "cat", "frames": sparse},
        "2": {"category": "yak", "frames": sparse[2:]},
    }
    (valid / "meta.json").write_text(json.dumps({"videos": {"abc": {"objects": objects}}}))
    (root / "train").mkdir()
    train = {"videos": {"t": {"objects": {"1": {"category": "cat", "frames": ["00000"]}}}}}
    (root / "train" / "meta.json").write_text(json.dumps(train))
    return root
