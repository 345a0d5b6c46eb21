"""A call that is refused, or fails, leaves the session exactly as it was."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stremn.errors import StremnError
from stremn.memory.choices import Choice
from stremn.memory.policies import Oldest
from stremn.networks.model import STReMN
from stremn.segmentation.sessions import SegmentationSession

pytestmark = pytest.mark.usefixtures("unchecked")  # arguments that no annotation allows


def opened(model: STReMN, **options: Any) -> SegmentationSession:
    settings = {"device": "cpu", "precision": "float32", "size": 64, "memory_slots": 3}
    settings |= {"policy": "learned", "reach": None}
    return SegmentationSession(model, **(settings | options))


def frame(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)


def mask(*ids: int) -> np.ndarray:
    labels = np.zeros((64, 64), np.uint8)
    for row, name in enumerate(ids):
        labels[4 + 20 * row : 20 + 20 * row, 8:30] = name
    return labels


def remembered(session: SegmentationSession) -> dict[str, Any]:
    """All that a session remembers, copied."""
    state = None if session.track is None else session.track.state
    tensors = {} if state is None else {n: x.clone() for n, x in state.tensors().items()}
    where, latest = session._layers, session._latest
    return tensors | {
        "frame": session.frame,
        "ids": session.ids,
        "filled": None if state is None else state.filled,
        "size": session._frame_size,
        "where": None if where is None else where.copy(),
        "shares": None if latest is None else latest[1].clone(),
        "memory": session.memory,
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    for name, value in before.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(after[name], value, rtol=0, atol=0, msg=name)
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(after[name], value, err_msg=name)
        else:
            assert after[name] == value, name


def running(model: STReMN, **options: Any) -> SegmentationSession:
    """A session after three frames, of objects 3 and 5."""
    session = opened(model, reach=0.5, **options)
    session.step(frame(0), mask(3, 5))
    session.step(frame(1))
    session.step(frame(2))
    return session


NO_NUMBER = [
    np.array([1]),
    np.array([3, 5]),
    np.array(3.0),
    torch.tensor([3]),
    3.0,
    True,
    "3",
    None,
    [3],
    object(),
]
WRONG: dict[str, list[Callable[[SegmentationSession], object]]] = {
    "remove": [lambda s, x=x: s.remove_object(x) for x in [*NO_NUMBER, 4, 0, -1, 2**70]],
    "pin": [lambda s, x=x: s.pin(x) for x in [*NO_NUMBER, 99, -1, 2**70]],
    "pin one": [lambda s, x=x: s.pin(0, x) for x in [*NO_NUMBER[:-3], [3], 4, 2**70]],
    "pinned": [lambda s: s.pin(0, pinned="no"), lambda s: s.pin(0, pinned=np.ones(2))],  # type: ignore[arg-type]
    "add": [
        lambda s, x=x: s.add_object(x)
        for x in [
            None,
            3,
            [[1]],
            {"a": 1},
            np.zeros((64, 64), np.uint8),
            np.ones((32, 64), np.uint8),
            np.ones((64, 64)),
            np.full((64, 64), 70_000),
            np.full((64, 64), -1),
            np.full((64, 64), 1, object),
            torch.ones(64, 64),
            torch.ones(64, 64, dtype=torch.complex64),
            "no-such-file.png",
        ]
    ],
    "step": [
        lambda s, x=x: s.step(x)
        for x in [
            None,
            "frame.png",
            [[[0, 0, 0]]],
            np.zeros((64, 64, 3)),
            np.zeros((32, 64, 3), np.uint8),
            np.zeros((64, 64), np.uint8),
            np.zeros((0, 64, 3), np.uint8),
            torch.full((3, 64, 64), float("nan")),
            torch.full((3, 64, 64), float("inf")),
            torch.full((3, 64, 64), 200.0),
            torch.full((3, 64, 64), -1.0),
            torch.full((3, 64, 64), 2, dtype=torch.int64),
            torch.zeros(3, 64, 64, device="meta"),
            torch.zeros(3, 64, 64).to_sparse(),
            Image.new("L", (10, 10)),
        ]
    ],
    "step with mask": [
        lambda s: s.step(frame(3), mask()),
        lambda s: s.step(frame(3), 7),  # type: ignore[arg-type]
        lambda s: s.step(frame(3), np.ones((10, 10), np.uint8)),
    ],
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_refused_call_changes_nothing(model: STReMN, kind: str) -> None:
    session, other = running(model), running(model)
    before = remembered(session)
    for call in WRONG[kind]:
        with pytest.raises(StremnError):
            call(session)
        assert_same(before, remembered(session))
    result, expected = session.step(frame(3), mask(9)), other.step(frame(3), mask(9))
    np.testing.assert_array_equal(result.labels, expected.labels)
    assert_same(remembered(other), remembered(session))


def test_numbers_of_any_whole_kind_are_taken(model: STReMN) -> None:
    session = running(model)
    session.pin(np.array(1), torch.tensor(3))  # type: ignore[arg-type]
    session.remove_object(np.array(3))  # type: ignore[arg-type]
    session.remove_object(np.uint8(5))  # type: ignore[arg-type]
    assert session.ids == ()
    assert session.step(frame(3)).labels.max() == 0


class Moody:
    """Rule A, until it is told to fail."""

    def __init__(self) -> None:
        self.fail: Callable[[Choice], Choice] | None = None

    def __call__(self, state: Any, new: Any, evictable: Any) -> Choice:
        choice = Oldest()(state, new, evictable)
        return choice if self.fail is None else self.fail(choice)


def raise_error(choice: Choice) -> Choice:
    raise ZeroDivisionError("a fault in the rule")


FAULTS = {
    "raises": (raise_error, ZeroDivisionError, "a fault in the rule"),
    "no choice": (lambda c: c.replace, StremnError, "must return a Choice, got Tensor"),
    "shape": (lambda c: replace(c, replace=c.replace[:, :1]), StremnError, "replace of shape"),
    "NaN": (lambda c: replace(c, replace=c.replace * torch.nan), StremnError, "at most one slot"),
    "two slots": (lambda c: replace(c, replace=c.replace * 0 + 1), StremnError, "at most one slot"),
    "pinned": (
        lambda c: replace(c, replace=torch.eye(3)[torch.zeros(len(c.replace), dtype=torch.int64)]),
        StremnError,
        "named a pinned slot",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("new", [(), (3,), (9,)], ids=["follow", "correct", "add"])
def test_a_rule_that_fails_leaves_the_session_as_it_was(
    model: STReMN, fault: str, new: tuple[int, ...]
) -> None:
    fail, kind, words = FAULTS[fault]
    rule, well = Moody(), Moody()
    session, other = running(model, policy=rule), running(model, policy=well)
    before = remembered(session)
    rule.fail = fail
    given = mask(*new) if new else None
    with pytest.raises(kind, match=words):
        session.step(frame(3), given)
    assert_same(before, remembered(session))
    rule.fail = None
    session.step(frame(3), given)
    other.step(frame(3), given)
    assert_same(remembered(other), remembered(session))


def test_a_rule_that_calls_its_own_session_is_refused(model: STReMN) -> None:
    rule = Moody()
    session = running(model, policy=rule)
    before = remembered(session)

    def call_back(choice: Choice) -> Choice:
        session.remove_object(3)
        return choice

    rule.fail = call_back
    with pytest.raises(StremnError, match="cannot be called from within its own call"):
        session.step(frame(3))
    assert_same(before, remembered(session))


@pytest.mark.parametrize("new", [(), (9,)], ids=["follow", "add"])
def test_memory_that_runs_out_while_the_result_is_made(
    model: STReMN, monkeypatch: pytest.MonkeyPatch, new: tuple[int, ...]
) -> None:
    """With new objects all is put back; without, the memory was written in place, and is told."""
    session = running(model)
    before = remembered(session)
    given = mask(*new) if new else None

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(SegmentationSession, "_result", fail)
    with pytest.raises(MemoryError):
        session.step(frame(3), given)
    monkeypatch.undo()
    if new:
        assert_same(before, remembered(session))
        session.step(frame(3))
        return
    with pytest.raises(StremnError, match="interrupted while its memory was written"):
        session.step(frame(3))
    with pytest.raises(StremnError, match="interrupted while its memory was written"):
        session.save("never-written.safetensors")


def test_threads_take_turns(model: STReMN) -> None:
    """Calls from several threads come one after the other, none is lost, none breaks another."""
    session = running(model)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(5):
                session.step(frame(i), mask(10 + number) if i == 1 else None)
            session.remove_object(10 + number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert session.frame == 2 + 4 * 5
    assert session.ids == (3, 5)
    assert session.track is not None
    assert session.track.state.batch == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory_slots": 2**70}, r"memory_slots \(K\) must be at most"),
        ({"memory_slots": 2.0}, r"memory_slots \(K\) must be a whole number, got 2.0"),
        ({"memory_slots": True}, r"memory_slots \(K\) must be a whole number, got True"),
        ({"size": float("nan")}, "size must be a whole number, got nan"),
        ({"size": 2**70}, "size must be at most"),
        ({"size": "480"}, "size must be a whole number, got '480'"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": None}, "seed must be a whole number"),
        ({"policy": 0}, "policy must be the name of a rule or a rule, got int"),
        ({"policy": None}, "policy must be the name of a rule or a rule, got NoneType"),
        ({"reach": "far"}, "reach must be a number, got 'far'"),
        ({"reach": True}, "reach must be a number, got True"),
        ({"precision": 32}, "Unknown precision 32"),
        ({"device": 3.5}, "device 3.5 cannot be used"),
    ],
)
def test_impossible_openings_are_refused(model: STReMN, options: Any, words: str) -> None:
    with pytest.raises(StremnError, match=words):
        opened(model, **options)


def test_slight_overshoot_of_resized_frames_is_taken(model: STReMN) -> None:
    session = running(model)
    session.step(torch.full((3, 64, 64), 1.0005))
