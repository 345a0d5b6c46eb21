"""The clip that the package draws, and the verb that shows what the package does with it."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from stremn.cli.app import app
from stremn.media import demo
from stremn.media.demo_scene import HEIGHT, WIDTH, draw_demo
from stremn.media.masks import read_mask
from stremn.media.video import open_frames


@pytest.fixture(scope="module")
def drawn():
    """The first three frames and their masks."""
    return list(draw_demo(3))


def test_the_clip_is_the_same_each_time(drawn):
    for (image, labels), (again, same) in zip(drawn, draw_demo(2), strict=False):
        np.testing.assert_array_equal(image, again)
        np.testing.assert_array_equal(labels, same)


def test_masks_show_the_balloons(drawn):
    image, labels = drawn[0]
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert set(np.unique(labels)) == {0, 1, 2}
    red, _, blue = np.moveaxis(image.astype(int), -1, 0)
    assert (red - blue)[labels == 1].mean() > 80  # red and yellow
    assert (blue - red)[labels == 2].mean() > 20  # blue and pink
    columns = [[np.nonzero(mask == i)[1].mean() for i in (1, 2)] for _, mask in drawn]
    assert np.diff(columns, axis=0)[:, 0].min() > 0 > np.diff(columns, axis=0)[:, 1].max()


def test_the_verb_writes_clip_mask_and_good_results(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "draw_demo", lambda: draw_demo(3))
    app(["demo", "-o", str(tmp_path)], standalone_mode=False)
    told = capsys.readouterr().err
    assert "clip.mp4" in told
    assert "overlay.mp4" in told
    with open_frames(tmp_path / "clip.mp4") as frames:
        assert frames.size == (HEIGHT, WIDTH)
        assert frames.fps == 24
    for index, (_, truth) in enumerate(draw_demo(3)):
        found = read_mask(tmp_path / "masks" / f"{index:05d}.png", truth.shape).labels
        for number in (1, 2):
            both = np.logical_and(found == number, truth == number).sum()
            assert both / np.logical_or(found == number, truth == number).sum() > 0.9


def test_the_page_gets_one_clip_a_process(monkeypatch):
    monkeypatch.setattr(demo, "draw_demo", lambda: islice(draw_demo(1), 1))
    demo.demo_clip.cache_clear()
    try:
        assert demo.demo_clip() == demo.demo_clip()
        assert demo.demo_clip().is_file()
    finally:
        demo.demo_clip.cache_clear()
