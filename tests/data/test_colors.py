"""Random changes of color against what they promise."""

import numpy as np
import pytest

from stremn.data.clips.colors import ColorRange, color_matrix, recolor


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_no_change_of_color_is_the_identity() -> None:
    matrix = color_matrix(rng(), ColorRange(0, 0, 0, 0))
    assert matrix == pytest.approx(np.eye(3, 4), abs=1e-6)


def test_gray_has_no_color_and_keeps_brightness() -> None:
    matrix = color_matrix(rng(), ColorRange(0, 0, 0, 0, gray=1.0))
    image = rng().integers(0, 256, (8, 8, 3), dtype=np.uint8)
    gray = recolor(image, matrix)
    luma = image @ np.array([0.299, 0.587, 0.114])
    assert np.abs(gray - luma[..., None]).max() <= 1


def test_contrast_turns_about_middle_gray_and_hue_keeps_gray() -> None:
    middle = np.full((1, 1, 3), 127.5)
    for seed in range(5):
        matrix = color_matrix(rng(seed), ColorRange(0, 0.5, 0.5, 0.5))
        assert matrix[:, :3] @ middle[0, 0] + matrix[:, 3] == pytest.approx(127.5, abs=0.01)
