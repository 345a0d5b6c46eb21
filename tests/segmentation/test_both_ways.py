"""Joining a forward and a backward pass, and what is kept of the backward one."""

import json
from pathlib import Path

import numpy as np
import pytest

from stremn.errors import StremnError
from stremn.media.frames import Frame
from stremn.media.given import GivenMasks
from stremn.media.masks import label_map
from stremn.networks.working_size import WorkingSize
from stremn.segmentation.both_ways import BothWays, joined
from stremn.segmentation.pass_store import Kept, PassStore
from stremn.segmentation.reports import MemoryReport, ObjectMemory, Replacement, StepResult

SIZE = WorkingSize.of(16, 16, 16)
REPORT = MemoryReport(
    (ObjectMemory(3, (7, None), (True, False), Replacement(1, None, (0.5, None))),), 64
)


def result(frame: int, shares: dict[int, float]) -> StepResult:
    """A result with the same probability of an object in every pixel."""
    layers = np.stack([np.full(SIZE.padded, p, np.float32) for p in shares.values()])
    whole = np.concatenate([1 - layers.sum(0, keepdims=True), layers])
    labels = np.zeros((16, 16), np.uint8)
    return StepResult(frame, labels, tuple(shares), REPORT, whole, SIZE)


def kept(given: dict[int, int], shares: dict[int, float]) -> Kept:
    return Kept.of(result(0, shares), given)


def average(p: float, q: float, nearness: float) -> float:
    """The formula, in float64."""
    weights = nearness * abs(2 * p - 1), (1 - nearness) * abs(2 * q - 1)
    return (weights[0] * p + weights[1] * q) / sum(weights)


@pytest.mark.parametrize("frame", [10, 12, 15, 18, 20])
@pytest.mark.parametrize(("p", "q"), [(0.9, 0.2), (0.55, 0.05), (0.4, 0.9)])
def test_an_object_that_both_know_is_averaged(frame: int, p: float, q: float) -> None:
    """It is given in the frames 10 and 20."""
    met = {3: 20 if frame == 20 else 10}
    both = joined(result(frame, {3: p}), kept({3: 10 if frame == 10 else 20}, {3: q}), met)
    nearness = 1.0 if frame in (10, 20) else (20 - frame) / 10
    expected = average(p, q, nearness)
    np.testing.assert_allclose(both.layer_probabilities[1], expected, rtol=1e-5)
    np.testing.assert_allclose(both.layer_probabilities.sum(0), 1, rtol=1e-6)
    assert (both.labels == (3 if expected > 0.5 else 0)).all()
    assert both.frame == frame


def test_two_that_do_not_know_have_an_average() -> None:
    both = joined(result(15, {3: 0.5}), kept({3: 20}, {3: 0.5}), {3: 10})
    np.testing.assert_allclose(both.layer_probabilities[1], 0.5)


def test_objects_that_one_pass_knows_are_taken_from_it() -> None:
    both = joined(result(15, {3: 0.3}), kept({9: 20}, {9: 0.6}), {3: 10})
    assert both.ids == (3, 9)
    np.testing.assert_allclose(both.layer_probabilities[:, 0, 0], [0.1, 0.3, 0.6], rtol=1e-5)
    assert (both.labels == 9).all()


def test_probabilities_never_exceed_one() -> None:
    both = joined(result(15, {3: 0.9}), kept({9: 20}, {9: 0.6}), {3: 10})
    np.testing.assert_allclose(both.layer_probabilities[:, 0, 0], [0, 0.6, 0.4], atol=1e-6)


class Forward:
    """A session of object 3 that counts its frames."""

    frame = -1
    ids = (3,)
    memory = REPORT
    memory_bytes = 64

    def step(self, frame: object, mask: object = None) -> StepResult:
        self.frame += 1
        return result(self.frame, {3: 0.9})

    def add_object(self, mask: object) -> StepResult:
        return result(self.frame, {3: 0.9})

    def remove_object(self, object_id: int) -> None: ...

    def pin(self, frame: int, object_id: int | None = None, *, pinned: bool = True) -> None: ...

    def save(self, path: str | Path) -> None: ...


MASK = label_map(np.full((16, 16), 3))


def shown(index: int) -> Frame:
    return Frame(index, f"{index:05d}", np.zeros((16, 16, 3), np.uint8))


def test_where_the_backward_pass_is_gone_the_forward_one_does_not_go_on(tmp_path: Path) -> None:
    """Else the state that is saved then would be one frame ahead of the results."""
    store = PassStore(tmp_path / "pass", {}, resume=False)
    for index in (0, 2):
        store.add(index, kept({3: 2 if index else 0}, {3: 0.2}))
    session = Forward()
    both = BothWays(session, GivenMasks((0, 2), lambda frame: None), store, first=0)
    both.step(shown(0), MASK)
    with pytest.raises(StremnError, match="of the backward pass is gone or damaged"):
        both.step(shown(1), None)
    assert (both.done, session.frame) == (1, 0)
    store.add(1, kept({3: 2}, {3: 0.2}))
    assert both.step(shown(1), None).frame == 1


def test_a_run_goes_on_after_a_correction_behind_the_last_mask(tmp_path: Path) -> None:
    """The backward pass begins at the last mask and has nothing of later frames."""
    store = PassStore(tmp_path / "pass", {}, resume=False)
    store.add(0, kept({3: 0}, {3: 0.2}))
    given = GivenMasks((0, 2), lambda frame: None, corrections=frozenset({2}))
    session = Forward()
    session.frame = 2
    both = BothWays(session, given, store, first=0, done=3)
    assert both.step(shown(3), None).frame == 3


@pytest.mark.parametrize("frame", ["x", 3.5, [1], None])
def test_a_damaged_progress_begins_the_pass_again(tmp_path: Path, frame: object) -> None:
    store = PassStore(tmp_path / "pass", {}, resume=False)
    store.checkpoint(7, lambda path: path.write_bytes(b"state"))
    progress = tmp_path / "pass" / "pass.json"
    progress.write_text(json.dumps({"frame": frame, "complete": False, "settings": {}}))
    assert PassStore(tmp_path / "pass", {}, resume=True).state_path is None


def test_what_is_kept_is_what_is_read(tmp_path: Path) -> None:
    store = PassStore(tmp_path / "pass", {"model": "small"}, resume=False)
    store.add(7, kept({3: 8, 900: 7}, {3: 0.25, 900: 0.5}))
    store.checkpoint(7, lambda path: path.write_bytes(b"state"))
    again = PassStore(tmp_path / "pass", {"model": "small"}, resume=True)
    found = again.read(7)
    assert dict(found.given) == {3: 8, 900: 7}
    assert found.ids == (3, 900)
    np.testing.assert_allclose(found.probabilities[:, 0, 0], [0.25, 0.5], atol=0.5 / 255)
    assert found.memory == REPORT
    assert again.state_path is not None
    assert not again.complete
    again.checkpoint(5, lambda path: None, complete=True)
    assert again.complete
    assert again.state_path is None
    assert not list((tmp_path / "pass").glob("state*"))


def test_a_pass_of_another_run_is_dropped(tmp_path: Path) -> None:
    store = PassStore(tmp_path / "pass", {"model": "small"}, resume=False)
    store.add(7, kept({3: 8}, {3: 0.25}))
    store.checkpoint(7, lambda path: path.write_bytes(b"state"))
    for resume, settings in ((True, {"model": "large"}), (False, {"model": "small"})):
        again = PassStore(tmp_path / "pass", settings, resume=resume)
        assert again.state_path is None
        with pytest.raises(StremnError, match="of the backward pass is gone or damaged"):
            again.read(7)


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    store = PassStore(tmp_path / "pass", {}, resume=False)
    store.add(7, kept({3: 8}, {3: 0.25}))
    path = next((tmp_path / "pass").glob("*7.npz"))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StremnError, match=r"damaged .* Use --overwrite to start again"):
        store.read(7)
