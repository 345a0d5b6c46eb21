#!/usr/bin/env python
"""Narrow the values that a trained model stores: the same masks, a smaller memory, a faster read.

    scripts/narrow_weights.py WEIGHTS DAVIS OUT [--values 64]

DAVIS is a folder with DAVIS 2016. The first, middle and last frames of its training sequences show
which parts of the values matter. How it works: src/stremn/networks/narrowing.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from stremn import load_model
from stremn.data.readers.layouts import read_davis
from stremn.errors import StremnError
from stremn.networks.narrowing import Example, narrowed

WIDTH, HEIGHT = 768, 432


def examples(davis: Path) -> Iterator[Example]:
    """Read three frames of each training sequence, with the mask of its object."""
    for sequence in read_davis(davis, "train", 2016):
        last = len(sequence) - 1
        for index in (0, last // 2, last):
            label = sequence.label(index)
            if label is None:
                continue
            mask = as_tensor((label == 1).astype(np.float32)[..., None])
            others = as_tensor((label > 1).astype(np.float32)[..., None])
            frame = as_tensor(np.asarray(sequence.frame(index), np.float32) / 255)
            yield frame, torch.cat([mask, others], dim=1)


def as_tensor(picture: np.ndarray) -> Tensor:
    """Resize a picture of height x width x channels and put its channels first."""
    resized = cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(np.atleast_3d(resized)).permute(2, 0, 1)[None]


def main() -> None:
    """Read the arguments, narrow, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("weights", help="a weights file, or the name of a preset")
    parser.add_argument("davis", type=Path)
    parser.add_argument("out", type=Path, help="weights file to write (.safetensors)")
    parser.add_argument("--values", type=int, default=64, help="channels to store")
    given = parser.parse_args()
    try:
        narrowed(load_model(given.weights), given.values, examples(given.davis)).save(given.out)
    except StremnError as error:
        raise SystemExit(f"narrow_weights.py: {error}") from error
    print(f"{given.out}: values of {given.values} channels")


if __name__ == "__main__":
    main()
