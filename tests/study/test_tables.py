import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from stremn.cli.tables import _name_of
from stremn.data.readers.layouts import read_davis
from stremn.errors import StremnError
from stremn.evaluation.segmentation.results import FrameScore, Report, SequenceRecord
from stremn.memory.policies import POLICIES
from stremn.study.suites import long_suite, occlusion_suite, short_suite, to_and_fro
from stremn.study.table_report import compare, to_json, to_markdown, write_table
from stremn.study.tables import (
    Clip,
    Measured,
    Table,
    Weights,
    _curve,
    choose_rows,
    rule_rows,
    run_table,
    slot_rows,
    weights_of,
)
from tiny_vos import davis


@dataclass
class Answer:
    labels: np.ndarray


@dataclass
class Eroding:
    """Answers the given mask without its last ``loss`` columns: a policy of known quality."""

    loss: int
    labels: np.ndarray | None = None

    def step(self, frame, mask=None):
        if mask is not None:
            self.labels = mask.copy()
            self.labels[:, 14 - self.loss :] = 0
        return Answer(self.labels)


LOSSES = {"oldest": 8, "newest": 4, "random-drop": 6, "learned": 4}


@dataclass
class Maker:
    made: list[tuple[str, int, int]] = field(default_factory=list)

    def __call__(self, run):
        self.made.append((run.policy, run.memory_slots, run.seed))
        return Eroding(LOSSES[run.policy] + (run.seed if run.policy == "random-drop" else 0))


@pytest.fixture
def data(tmp_path):
    return read_davis(davis(tmp_path / "D", {"a": [1], "b": [1, 2], "c": [1]}, count=8))


ROWS = choose_rows(rule_rows(6), ["oldest", "newest", "random-drop", "learned"])


def test_rules_table(tmp_path, data):
    maker = Maker()
    table = run_table("Rules", ROWS, [short_suite(data)], [Weights("w", maker)], tmp_path / "out")
    # Random rules run with every seed, the others once; a fresh session for each sequence.
    assert len(maker.made) == 3 * (3 + 3)
    rows = {m.row.policy: m for m in table.suites["short"]}
    assert set(rows["random-drop"].repetitions) == {f"w, seed {s}" for s in range(3)}
    assert {n: clip.objects for n, clip in rows["learned"].clips.items()} == {
        "a": 1,
        "b": 2,
        "c": 1,
    }
    newest = compare(rows["newest"], rows["learned"]).difference
    assert newest.tie
    assert newest.mean == 0
    oldest = compare(rows["oldest"], rows["learned"]).difference
    assert oldest.high < 0
    assert compare(rows["learned"], rows["learned"]).difference is None


def measured(row, **clips):
    """A row with one clip of each source, given its J; F is half of it."""
    objects = {"a": 1, "b": 3, "c": 1, "d": 1}
    return Measured(
        row,
        {name: Clip(name[0], "", j, j / 2, objects[name[0]]) for name, j in clips.items()},
        {},
        (),
        (),
    )


def test_differences_are_paired_by_sequence_and_weighted_by_objects():
    one, other = measured(ROWS[0], a=0.2, b=0.6, c=0.9), measured(ROWS[1], a=0.4, b=0.5)
    difference = compare(one, other).difference
    change = {"a": (0.2 - 0.4) * 0.75, "b": (0.6 - 0.5) * 0.75}  # c was finished by one alone
    assert difference.mean == pytest.approx((change["a"] + 3 * change["b"]) / 4)
    # Of four equally likely draws of two sequences one is all a, and one is all b.
    assert (difference.low, difference.high) == pytest.approx((change["a"], change["b"]))
    assert compare(one, measured(ROWS[1], d=0.5)).difference is None


def test_differences_leave_out_clips_that_one_row_did_not_finish():
    one, other = measured(ROWS[0], a1=0.2, a2=0.9, b=0.5), measured(ROWS[1], a1=0.4, b=0.5)
    compared = compare(one, other)
    assert compared.difference.mean == pytest.approx((0.2 - 0.4) * 0.75 / 4)
    assert compared.j.mean == pytest.approx((0.2 + 0.9 + 3 * 0.5) / 5)


def test_mean_is_over_objects(tmp_path, data):
    table = run_table("T", ROWS, [short_suite(data)], [Weights("w", Maker())], tmp_path / "out")
    measured = table.suites["short"][0]
    weighted = sum(clip.j * clip.objects for clip in measured.clips.values()) / 4
    assert compare(measured, measured).j.mean == pytest.approx(weighted)
    report = json.loads((tmp_path / "out/short/w/oldest-6-0/scores.json").read_text())
    assert report["without_postprocessing"]["J"]["mean"] == pytest.approx(weighted)


def test_goes_on_where_it_stopped(tmp_path, data):
    suites = [short_suite(data), long_suite(data, frames=12)]
    first = run_table("T", ROWS, suites, [Weights("w", Maker())], tmp_path / "out")
    maker = Maker()
    again = run_table("T", ROWS, suites, [Weights("w", maker)], tmp_path / "out")
    assert maker.made == []
    assert to_json(again) == to_json(first)


def test_long_and_occlusion_have_their_own_columns(tmp_path, data):
    suites = [long_suite(data.only(["b"]), frames=210), occlusion_suite(data, gaps=(2, 5))]
    table = run_table("T", ROWS[:2], suites, [Weights("w", Maker())], tmp_path / "out")
    long = table.suites["long"][0]
    # Two columns are left of a ten-column square that is `index` columns further on.
    shared = [max(0, 2 - index) for index in to_and_fro(8, 210, 2)]
    j = np.array([n / (12 - n) for n in shared])
    points = [j[1:100].mean(), j[100:200].mean(), j[200:].mean()]
    assert long.curve == pytest.approx(points)
    hidden = table.suites["occlusion"][0]
    assert set(hidden.conditions) == {"2 frames at 0.5", "5 frames at 0.5"}
    assert sorted((c.source, c.objects) for c in hidden.clips.values()) == [
        (name, objects) for name, objects in (("a", 1), ("b", 2), ("c", 1)) for _ in range(2)
    ]
    text = to_markdown(table)
    assert "J of each hundred frames" in text
    assert "| 100-199 |" in text
    assert "| 2 frames at 0.5 |" in text


def test_markdown_and_json_are_written(tmp_path, data):
    weights = [Weights("w1", Maker()), Weights("w2", Maker())]
    table = run_table("Table 1", ROWS, [short_suite(data)], weights, tmp_path / "out")
    markdown, numbers = write_table(table, tmp_path / "out", "rules")
    text = markdown.read_text()
    assert text.startswith("# Table 1")
    assert "| (A) remove oldest |" in text
    assert " tie |" in text
    assert "| reference |" in text
    assert "| 76.7 |" in text
    parsed = json.loads(numbers.read_text())
    rows = {row["policy"]: row for row in parsed["suites"]["short"]}
    assert rows["learned"]["minus_reference"] is None
    assert rows["newest"]["minus_reference"]["tie"] is True
    assert rows["learned"]["std_of_repetitions"] == 0
    assert parsed["protocol"]["short"]["weights"] == ["w1", "w2"]
    assert "policy" not in parsed["protocol"]["short"]


def test_the_reach_of_the_sessions_is_told(tmp_path, data):
    suites = [short_suite(data)]
    for reach, told in ((None, False), (0.5, True)):
        weights = [Weights("w", Maker(), reach=reach)]
        table = run_table("T", ROWS[:1], suites, weights, tmp_path / f"{reach}")
        assert ("far regions not memorized (reach 0.5)" in to_markdown(table)) == told


def test_the_description_of_a_cell_makes_its_session(tmp_path, data, model):
    weights = weights_of("mine", model, 64, reach=0.5, device="cpu")
    row = choose_rows(rule_rows(3), ["oldest"])[0]
    session = weights.make_session(weights.run(row, 2))
    assert (session.memory_slots, session.policy_name, session.size) == (3, "oldest", 64)
    assert (session.reach, str(session.dtype)) == (0.5, f"torch.{weights.precision}")
    run_table("T", [row], [short_suite(data)], [weights], tmp_path / "out", seeds=[2])
    scores = json.loads((tmp_path / "out/short/mine/oldest-3-2/scores.json").read_text())
    assert scores["protocol"] | weights.run(row, 2).to_json() == scores["protocol"]


def test_a_failed_sequence_is_named_and_left_out(tmp_path, data):
    @dataclass
    class FailsOnB(Maker):
        def __call__(self, run):
            self.made.append(run)
            if len(self.made) == 2:
                raise RuntimeError("no memory")
            return Eroding(0)

    table = run_table(
        "T", ROWS[:1], [short_suite(data)], [Weights("w", FailsOnB())], tmp_path / "out"
    )
    assert table.suites["short"][0].failed == ["b"]
    assert "Failed and left out: b." in to_markdown(table)


def test_a_row_that_fails_does_not_cost_the_table(tmp_path, data):
    """Neither on a whole suite, nor under one condition."""

    @dataclass
    class Fails(Maker):
        def __call__(self, run):
            if run.policy == "oldest":
                raise RuntimeError("no memory")
            return Long() if run.policy == "newest" else super().__call__(run)

    @dataclass
    class Long:
        """Fails in long clips."""

        frames: int = 0

        def step(self, frame, mask=None):
            self.frames += 1
            if self.frames > 11:
                raise RuntimeError("no memory")
            return Answer(np.zeros(frame.shape[:2], np.uint8))

    suites = [short_suite(data), occlusion_suite(data, gaps=(2, 5))]
    table = run_table("T", ROWS, suites, [Weights("w", Fails())], tmp_path / "out")
    markdown, numbers = write_table(table, tmp_path / "out", "rules")
    text = markdown.read_text()
    assert "| (A) remove oldest | failed | - | - | - | - | - | 76.7 |" in text
    assert "| (B) remove newest | 0.0 | - |" in text
    assert "| 2 frames at 0.5 | 5 frames at 0.5 |" in text
    rows = {row["policy"]: row for row in json.loads(numbers.read_text())["suites"]["short"]}
    assert rows["oldest"]["J"] is None
    assert rows["newest"]["J"] is not None


def test_hundreds_without_a_scored_frame_stay_empty(tmp_path, data):
    scored = [FrameScore(150, 0.9, 0.0), FrameScore(450, 0.1, 0.0)]
    record = SequenceRecord("b", 500, 1.0, {1: scored}, {})
    assert _curve([Report({}, None, None, {}, (record,))]) == (None, 0.9, None, None, 0.1)
    row = Measured(ROWS[0], {"b": Clip("b", "", 0.5, 0.5, 1)}, {"w": 0.5}, (None, 0.9), ())
    session = {"size": 64, "reach": None, "every": 2, "precision": "float32"}
    protocol = {"data": "d", "split": "s", "frames_shown": "all", "frames_scored": "all"}
    table = Table(
        "T", row.row.label, {"long": protocol | {"sessions": {"w": session}}}, {"long": (row,)}
    )
    assert "| | 0-99 | 100-199 |" in to_markdown(table).replace("|  |", "| |")
    assert "| (A) remove oldest | - | 90.0 |" in to_markdown(table)
    assert "64 px, float32, one frame in 2 memorized, up to" in to_markdown(table)


def test_the_sessions_of_each_weights_are_told_where_they_differ(tmp_path, data):
    weights = [Weights("w1", Maker(), size=64), Weights("w2", Maker(), size=32, every=5)]
    table = run_table("T", ROWS[:1], [short_suite(data)], weights, tmp_path / "out")
    text = to_markdown(table)
    assert "w1: 64 px, auto, every frame memorized; w2: 32 px, auto, one frame in 5" in text


def test_a_rule_of_ones_own_gets_a_row(monkeypatch):
    monkeypatch.setitem(POLICIES, "my-rule", POLICIES["oldest"])
    rows = choose_rows(rule_rows(4), ["my-rule", "learned"])
    assert [(row.label, row.memory_slots) for row in rows] == [
        ("learned (the paper's)", 4),
        ("my-rule", 4),
    ]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/w.safetensors", "w"),
        ("runs/small-1.5", "runs-small-1.5"),
        ("a/b/last.safetensors", "b-last"),
        ("small", "small"),
    ],
)
def test_weights_are_named_after_the_end_of_their_path(source, name):
    assert _name_of(source) == name


def test_errors(tmp_path, data):
    with pytest.raises(StremnError, match="no row for 'best'"):
        choose_rows(ROWS, ["best"])
    with pytest.raises(StremnError, match="at least one row"):
        run_table("T", [], [short_suite(data)], [Weights("w", Maker())], tmp_path)

    with pytest.raises(StremnError, match="different names, got w, w"):
        run_table("T", ROWS, [short_suite(data)], [Weights("w", Maker())] * 2, tmp_path)

    def broken(run):
        raise RuntimeError("damaged weights")

    with pytest.raises(StremnError, match=r"No sequence of the suite short finished: .*damaged"):
        run_table("T", ROWS, [short_suite(data)], [Weights("w", broken)], tmp_path / "o")


def test_rows_name_real_policies():
    assert {row.policy for row in (*rule_rows(), *slot_rows())} <= set(POLICIES)
    assert {row.policy for row in rule_rows()} == set(POLICIES)
    assert [row.memory_slots for row in slot_rows()] == [1, 2, 3, 4, 5, 6, 7, 10, 20]
    with pytest.warns(
        DeprecationWarning, match="'slots' of rule_rows is called 'memory_slots' now"
    ):
        assert rule_rows(slots=4) == rule_rows(4)
