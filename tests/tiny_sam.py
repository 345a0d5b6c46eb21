"""Tiny SAM models of transformers with random weights, and a video for them."""

from __future__ import annotations

import numpy as np
import torch

FAMILIES = ("sam2_video", "edgetam_video", "sam3_tracker_video")


def tiny_sam(family: str = "sam2_video", seed: int = 0, **changes: object) -> torch.nn.Module:
    """Return a toy of one to two million weights, none of them zero."""
    from stremn.sam.shapes import random_network
    from stremn.sam.toys import toy_config

    return random_network(toy_config(family, **changes), seed)


def noisy_square(frame: int, height: int = 48, width: int = 80) -> np.ndarray:
    """Return a frame: noise of its own, and a bright square that moves."""
    image = np.random.default_rng(frame).integers(0, 120, (height, width, 3), dtype=np.uint8)
    left = 4 + frame * 3 % (width - 24)
    image[12:32, left : left + 20] += 120
    return image


def square_mask(frame: int, object_id: int = 1, height: int = 48, width: int = 80) -> np.ndarray:
    """Return the mask of that square."""
    mask = np.zeros((height, width), np.uint8)
    left = 4 + frame * 3 % (width - 24)
    mask[12:32, left : left + 20] = object_id
    return mask
