"""A clip of an orange disc that moves over textured blue, and what finds discs in it."""

import threading
from pathlib import Path

import cv2
import numpy as np

from stremn.media.encoding import write_video
from stremn.media.finding import grab_cut
from stremn.networks.pretrained import Pretrained
from stremn.segmentation.opening import OwnModel
from stremn.web.project import Tools
from tiny_model import tiny_config, tiny_model

HEIGHT, WIDTH = 96, 128
FRAMES = 14

BOX = {"kind": "box", "x": 25, "y": 24, "width": 50, "height": 49}
"""Round the disc in the first frame."""


def picture(index: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    image = np.array([40, 70, 130]) + rng.integers(-20, 20, (HEIGHT, WIDTH, 3))
    image[disc(index)] = (220, 140, 40)
    return image.astype(np.uint8)


def disc(index: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    cv2.circle(mask, (50 + index, 48), 20, 1, cv2.FILLED)
    return mask > 0


def write_clip(path: Path, frames: int = FRAMES) -> Path:
    write_video(path, [picture(index) for index in range(frames)], 25)
    return path


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def tools() -> Tools:
    """A tiny network, and objects found by their colors."""
    model = OwnModel(Pretrained(tiny_model(), tiny_config()))
    return Tools(find=lambda: grab_cut, model=lambda: model, turn=threading.Lock(), device="cpu")
