"""A call that is refused, or fails, leaves the session exactly as it was."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from stremn.errors import StremnError
from stremn.memory.choices import Choice
from stremn.memory.policies import Oldest
from stremn.networks.model import STReMN
from stremn.segmentation.sessions import SegmentationSession
from wrong_calls import WRONG, assert_same, frame, mask, remembered

pytestmark = pytest.mark.usefixtures("unchecked")  # arguments that no annotation allows


def opened(model: STReMN, **options: Any) -> SegmentationSession:
    settings = {"device": "cpu", "precision": "float32", "size": 64, "memory_slots": 3}
    settings |= {"policy": "learned", "reach": None}
    return SegmentationSession(model, **(settings | options))


def running(model: STReMN, **options: Any) -> SegmentationSession:
    """A session after three frames, of objects 3 and 5."""
    session = opened(model, reach=0.5, **options)
    session.step(frame(0), mask(3, 5))
    session.step(frame(1))
    session.step(frame(2))
    return session


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


def test_a_correction_of_some_objects_that_fails_is_put_back(
    model: STReMN, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their memory is written in a copy."""
    session = running(model)
    before = remembered(session)

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(SegmentationSession, "_result", fail)
    with pytest.raises(MemoryError):
        session.add_object(mask(3))
    monkeypatch.undo()
    assert_same(before, remembered(session))
    session.step(frame(3))


def test_what_the_memory_holds_can_be_asked_for_during_a_call(model: STReMN) -> None:
    """The answer is that of after the call: in between there are ids without a memory."""
    rule, inside, go_on = Moody(), threading.Event(), threading.Event()
    session = running(model, policy=rule)

    def wait(choice: Choice) -> Choice:
        inside.set()
        go_on.wait(10)
        return choice

    rule.fail = wait
    found: list[object] = []

    def ask() -> None:
        try:
            found.append([o.id for o in session.memory.objects])
        except IndexError as error:
            found.append(error)

    working = threading.Thread(target=session.step, args=(frame(3), mask(9)))
    asking = threading.Thread(target=ask)
    working.start()
    assert inside.wait(10)
    asking.start()
    asking.join(0.2)
    go_on.set()
    asking.join()
    working.join()
    assert found == [[3, 5, 9]]


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
