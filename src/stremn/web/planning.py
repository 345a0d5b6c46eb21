"""Plan a run: the ranges of frames without valid results."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from stremn.errors import StremnError
from stremn.web.options import Options, Settings
from stremn.web.takes import Given, SavedState, SavedStates, Take, Way, first_change


@dataclass(frozen=True)
class Leg:
    """A range of frames in one direction.

    Attributes:
        take: where its masks go; knows way, start and given masks.
        end: the time on the way to stop before.
        state: a session to go on from; None: a new one.
    """

    take: Take
    end: int
    state: SavedState | None

    @property
    def length(self) -> int:
        """Number of frames."""
        return self.end - self.take.start


def plan(
    options: Options,
    settings: Settings,
    frames: int,
    takes: Sequence[Take],
    given: Given,
    objects: Set[int],
    states: SavedStates,
    folder: Callable[[], Path],
) -> tuple[Leg, ...]:
    """Return the legs of a run; none if all frames have results.

    As with `segment --both-ways`, the way forward begins at the first frame that is marked, and
    the way backward at the last; between them both are followed.

    Args:
        options: how to follow.
        settings: of these options; only takes and sessions that have them are continued.
        frames: of the video.
        takes: what is known, the latest last.
        given: the masks that are given; one or more.
        objects: ids to follow.
        states: sessions to go on from.
        folder: returns a new folder for a take.

    Raises:
        StremnError: no mask is given before the end.
    """
    last = min(options.end or frames, frames)
    marked = [index for index in given if index < last]
    if not marked:
        raise StremnError(
            f"Only frames before {last} are followed, and no object is marked in them."
        )
    ends = {Way(min(marked), 1): last - min(marked)}
    if options.both and max(marked) > 0:
        ends[Way(max(marked), -1)] = max(marked) + 1
    legs = []
    for way, end in ends.items():
        on_way = way.of(given)
        latest = next((take for take in reversed(takes) if take.way == way), None)
        begin = 0 if latest is None else first_change(latest, settings, on_way, objects)
        if begin < end:
            state = states.best(way, begin, settings, on_way, objects)
            start = 0 if state is None else state.after + 1
            take = Take(folder(), way, start, settings, on_way, tuple(ends))
            legs.append(Leg(take, end, state))
    return tuple(legs)
