"""Suites of a data set: as it is, extended to long videos, and with interruptions.

Short clips hardly separate replacement rules. ``long`` plays a sequence forwards and
backwards without ever returning to its first frames, because seeing those again would reset a
tracker that drifts.
``occlusion`` cuts foreign frames into a sequence and scores only what comes after the return.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np

from stremn.data.readers.sequences import ScoringRule, SequenceSet, VideoSequence
from stremn.errors import StremnError
from stremn.media.frames import Picture, frame_name
from stremn.media.masks import Labels

LONG_RULE = ScoringRule("every annotated frame after the first, played to and fro", False, True)
RETURN_RULE = ScoringRule("annotated frames after the object's return", False, True)


class Shown(NamedTuple):
    """A frame of some sequence."""

    sequence: VideoSequence
    at: int


@dataclass(frozen=True)
class RearrangedSequence:
    """A sequence whose frames come in another order, or between frames of other sequences.

    Attributes:
        name: name of the new sequence.
        source: the sequence that gives objects and label maps.
        shown: what is shown, in time order; foreign frames are resized to the size of the source.
        scored_from: frames before this one do not count.
    """

    name: str
    source: VideoSequence
    shown: tuple[Shown, ...]
    scored_from: int = 0

    def __len__(self) -> int:
        return len(self.shown)

    @property
    def categories(self) -> Mapping[int, str]:
        """Classes of the source."""
        return self.source.categories

    @cached_property
    def objects(self) -> dict[int, int]:
        """Id -> index of the first showing of the source's frame that gives it.

        An object whose frame is not shown is left out.
        """
        first: dict[int, int] = {}
        for step, (sequence, index) in enumerate(self.shown):
            if sequence is self.source:
                first.setdefault(index, step)
        return {i: first[index] for i, index in self.source.objects.items() if index in first}

    def size(self) -> tuple[int, int]:
        """Return (width, height) of the source."""
        return self.source.size()

    def frame(self, index: int) -> Picture:
        """Return the RGB frame of the source's size."""
        sequence, at = self.shown[index]
        frame = sequence.frame(at)
        if sequence is self.source:
            return frame
        return cv2.resize(frame, self.size(), interpolation=cv2.INTER_AREA).astype(np.uint8)

    def label(self, index: int) -> Labels | None:
        """Label map of a source frame, None for foreign frames."""
        sequence, at = self.shown[index]
        return sequence.label(at) if sequence is self.source else None

    def annotated(self, index: int) -> bool:
        """Return whether it is a source frame with a label map."""
        sequence, at = self.shown[index]
        return sequence is self.source and sequence.annotated(at)

    def counts(self, index: int, object_id: int) -> bool:
        """Return whether the frame is late enough to count."""
        sequence, at = self.shown[index]
        return index >= self.scored_from and sequence.counts(at, object_id)

    def submits(self, index: int) -> bool:
        """Return False: no server takes a rearranged sequence."""
        return False

    def frame_name(self, index: int) -> str:
        """Return the position in the new order."""
        return frame_name(index)

    def check(self) -> None:
        """Check the source."""
        self.source.check()


def to_and_fro(length: int, total: int, turn: int) -> list[int]:
    """Yield indices 0 .. length - 1, then back to ``turn`` and forth again, ``total`` in all.

    Frames before ``turn`` are shown once, in the first pass.
    """
    indices = list(range(min(length, total)))
    step, at = -1, length - 1
    while len(indices) < total:
        if not turn <= at + step < length:
            step = -step
        at = at + step if turn < length - 1 else at
        indices.append(at)
    return indices


@dataclass(frozen=True)
class Suite:
    """A data set as a suite shows it.

    Attributes:
        name: "short", "long" or "occlusion".
        data: the sequences shown.
        source_of: name of a shown sequence -> name of the sequence that it was made from. Shown
            sequences of one source are one sample of the world, so intervals draw sources.
        condition_of: name of a shown sequence -> under what condition it is shown.
    """

    name: str
    data: SequenceSet
    source_of: Mapping[str, str]
    condition_of: Mapping[str, str]


def short_suite(data: SequenceSet) -> Suite:
    """Return the data set as it is."""
    return Suite("short", data, {s.name: s.name for s in data}, {s.name: "" for s in data})


def long_suite(data: SequenceSet, frames: int = 1000, turn: float = 0.25) -> Suite:
    """Return every sequence played forward and backward.

    Args:
        data: sequences.
        frames: length of the new sequences.
        turn: playing backwards turns round at this fraction of the sequence.

    Raises:
        StremnError: ``turn`` is not a fraction, or ``frames`` is not positive.
    """
    if not 0 <= turn < 1 or frames < 1:
        raise StremnError(
            f"The long suite got turn {turn} and {frames} frames; turn must be in [0, 1) and the "
            "number of frames positive."
        )
    sequences = tuple(
        RearrangedSequence(
            s.name,
            s,
            tuple(Shown(s, i) for i in to_and_fro(len(s), frames, round(turn * len(s)))),
        )
        for s in data
    )
    shown = replace(data, sequences=sequences, rule=LONG_RULE, frames=f"to and fro to {frames}")
    return Suite("long", shown, {s.name: s.name for s in data}, {s.name: "" for s in data})


def occlusion_suite(
    data: SequenceSet,
    gaps: Sequence[int] = (15, 40),
    positions: Sequence[float] = (0.5,),
    foreign: int = 1,
    seed: int = 0,
) -> Suite:
    """Insert frames of other sequences, for each gap, position and inserted sequence.

    Args:
        data: at least two sequences; the foreign ones are drawn from them.
        gaps: number of foreign frames. A shorter foreign sequence is played forwards and backwards.
        positions: where they are cut in, as fractions of the sequence.
        foreign: how many other sequences are cut into each, one at a time.
        seed: of the draw of foreign sequences.

    Raises:
        StremnError: too few sequences, a gap or `foreign` that is not positive, or a position that
            is not a fraction.
    """
    if foreign < 1 or len(data) <= foreign:
        raise StremnError(
            f"The occlusion suite cuts {foreign} other sequence(s) into each, at least 1, and so "
            f"needs one sequence more; {data.name} {data.split} has {len(data)}."
        )
    if any(gap < 1 for gap in gaps) or not all(0 < p < 1 for p in positions):
        raise StremnError(
            f"The occlusion suite got gaps {list(gaps)} and positions {list(positions)}; gaps "
            "must be positive and positions between 0 and 1."
        )
    rng = np.random.default_rng(seed)
    others = [_others(data, n, foreign, rng) for n in range(len(data))]
    cut = {
        (gap, position): [
            _cut_in(s, other, number, gap, position)
            for number in range(foreign)
            for s, other in zip(data, [drawn[number] for drawn in others], strict=True)
        ]
        for gap in gaps
        for position in positions
    }
    sequences = tuple(s for group in cut.values() for s in group)
    condition_of = {
        s.name: f"{gap} frames at {position:g}" for (gap, position), g in cut.items() for s in g
    }
    shown = replace(
        data, sequences=sequences, rule=RETURN_RULE, frames=f"foreign frames cut in, seed {seed}"
    )
    return Suite("occlusion", shown, {s.name: s.source.name for s in sequences}, condition_of)


def _others(
    data: SequenceSet, own: int, count: int, rng: np.random.Generator
) -> list[VideoSequence]:
    """Draw `count` sequences but the own; the first one is the same whatever the count."""
    choices = rng.permutation(len(data) - 1)[:count]
    return [data.sequences[int(choice) + int(choice >= own)] for choice in choices]


def _cut_in(
    sequence: VideoSequence, foreign: VideoSequence, number: int, gap: int, position: float
) -> RearrangedSequence:
    """Cut `gap` frames of the `number`th foreign sequence in; names tell the numbers apart."""
    at = min(max(round(position * len(sequence)), 1), len(sequence) - 1)
    before = [Shown(sequence, i) for i in range(at)]
    hidden = [Shown(foreign, i) for i in to_and_fro(len(foreign), gap, 0)]
    after = [Shown(sequence, i) for i in range(at, len(sequence))]
    return RearrangedSequence(
        f"{sequence.name}+{gap}@{position:g}" + (f"-{number + 1}" if number else ""),
        sequence,
        (*before, *hidden, *after),
        scored_from=at + gap,
    )
