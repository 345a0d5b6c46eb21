"""Results of an evaluation: scores of frames, objects and sequences, and the report of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from stremn.evaluation.segmentation.metrics import Scores, Statistics, mean_scores, seen_unseen_mean

Json = dict[str, Any]


class FrameScore(NamedTuple):
    """J and F of one object in one frame (index within the sequence).

    `swapped`: its mask covers more of another object than of itself.
    """

    frame: int
    j: float
    f: float
    swapped: bool = False


Rows = dict[int, list[FrameScore]]
"""Object id -> score of each scored frame in time order."""


@dataclass(frozen=True)
class SequenceRecord:
    """Scores of one finished sequence, kept so that an interrupted run can be resumed.

    Attributes:
        sequence: name.
        frames: number of frames shown to the session.
        seconds: time that reading its frames and segmenting them took.
        plain: scores of the label maps as segmented.
        filtered: scores after the far-false-positive filter.
    """

    sequence: str
    frames: int
    seconds: float
    plain: Rows
    filtered: Rows

    def to_json(self) -> Json:
        """Return the scores as a table; keys are strings."""
        return {
            "sequence": self.sequence,
            "frames": self.frames,
            "seconds": self.seconds,
            "plain": {str(i): [list(row) for row in rows] for i, rows in self.plain.items()},
            "filtered": {str(i): [list(row) for row in rows] for i, rows in self.filtered.items()},
        }

    @staticmethod
    def from_json(table: Json) -> SequenceRecord:
        """Rebuild the record from :meth:`to_json`."""
        plain, filtered = (
            {int(i): [FrameScore(*row) for row in rows] for i, rows in table[kind].items()}
            for kind in ("plain", "filtered")
        )
        return SequenceRecord(table["sequence"], table["frames"], table["seconds"], plain, filtered)


class ScoredObject(NamedTuple):
    """Scores of one object; ``group`` is "seen", "unseen" or None.

    ``swapped`` is the share of its scored frames in which it took another object's place.
    """

    sequence: str
    object_id: int
    group: str | None
    scores: Scores
    swapped: float = 0.0


@dataclass(frozen=True)
class Summary:
    """Scores of all objects of a run."""

    objects: tuple[ScoredObject, ...]

    @property
    def mean(self) -> Scores:
        """Average over objects, as DAVIS does."""
        return mean_scores(row.scores for row in self.objects)

    def by_sequence(self) -> dict[str, Scores]:
        """Average over the objects of each sequence."""
        return self._means(lambda row: row.sequence)

    def by_group(self) -> dict[str, Scores]:
        """Average over seen and over unseen objects; empty where the data set has no groups."""
        return {} if any(row.group is None for row in self.objects) else self._means(_group_name)

    def swapped(self) -> dict[str, float]:
        """Return the share of masks that lie on another object, of each sequence with several
        objects."""
        shares: dict[str, list[float]] = {}
        for row in self.objects:
            shares.setdefault(row.sequence, []).append(row.swapped)
        return {name: sum(s) / len(s) for name, s in shares.items() if len(s) > 1}

    def _means(self, key: Callable[[ScoredObject], str]) -> dict[str, Scores]:
        keys = dict.fromkeys(key(row) for row in self.objects)
        return {k: mean_scores(r.scores for r in self.objects if key(r) == k) for k in keys}

    def to_json(self) -> Json:
        """Return means, groups, and each sequence with its objects."""
        by_sequence, groups = self.by_sequence(), self.by_group()
        table: Json = {**_scores_json(self.mean)}
        if groups:
            table["groups"] = {name: _scores_json(scores) for name, scores in groups.items()}
            if len(groups) > 1:
                table["seen_unseen_mean"] = seen_unseen_mean(groups)
        table["sequences"] = {
            name: {
                **_scores_json(scores),
                "objects": {
                    str(row.object_id): {**_scores_json(row.scores), "swapped": row.swapped}
                    for row in self.objects
                    if row.sequence == name
                },
            }
            for name, scores in by_sequence.items()
        }
        return table


def _group_name(row: ScoredObject) -> str:
    return row.group or ""


def _scores_json(scores: Scores) -> Json:
    return {"J&F": scores.j_and_f, "J": _json(scores.j), "F": _json(scores.f)}


def _json(row: Statistics) -> Json:
    # JSON has no NaN; only the toolkit's overflowing decay can be one.
    return {k: None if math.isnan(v) else v for k, v in asdict(row).items()}


@dataclass(frozen=True)
class Report:
    """Result of an evaluation.

    Attributes:
        protocol: what was run on what and scored how.
        plain: scores without post-processing, None if nothing could be scored.
        filtered: scores with the far-false-positive filter, None if it was not applied.
        failures: sequence -> error, for sequences that failed.
        records: what each finished sequence scored.
    """

    protocol: Json
    plain: Summary | None
    filtered: Summary | None
    failures: Mapping[str, str] = field(default_factory=dict)
    records: tuple[SequenceRecord, ...] = ()

    def to_json(self) -> Json:
        """Return the contents of ``scores.json``."""
        return {
            "protocol": self.protocol,
            "without_postprocessing": None if self.plain is None else self.plain.to_json(),
            "with_postprocessing": None if self.filtered is None else self.filtered.to_json(),
            "frames_per_second": {r.sequence: r.frames / r.seconds for r in self.records},
            "failed": dict(self.failures),
        }
