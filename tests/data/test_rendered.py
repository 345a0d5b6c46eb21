"""Rendered clips: what they promise, over many draws."""

from dataclasses import replace

import numpy as np
import pytest

from made_data import Ellipses
from stremn.data.clips.clip import Clip
from stremn.data.clips.colors import ColorRange
from stremn.data.clips.rendered import RenderedClipParameters, RenderedClips
from stremn.data.clips.still_layers import StillClipParameters
from stremn.errors import StremnError

PLAIN = ColorRange(0, 0, 0, 0)
CALM = RenderedClipParameters(
    objects=1,
    lookalike=0,
    others=0,
    shadow=0,
    ambient=(1.0, 1.0),
    motion=StillClipParameters(bend=0, color=PLAIN, flicker=PLAIN),
)
"""One body, without shade or shadow."""


def clips_of(
    count: int, parameters: RenderedClipParameters, frames: int = 3, size: int = 96
) -> list[Clip]:
    source = RenderedClips([Ellipses(6, color=(250, 250, 250))], parameters=parameters)
    return [source.sample(np.random.default_rng((5, i)), frames, size, 0.0) for i in range(count)]


def test_clips_are_what_was_asked_for() -> None:
    counts = set()
    for clip in clips_of(25, RenderedClipParameters()):
        assert clip.frames.shape == (3, 3, 96, 96)
        assert set(np.unique(clip.labels)) <= set(range(clip.given.size + 1))
        for number, frame in enumerate(clip.given.tolist(), start=1):
            assert np.mean(clip.labels[frame] == number) >= 0.004 - 1e-4
        counts.add(clip.given.size)
    assert counts == {1, 2, 3}


def test_the_same_generator_draws_the_same_clip() -> None:
    one, two = (clips_of(4, RenderedClipParameters()) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a.frames, b.frames)
        assert np.array_equal(a.labels, b.labels)
    assert not np.array_equal(one[0].frames, one[1].frames)


def test_labels_lie_on_the_bodies() -> None:
    # The ellipses' inner part is a texture of plain white; photos hold white ellipses too, so
    # that only what is labelled can be asked for.
    for clip in clips_of(10, CALM):
        inside = clip.labels > 0
        core = inside & np.roll(inside, 1, 1) & np.roll(inside, -1, 1)
        core &= np.roll(core, 1, 2) & np.roll(core, -1, 2)
        assert core.any()
        assert np.median(clip.frames.min(axis=1)[core]) > 220


def test_bodies_move_and_change_their_outline() -> None:
    changed = [
        np.mean((clip.labels[0] > 0) ^ (clip.labels[-1] > 0)) / np.mean(clip.labels[0] > 0)
        for clip in clips_of(12, CALM)
    ]
    assert np.median(changed) > 0.3
    still = replace(CALM, travel=(1e-6, 2e-6), turn=0.0, swing=0.0, swell=0.0)
    for clip in clips_of(6, still):
        assert np.array_equal(clip.labels[0], clip.labels[-1])


def test_lookalikes_are_background() -> None:
    # The same draws with and without: white pixels that are not labelled are the look-alikes'.
    alone, among = clips_of(8, CALM), clips_of(8, replace(CALM, lookalike=1.0))
    unlabelled = [
        np.mean([np.mean((c.frames.min(axis=1) > 240) & (c.labels == 0)) for c in clips])
        for clips in (alone, among)
    ]
    assert unlabelled[1] > unlabelled[0] + 0.03
    assert {clip.given.size for clip in among} == {1}


def test_shadows_darken_the_backdrop_and_have_no_label() -> None:
    shade = replace(CALM, shadow=1.0)
    darker = 0
    for with_shadow, without in zip(clips_of(6, shade), clips_of(6, CALM), strict=True):
        # A shadow draws its own numbers after the bodies, before nothing that is drawn here.
        assert np.array_equal(with_shadow.labels, without.labels)
        less = without.frames.astype(int) - with_shadow.frames
        assert less[:, :, 2:-2, 2:-2].min() >= -1
        outside = (with_shadow.labels == 0)[:, None] & (less > 5)
        darker += bool(outside.any())
    assert darker >= 5


def test_a_target_that_comes_later_is_given_later() -> None:
    far = replace(RenderedClipParameters(), late=1.0, travel=(2.0, 3.0), lookalike=0.0)
    given = np.concatenate([clip.given for clip in clips_of(30, far, frames=5, size=64)])
    assert (given > 0).any()
    assert all((clip.given == 0).all() for clip in clips_of(10, replace(far, late=0.0), 5, 64))


def test_objects_that_can_never_be_large_enough_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stremn.data.clips.clip.ATTEMPTS", 10)
    with pytest.raises(StremnError, match="No usable clip in 10 draws; rendered objects"):
        clips_of(1, replace(CALM, visible=0.9), frames=2, size=32)
