"""Calls of a session in any order, wrong ones among them, beside a model of what must hold.

`python tests/call_sequences.py --sequences 500` is a long campaign; the tests make a short one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from stremn.errors import StremnError
from stremn.memory.choices import Choice
from stremn.memory.policies import Oldest
from stremn.segmentation.reports import StepResult
from stremn.segmentation.sessions import SegmentationSession
from tiny_model import tiny_model
from wrong_calls import WRONG, assert_same, frame, mask, remembered

IDS = (3, 5, 700)
MODEL = tiny_model(summary=True)
SEEDS = st.integers(0, 9)
SOME = st.lists(st.sampled_from(IDS), unique=True, min_size=1).map(tuple)
CALLS = st.sampled_from([call for calls in WRONG.values() for call in calls])


class FailingRule:
    """Rule A, which fails when it is told to."""

    fail = False

    def __call__(self, state: Any, new: Any, evictable: Any) -> Choice:
        if self.fail:
            raise ZeroDivisionError("a fault in the rule")
        return Oldest()(state, new, evictable)


class Calls(RuleBasedStateMachine):
    """A session, and beside it the ids, the frame and the pinned frames that it must have."""

    @initialize(
        slots=st.integers(2, 3),
        every=st.integers(1, 2),
        reach=st.sampled_from([None, 0.5]),
        precision=st.sampled_from(["float32", "bfloat16"]),
        policy=st.sampled_from(["learned", "random-drop", "own"]),
    )
    def open(
        self, slots: int, every: int, reach: float | None, precision: str, policy: str
    ) -> None:
        self.slots, self.frame, self.can_add = slots, -1, False
        self.pinned: dict[int, set[int]] = {}
        self.rule = FailingRule()
        self.own = policy == "own"
        self.bytes_each: int | None = None
        self.session = SegmentationSession(
            MODEL, device="cpu", size=64, memory_slots=slots, every=every, reach=reach,
            precision=precision, policy=self.rule if self.own else policy,
        )  # fmt: skip

    # -------------------------------------------------------------- calls that do something

    @rule(seed=SEEDS)
    @precondition(lambda self: self.frame >= 0)
    def follow(self, seed: int) -> None:
        result = self.session.step(frame(seed))
        self.frame += 1
        self.can_add = True
        self.check_result(result)

    @rule(seed=SEEDS, ids=SOME)
    def step_with_mask(self, seed: int, ids: tuple[int, ...]) -> None:
        self.frame += 1
        self.give(lambda given: self.session.step(frame(seed), given), ids)
        self.can_add = True

    @rule(ids=SOME)
    @precondition(lambda self: self.can_add)
    def add(self, ids: tuple[int, ...]) -> None:
        self.give(self.session.add_object, ids)

    def give(self, call: Callable[[np.ndarray], StepResult], ids: tuple[int, ...]) -> None:
        """Give the masks of new objects, and correct those that are known."""
        given = mask(*ids)
        result = call(given)
        for name in sorted(ids):
            pins = self.pinned.setdefault(name, set())
            if len(pins) == self.slots - 1 and self.frame not in pins:
                pins -= set(sorted(pins)[1:2])  # the oldest correction
            if len(pins) < self.slots - 1:
                pins.add(self.frame)
        np.testing.assert_array_equal(result.labels[given > 0], given[given > 0])
        assert not set(np.unique(result.labels[given == 0])) & set(ids)
        self.check_result(result)

    @rule(name=st.sampled_from(IDS))
    @precondition(lambda self: self.pinned)
    def remove(self, name: int) -> None:
        if name not in self.pinned:
            self.refused(lambda: self.session.remove_object(name))
            return
        self.session.remove_object(name)
        del self.pinned[name]

    @rule(back=st.integers(0, 4), name=st.sampled_from([*IDS, None]), pinned=st.booleans())
    @precondition(lambda self: self.frame >= 0)
    def pin(self, back: int, name: int | None, pinned: bool) -> None:
        wanted = max(0, self.frame - back)
        rows = {o.id: o for o in self.session.memory.objects if name in (None, o.id)}
        holding = [i for i, row in rows.items() if wanted in row.frames]
        if not holding:
            self.refused(lambda: self.session.pin(wanted, name, pinned=pinned))
            return
        self.session.pin(wanted, name, pinned=pinned)
        for i in holding:
            self.pinned[i] = self.pinned[i] | {wanted} if pinned else self.pinned[i] - {wanted}

    @rule()
    def save_and_load(self) -> None:
        before = remembered(self.session)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "session.safetensors"
            self.session.save(path)
            policy = self.rule if self.own else None
            self.session = SegmentationSession.load(path, MODEL, device="cpu", policy=policy)
        after = remembered(self.session)
        for name in ("shares", "memory"):  # of the latest frame; not saved
            before.pop(name), after.pop(name)
        assert_same(before, after)
        self.can_add = False

    # -------------------------------------------------------------- calls that do nothing

    def refused(self, call: Callable[[], object], kind: type[Exception] = StremnError) -> None:
        before = remembered(self.session)
        with pytest.raises(kind):
            call()
        assert_same(before, remembered(self.session))

    @rule(call=CALLS)
    @precondition(lambda self: self.frame >= 0)
    def call_wrongly(self, call: Callable[[SegmentationSession], object]) -> None:
        self.refused(lambda: call(self.session))

    @rule()
    @precondition(lambda self: not self.can_add)
    def add_without_a_frame(self) -> None:
        self.refused(lambda: self.session.add_object(mask(3)))

    @rule()
    @precondition(lambda self: self.frame < 0)
    def follow_nothing(self) -> None:
        self.refused(lambda: self.session.step(frame()))

    @rule(seed=SEEDS, ids=SOME)
    @precondition(lambda self: self.own)
    def let_the_rule_fail(self, seed: int, ids: tuple[int, ...]) -> None:
        self.rule.fail = True
        try:
            self.refused(lambda: self.session.step(frame(seed), mask(*ids)), ZeroDivisionError)
        finally:
            self.rule.fail = False

    # -------------------------------------------------------------- what must hold

    def check_result(self, result: StepResult) -> None:
        assert result.frame == self.frame
        assert result.labels.shape == (64, 64)
        assert set(np.unique(result.labels)) <= {0, *self.pinned}
        assert np.isfinite(result.layer_probabilities).all()
        np.testing.assert_allclose(result.layer_probabilities.sum(0), 1, atol=0.02)

    @invariant()
    def session_is_as_it_must_be(self) -> None:
        session = self.session
        assert session.frame == self.frame
        assert session.ids == tuple(self.pinned)
        report = session.memory
        assert [o.id for o in report.objects] == list(self.pinned)
        for row in report.objects:
            held = [t for t in row.frames if t is not None]
            assert len(row.frames) == self.slots
            assert all(0 <= t <= self.frame for t in held)
            found = {t for t, flag in zip(row.frames, row.pinned, strict=True) if flag}
            assert found == self.pinned[row.id]
        assert report.nbytes == session.memory_bytes
        if report.objects:
            each, rest = divmod(report.nbytes, len(report.objects))
            assert not rest
            assert self.bytes_each in (None, each)
            self.bytes_each = each
        if session.track is not None:
            for name, x in session.track.state.tensors().items():
                assert not x.is_floating_point() or bool(torch.isfinite(x).all()), name


def campaign(sequences: int, calls: int, *, same: bool) -> None:
    """Try so many sequences of so many calls; with `same`, the same ones every time."""
    run_state_machine_as_test(
        Calls,
        settings=settings(
            max_examples=sequences, stateful_step_count=calls, deadline=None, derandomize=same,
            database=None, suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


def main() -> None:
    """Run a campaign; a fault is printed as the shortest sequence that shows it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sequences", type=int, default=500)
    parser.add_argument("--calls", type=int, default=40)
    asked = parser.parse_args()
    campaign(asked.sequences, asked.calls, same=False)
    print(f"{asked.sequences} sequences of up to {asked.calls} calls: no fault")


if __name__ == "__main__":
    main()
