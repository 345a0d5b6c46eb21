"""The paper's Tables 1 and 2: replacement rules, and numbers of slots, on three suites.

Every cell is a resumable evaluation in a folder of its own.
:mod:`stremn.study.table_report` compares the rows and writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stremn.core.hardware import pick_device, precision_name
from stremn.core.weights import fingerprint
from stremn.errors import StremnError
from stremn.evaluation.segmentation.evaluation import Elsewhere, Watcher, evaluate, nobody
from stremn.evaluation.segmentation.results import Report
from stremn.evaluation.segmentation.run_description import (
    RunDescription,
    Segmenter,
    session_factory,
    slots_label,
)
from stremn.memory.policies import POLICIES
from stremn.moved import earlier_arguments, earlier_fields
from stremn.networks.defaults import PAPER
from stremn.networks.model import STReMN
from stremn.study.suites import Suite

CURVE_STEP = 100
"""Frames in a point of the curve of the long suite."""

RANDOM_POLICIES = frozenset({"random-drop", "random-select"})
"""Rules whose result depends on the seed; the others run with the first seed alone."""


@earlier_fields(slots="memory_slots")
@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        label: what the table calls it.
        policy: name of the rule.
        memory_slots: K, templates kept of each object.
        paper: the paper's J&F on DAVIS 2017 test-dev in percent, None if it has none.
    """

    label: str
    policy: str
    memory_slots: int
    paper: float | None = None


@earlier_arguments(slots="memory_slots")
def rule_rows(memory_slots: int = PAPER.memory_slots) -> tuple[Row, ...]:
    """Return the rows of Table 1 and of further rules, with the same number of slots."""
    return (
        Row("(A) remove oldest", "oldest", memory_slots, 76.7),
        Row("(B) remove newest", "newest", memory_slots, 76.0),
        Row("(C) random drop", "random-drop", memory_slots, 75.5),
        Row("(D) random select", "random-select", memory_slots, 76.9),
        Row("(E) keep the first and last frame", "first-and-last", memory_slots, 75.2),
        Row("(F) drop the most similar", "most-similar", memory_slots, 76.9),
        Row("learned (the paper's)", "learned", memory_slots, 78.3),
        Row("learned with evidence of the slots", "evidence", memory_slots),
        Row("spread", "spread", memory_slots),
        Row("spread, slots without the object first", "spread-occupied", memory_slots),
        Row("empty first", "empty-first", memory_slots),
        Row("upper confidence (as RMem)", "ucb", memory_slots),
        Row("least used (as AFB-URR, XMem)", "least-used", memory_slots),
        Row("Gram diversity (as READMem)", "diversity", memory_slots),
        Row("growing (STM, every 5th frame)", "append", memory_slots),
    )


@earlier_arguments(slots="memory_slots")
def slot_rows(
    policy: str = PAPER.policy, memory_slots: Sequence[int] = (1, 2, 3, 4, 5, 6, 7, 10, 20)
) -> tuple[Row, ...]:
    """Return the rows of Table 2: one rule with several numbers of slots."""
    paper = {3: 76.3, 4: 76.9, 5: 77.8, 6: 78.3, 7: 77.3}
    return tuple(Row(slots_label(k), policy, k, paper.get(k)) for k in memory_slots)


def choose_rows(rows: Sequence[Row], policies: Sequence[str]) -> tuple[Row, ...]:
    """Return the rows of the named policies, in the table's order.

    A policy of `POLICIES` that the table has no row for gets one at the end, under its own name.

    Raises:
        StremnError: an unknown policy.
    """
    known = [row.policy for row in rows]
    own = [name for name in dict.fromkeys(policies) if name not in known]
    absent = [name for name in own if name not in POLICIES]
    if absent:
        raise StremnError(f"The table has no row for {absent[0]!r}. It has: {', '.join(known)}.")
    chosen = [row for row in rows if row.policy in policies]
    return (*chosen, *(Row(name, name, rows[0].memory_slots) for name in own))


@earlier_fields(resolution="size")
@dataclass(frozen=True)
class Weights:
    """A trained model; several training runs of one recipe measure the spread between runs.

    Attributes:
        name: of its folders, unique in a table.
        make_session: makes a new session, as the description of a run says.
        checksum: of the weights.
        size: working resolution of the sessions.
        reach: how far from its last place an object may be in them; None = anywhere.
        precision: number type of the sessions.
        every: which frames they memorize: 0, n, 2n, ...
    """

    name: str
    make_session: Callable[[RunDescription], Segmenter]
    checksum: str = ""
    size: int = PAPER.size
    reach: float | None = PAPER.reach
    precision: str = "auto"
    every: int = 1

    def run(self, row: Row, seed: int) -> RunDescription:
        """Return the run of a row of the table."""
        return RunDescription(
            self.name,
            row.policy,
            row.memory_slots,
            self.size,
            seed=seed,
            reach=self.reach,
            weights=self.checksum,
            precision=self.precision,
            every=self.every,
        )


@earlier_arguments(resolution="size")
def weights_of(
    name: str,
    model: STReMN,
    size: int = PAPER.size,
    reach: float | None = PAPER.reach,
    *,
    every: int = 1,
    device: str = "auto",
    precision: str = "auto",
    choose: Callable[[str], tuple[STReMN, str]] | None = None,
) -> Weights:
    """Return a model with the name that its folders and protocol have.

    `choose`, where a row's policy says more than the rule, returns the network and the rule.
    """

    def make(run: RunDescription) -> Segmenter:
        network, rule = (model, run.policy) if choose is None else choose(run.policy)
        return session_factory(network, replace(run, policy=rule), device=device)()

    checksum, number = f"{fingerprint(model):08x}", precision_name(precision, pick_device(device))
    return Weights(name, make, checksum, size, reach, number, every)


@dataclass(frozen=True)
class Cell:
    """One evaluation of a table, by the names of its parts, so that another process can run it.

    Attributes:
        suite: its name.
        weights: their name.
        row: what is compared.
        seed: of a random rule.
    """

    suite: str
    weights: str
    row: Row
    seed: int


def nowhere(cell: Cell) -> None:
    """Run all sequences of a cell in this process."""


@dataclass(frozen=True)
class Clip:
    """What one row scored on one shown sequence: means over its objects and repetitions.

    Attributes:
        source: the sequence that it was made from.
        condition: under what condition it is shown; "" for none.
        j: mean J.
        f: mean F.
        objects: number of objects, its weight.
    """

    source: str
    condition: str
    j: float
    f: float
    objects: int


@dataclass(frozen=True)
class Measured:
    """What one row scored on one suite.

    Attributes:
        row: the row.
        clips: shown sequence -> scores, of those that finished; empty if all failed.
        repetitions: mean J&F of each repetition (weights and seeds).
        curve: mean J of frames 0-99, 100-199, ..., of the long suite; None where none is scored.
        failed: shown sequences that failed in some repetition.
        why: what the first of them failed with.
    """

    row: Row
    clips: Mapping[str, Clip]
    repetitions: Mapping[str, float]
    curve: Sequence[float | None]
    failed: Sequence[str]
    why: str = ""

    @property
    def conditions(self) -> dict[str, float]:
        """Condition -> mean J over its objects."""
        names = dict.fromkeys(clip.condition for clip in self.clips.values() if clip.condition)
        return {name: self._mean_j(name) for name in names}

    def _mean_j(self, condition: str) -> float:
        clips = [clip for clip in self.clips.values() if clip.condition == condition]
        return float(np.average([c.j for c in clips], weights=[c.objects for c in clips]))


@dataclass(frozen=True)
class Table:
    """A finished table.

    Attributes:
        title: heading.
        reference: label of the row that the others are compared with.
        protocol: what was shown and scored, for each suite.
        suites: suite -> rows.
    """

    title: str
    reference: str
    protocol: Mapping[str, Mapping[str, Any]]
    suites: Mapping[str, tuple[Measured, ...]]


def run_table(
    title: str,
    rows: Sequence[Row],
    suites: Sequence[Suite],
    weights: Sequence[Weights],
    out: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    reference: str = PAPER.policy,
    watch: Watcher = nobody,
    elsewhere: Callable[[Cell], Elsewhere | None] = nowhere,
) -> Table:
    """Evaluate every row on every suite; continue where an earlier call stopped.

    Args:
        title: heading.
        rows: what to compare.
        suites: what to show.
        weights: trained models, each evaluated with each row.
        out: folder; cells go to ``out/<suite>/<weights>/<policy>-<memory slots>-<seed>``.
        seeds: of the random rules.
        reference: policy of the row that the others are compared with; the last row with it, or
            the last row if none has it.
        watch: called after every frame; the sequence's name comes with suite and row before it.
        elsewhere: returns what runs the sequences of a cell in other processes, if anything does.

    Raises:
        StremnError: no row or no suite, weights of one name, or all sequences of a suite failed.
    """
    if not rows or not suites or not weights or not seeds:
        raise StremnError(
            "A table needs at least one row, one suite, one set of weights, one seed."
        )
    names = [model.name for model in weights]
    if len(set(names)) < len(names):
        raise StremnError(f"Weights must have different names, got {', '.join(names)}.")
    measured: dict[str, tuple[Measured, ...]] = {}
    protocol: dict[str, Mapping[str, Any]] = {}
    for suite in suites:
        cells = []
        for row in rows:
            reports = _run_row(row, suite, weights, seeds, out, watch, elsewhere)
            protocol.setdefault(suite.name, next(iter(reports.values())).protocol)
            cells.append(_measure(row, suite, reports))
        if not any(cell.clips for cell in cells):
            raise StremnError(f"No sequence of the suite {suite.name} finished: {cells[0].why}")
        measured[suite.name] = tuple(cells)
    base = next((row for row in reversed(rows) if row.policy == reference), rows[-1])
    shown = {name: _shared(p, seeds, weights) for name, p in protocol.items()}
    return Table(title, base.label, shown, measured)


def _run_row(
    row: Row,
    suite: Suite,
    weights: Sequence[Weights],
    seeds: Sequence[int],
    out: Path,
    watch: Watcher,
    elsewhere: Callable[[Cell], Elsewhere | None],
) -> dict[str, Report]:
    """Run a row; return its report by repetition."""

    def tell(sequence: str, done: int, total: int) -> None:
        watch(f"{suite.name} | {row.label} | {sequence}", done, total)

    used = seeds if row.policy in RANDOM_POLICIES else seeds[:1]
    reports = {}
    for model in weights:
        for seed in used:
            run = model.run(row, seed)
            reports[f"{model.name}, seed {seed}"] = evaluate(
                suite.data,
                partial(model.make_session, run),
                out / suite.name / model.name / f"{row.policy}-{row.memory_slots}-{seed}",
                run,
                watch=tell,
                elsewhere=elsewhere(Cell(suite.name, model.name, row, seed)),
            )
    return reports


def _measure(row: Row, suite: Suite, reports: Mapping[str, Report]) -> Measured:
    scored = {name: r.plain for name, r in reports.items() if r.plain is not None}
    samples: dict[str, list[tuple[float, float]]] = {}
    objects: dict[str, set[int]] = {}
    for summary in scored.values():
        for o in summary.objects:
            values = (o.scores.j.mean, o.scores.f.mean)
            samples.setdefault(o.sequence, []).append(values)
            objects.setdefault(o.sequence, set()).add(o.object_id)
    clips = {}
    for name, pairs in samples.items():
        j, f = np.mean(pairs, axis=0).tolist()
        source, condition = suite.source_of[name], suite.condition_of[name]
        clips[name] = Clip(source, condition, j, f, len(objects[name]))
    failures = {name: why for r in reports.values() for name, why in r.failures.items()}
    return Measured(
        row,
        clips,
        {name: summary.mean.j_and_f for name, summary in scored.items()},
        _curve(reports.values()) if suite.name == "long" else (),
        sorted(failures),
        next(iter(failures.values()), ""),
    )


def _curve(reports: Iterable[Report]) -> tuple[float | None, ...]:
    """Return the mean J over everything scored in each hundred frames."""
    points: dict[int, list[float]] = {}
    for report in reports:
        for record in report.records:
            for rows in record.plain.values():
                for score in rows:
                    points.setdefault(score.frame // CURVE_STEP, []).append(score.j)
    steps = range(max(points, default=-1) + 1)
    return tuple(float(np.mean(points[step])) if step in points else None for step in steps)


def _shared(
    protocol: Mapping[str, Any], seeds: Sequence[int], weights: Sequence[Weights]
) -> dict[str, Any]:
    own = {"model", "weights", "policy", "memory_slots", "seed", "scored_masks"}
    kept = {key: value for key, value in protocol.items() if key not in own}
    sessions = {
        w.name: {"size": w.size, "reach": w.reach, "every": w.every, "precision": w.precision}
        for w in weights
    }
    return kept | {
        "weights": [w.name for w in weights],
        "sessions": sessions,
        "seeds_of_random_rules": list(seeds),
    }
